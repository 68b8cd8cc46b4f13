"""Convert the events of Anthropic's Messages API to chunks.

The documents are the same as for Claude on Bedrock, so both use one reader. The module does not depend on the
transport or on Locust.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_users.users.bad_events import MalformedEvent, object_despite, refuse_error
from llm_users.users.bedrock.events import BedrockEvents
from llm_users.users.bedrock.families import FAMILIES
from llm_users.users.tool_calls import arguments_text

_CLAUDE = FAMILIES["anthropic-messages"]
_read = _CLAUDE.read
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class MessageEvents(BedrockEvents):
    """Accumulates the data of all events: chunks, tool calls, usage, finish reason and response id."""

    terminator = _CLAUDE.terminator

    def take(self, data: Any, stamp_ns: int, clock_ns: int) -> None:
        document = _document(data)
        if document is None:
            return
        output = self._read_document(document)
        if output:
            self.add_chunk(output, stamp_ns, clock_ns)
        elif output is None:  # a document without a type
            refuse_error(document)
        elif self.response_id is None and document["type"] == "message_start":
            self._identify(document.get("message"))
        if self.finish_reason is not None:
            self.chunks.end(self.finish_reason, stamp_ns, clock_ns)
        self.done = self.stopped

    def take_whole(self, body: bytes) -> None:
        message = _document(body) or {}
        if message.get("error") or "content" not in message:
            refuse_error(message, whole=True)
        self._identify(message)
        self._read_document({"type": "message_start", "message": message})
        for block in message.get("content") or []:
            self._take_block(block)
        if message.get("stop_reason"):
            self._read_document({"type": "message_delta", "delta": message, "usage": message.get("usage")})
            self._read_document({"type": "message_stop"})
        self.done = self.stopped

    def _take_block(self, block: Any) -> None:
        output = self._read_document({"type": "content_block_start", "content_block": block}) or ("", "")
        answer, reasoning = output[:2]
        texts = self.chunks.texts
        if isinstance(block, dict) and str(block.get("type")).endswith("tool_use"):
            self.chunks.text_at[len(texts)] = answer
            arguments = arguments_text(block.get("input") or {})
            self.add_arguments(arguments)
            answer += arguments
        if reasoning:
            self.chunks.reasoning_at[len(texts)] = reasoning
        if answer or reasoning:
            texts.append(answer)

    def _read_document(self, document: dict[str, Any]) -> tuple[str, ...] | None:
        try:
            return _read(self, document)
        except (AttributeError, TypeError, KeyError, IndexError):
            keys = ", ".join(list(document)[:8])
            raise MalformedEvent(f"an event does not have the shape of the Messages API (keys: {keys})") from None

    def _identify(self, message: Any) -> None:
        identifier = message.get("id") if isinstance(message, dict) else None
        self.response_id = None if identifier is None else str(identifier)


def _document(data: bytes) -> dict[str, Any] | None:
    """Parse a JSON object. Return None if the data is not an event."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return object_despite(error, data)
