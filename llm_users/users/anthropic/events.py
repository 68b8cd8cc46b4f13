"""Convert the events of Anthropic's Messages API to chunks.

The documents are the same as for Claude on Bedrock, so both use one reader. The module does not depend on the
transport or on Locust.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_users.users.bad_events import MalformedEvent, object_despite, refuse_error
from llm_users.users.bedrock.events import BedrockEvents
from llm_users.users.bedrock.families import FAMILIES, take_message

_CLAUDE = FAMILIES["anthropic-messages"]
_read = _CLAUDE.read
_WRONG_SHAPE = (AttributeError, TypeError, KeyError, IndexError)
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
        try:
            take_message(self, message)
        except _WRONG_SHAPE:
            raise _not_an_event(message) from None
        self.done = self.stopped

    def _read_document(self, document: dict[str, Any]) -> tuple[str, ...] | None:
        try:
            return _read(self, document)
        except _WRONG_SHAPE:
            raise _not_an_event(document) from None

    def _identify(self, message: Any) -> None:
        identifier = message.get("id") if isinstance(message, dict) else None
        self.response_id = None if identifier is None else str(identifier)


def _not_an_event(document: dict[str, Any]) -> MalformedEvent:
    keys = ", ".join(list(document)[:8])
    return MalformedEvent(f"an event does not have the shape of the Messages API (keys: {keys})")


def _document(data: bytes) -> dict[str, Any] | None:
    """Parse a JSON object. Return None if the data is not an event."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return object_despite(error, data)
