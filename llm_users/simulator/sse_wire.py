"""OpenAI's Responses API and Anthropic's Messages API: documents with a type, as server-sent events or as one object.

The module does not depend on sockets or the schedule.
"""

# ruff: noqa: ARG002 (a shared interface, of which no API needs every parameter)

from __future__ import annotations

from typing import Any, ClassVar

from llm_users.simulator.answer import WireAnswer
from llm_users.simulator.bedrock.errors import STREAM_ERRORS
from llm_users.simulator.bedrock.families import AnthropicMessages, Document, Shape, Turn
from llm_users.simulator.bedrock.wire import BadBody, BedrockAnswer, Target, read_json, require
from llm_users.simulator.http_wire import Request
from llm_users.simulator.openai_wire import STREAM_TYPE, json_bytes
from llm_users.simulator.spec import Spec

_ERROR_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
          429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error"}  # fmt: skip
_MESSAGES_ERRORS = {
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
    "serviceUnavailableException": "overloaded_error",
    "modelTimeoutException": "timeout_error",
}


class Messages(AnthropicMessages):
    """The documents of Anthropic's Messages API: the same as Claude's on Bedrock, with this API's ids."""

    needs = ("max_tokens", "messages")
    id_header: ClassVar[str] = "request-id"
    numbered: ClassVar[bool] = False

    def identify(self, number: int) -> str:
        return f"msg_{number:08d}"

    def _message(self, turn: Turn, content: list[Document], **more: Any) -> Document:
        return {**super()._message(turn, content, **more), "id": turn.response_id}

    def failure(self, turn: Turn, error: str) -> Document:
        """Return the event that ends a stream with an error. ``error`` is a name from the spec."""
        return error_document(_MESSAGES_ERRORS.get(error, "api_error"), STREAM_ERRORS[error])


def refusal(status: int, message: str, request_id: str = "") -> Document:
    """Return the body of an error response."""
    kind = _ERROR_KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {**({"request_id": request_id} if request_id else {}), **error_document(kind, message)}


def error_document(kind: str, message: str) -> Document:
    return {"type": "error", "error": {"type": kind, "message": message}}


_ITEMS = {"thought": "rs", "summary": "rs", "text": "msg", "tool": "fc"}  # kind of output -> prefix of its item id
_DELTAS = {
    "thought": "response.reasoning_text.delta",
    "summary": "response.reasoning_summary_text.delta",
    "text": "response.output_text.delta",
    "tool": "response.function_call_arguments.delta",
}
_RESPONSES_ERRORS = {"throttlingException": "rate_limit_exceeded", "validationException": "invalid_prompt"}
_REASONS = {"length": "max_output_tokens"}


class Responses(Shape):
    """The documents of the Responses API. Every event has a type and a ``sequence_number``, which `SseAnswer` adds."""

    needs = ("input",)
    caps: ClassVar[tuple[str, ...]] = ("max_output_tokens",)
    thinks = calls = True
    summary: ClassVar[str] = "summary"
    finishes: ClassVar = {"length": "incomplete", "stop": "completed", "tool": "completed"}
    id_header: ClassVar[str] = "x-request-id"
    numbered: ClassVar[bool] = True

    def identify(self, number: int) -> str:
        return f"resp_{number:08d}"

    def _response(self, turn: Turn, status: str, output: list[Document], **more: Any) -> Document:
        base = {"id": turn.response_id, "object": "response", "created_at": turn.created, "model": turn.model}
        return {**base, "status": status, "error": None, "incomplete_details": None, "output": output, **more}

    def _item(self, kind: str, text: str, status: str) -> Document:
        fields: dict[str, Document] = {
            "thought": {"type": "reasoning", "summary": [], "content": _parts("reasoning_text", text)},
            "text": {"type": "message", "role": "assistant", "content": _parts("output_text", text)},
            "tool": {"type": "function_call", "call_id": "call_simulated", "name": "simulated", "arguments": text},
        }
        return {"id": f"{_ITEMS[kind]}_simulated", "status": status, **fields[kind]}

    def head(self, turn: Turn) -> list[Document]:
        response = self._response(turn, "in_progress", [])
        return [{"type": f"response.{status}", "response": response} for status in ("created", "in_progress")]

    def opens(self, kind: str, index: int) -> list[Document]:
        item = self._item(kind, "", "in_progress")
        return [{"type": "response.output_item.added", "output_index": index, "item": item}]

    def delta(self, kind: str, index: int, text: str, turn: Turn) -> Document:
        location = {"item_id": f"{_ITEMS[kind]}_simulated", "output_index": index}
        return {"type": _DELTAS[kind], **location, "content_index": 0, "delta": text}

    def closes(self, kind: str, index: int) -> list[Document]:
        item = self._item(kind, "", "completed")
        return [{"type": "response.output_item.done", "output_index": index, "item": item}]

    def tail(self, turn: Turn) -> list[Document]:
        response = self.whole(turn)
        return [{"type": f"response.{response['status']}", "response": response}]

    def whole(self, turn: Turn) -> Document:
        parts = (("thought", turn.thought), ("text", turn.text), ("tool", turn.call))
        output = turn.shown(*(self._item(kind, text, "completed") for kind, text in parts))
        reason = _REASONS.get(turn.finish)
        details = {"reason": reason} if reason else None
        usage = {
            "input_tokens": turn.prompt_tokens,
            "input_tokens_details": {"cached_tokens": turn.cached_tokens},
            "output_tokens": turn.tokens,
            "output_tokens_details": {"reasoning_tokens": turn.thought_tokens},
            "total_tokens": turn.prompt_tokens + turn.tokens,
        }
        return self._response(turn, self.finishes[turn.finish], output, incomplete_details=details, usage=usage)

    def failure(self, turn: Turn, error: str) -> Document:
        """Return the event that ends a stream with an error. ``error`` is a name from the spec."""
        failure = {"code": _RESPONSES_ERRORS.get(error, "server_error"), "message": STREAM_ERRORS[error]}
        return {"type": "response.failed", "response": self._response(turn, "failed", [], error=failure)}


def _parts(kind: str, text: str) -> list[Document]:
    return [{"type": kind, "text": text}] if text else []


MESSAGES, RESPONSES = Messages(), Responses()
Typed = Responses | Messages


class SseAnswer(BedrockAnswer):
    """An answer with the blocks and the schedule of a Bedrock answer; every document is a separate event."""

    comment_line = WireAnswer.comment_line
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
        super().__init__(spec, number, target, shape, body, request)

    def opening(self) -> bytes:
        if not self.streamed:
            return b""
        headers = {self._shape.id_header: self.response_id}
        head = self.stream_head(STREAM_TYPE, headers)
        return head + self.head() if self.spec.role == "early" else head

    def _identify(self, number: int) -> str:
        return self._shape.identify(number)

    def _turn_to(self, block: Any) -> bytes:
        opens = super()._turn_to(block)
        kind = self._shape.delta(self.delta_kind(block), block.index, "", self.turn)["type"]
        self._lead = b"event: %b\ndata: " % kind.encode()
        return opens

    def _event(self, name: str, document: bytes, salt: int) -> bytes:
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
        return self.whole_response(body, {self._shape.id_header: self.response_id})
