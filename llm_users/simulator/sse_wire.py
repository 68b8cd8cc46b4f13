"""An answer as documents that name their type, streamed as server-sent events or sent as one object.

OpenAI's Responses API and Anthropic's Messages API use it. It does not depend on sockets or the schedule.
"""

from __future__ import annotations

from typing import Any

from llm_users.simulator import http_wire
from llm_users.simulator.anthropic_shape import Messages
from llm_users.simulator.bedrock.body import BadBody, Target, read_json, require
from llm_users.simulator.bedrock.families import Document
from llm_users.simulator.bedrock.wire import BedrockAnswer
from llm_users.simulator.http_wire import Request
from llm_users.simulator.openai_wire import STREAM_TYPE, json_bytes
from llm_users.simulator.responses_shape import Responses
from llm_users.simulator.spec import Spec

Typed = Responses | Messages


class SseAnswer(BedrockAnswer):
    """An answer with the blocks and the schedule of a Bedrock answer; every document is a separate event."""

    _shape: Typed

    def __init__(self, spec: Spec, number: int, shape: Typed, request: Request) -> None:
        """Parse the request. Raises ValueError for a body that the API would reject."""
        try:
            body = read_json(request.body)
        except RecursionError:
            raise BadBody("the body is nested too deeply") from None
        require(body, shape.needs)
        self.model = str(body.get("model") or spec.model)
        self._sequence = 0
        self._lead = b""
        target = Target(self.model, converse=False, streamed=bool(body.get("stream")))
        super().__init__(
            spec, number, target, shape, body, {}, can_chunk=request.can_chunk, keep_alive=request.keep_alive
        )

    def opening(self) -> bytes:
        if not self.streamed:
            return b""
        headers = {self._shape.id_header: self.response_id}
        head = http_wire.stream_head(STREAM_TYPE, chunked=self.chunked, keep_alive=self.keep_alive, headers=headers)
        return head + self.head() if self.spec.role == "early" else head

    def comment(self) -> bytes:
        return self.framed(b":\n\n") if self.streamed else b""

    def _identify(self, number: int) -> str:
        return self._shape.identify(number)

    def _turn_to(self, block: Any) -> bytes:
        opens = super()._turn_to(block)
        kind = self._shape.delta(self.delta_kind(block), block.index, "", self.turn)["type"]
        self._lead = b"event: %b\ndata: " % kind.encode()
        return opens

    def _event(self, name: str, document: bytes, salt: int) -> bytes:  # noqa: ARG002 - Bedrock's events have a name and padding
        """Return the event of one delta document."""
        return self._lead + self._numbered(document) + b"\n\n"

    def _documents(self, documents: list[Document]) -> bytes:
        events = b"".join(
            b"event: %b\ndata: %b\n\n"
            % (document["type"].encode(), self._numbered(json_bytes(self._counted_as(document))))
            for document in documents
        )
        return self.framed(events) if events else b""

    def _numbered(self, document: bytes) -> bytes:
        if not self._shape.numbered:
            return document
        self._sequence += 1
        return document[:-1] + b',"sequence_number":%d}' % (self._sequence - 1)

    def _counted_as(self, document: Document) -> Document:
        """Return the document, without its usage when the spec turns usage off."""
        if self.spec.usage != "off":
            return document
        inner = {name: self._counted_as(document[name]) for name in ("message", "response") if name in document}
        return {name: value for name, value in document.items() if name != "usage"} | inner

    def _failure(self, error: str) -> bytes:
        return self._documents([self._shape.failure(self.turn, error)])

    def _with_metrics(self, tail: list[Document]) -> list[Document]:
        return tail

    def _whole(self) -> bytes:
        body = json_bytes(self._counted_as(self._shape.whole(self.turn)))
        headers = {self._shape.id_header: self.response_id}
        return http_wire.response(200, body, headers=headers, keep_alive=self.keep_alive)
