"""The documents of OpenAI's Responses API: the events of its stream, and its unstreamed answer."""

# ruff: noqa: ARG002 (a shared interface, of which no API needs every parameter)

from __future__ import annotations

from typing import Any, ClassVar

from llm_users.simulator.bedrock.errors import STREAM_ERRORS
from llm_users.simulator.bedrock.families import Document, Shape, Turn

_ITEMS = {"thought": "rs", "summary": "rs", "text": "msg", "tool": "fc"}  # kind of output -> prefix of its item id
_DELTAS = {
    "thought": "response.reasoning_text.delta",
    "summary": "response.reasoning_summary_text.delta",
    "text": "response.output_text.delta",
    "tool": "response.function_call_arguments.delta",
}
_IN_STREAM = {"throttlingException": "rate_limit_exceeded", "validationException": "invalid_prompt"}
_REASONS = {"length": "max_output_tokens"}


class Responses(Shape):
    """The documents of the Responses API. Every event has a type and a ``sequence_number``, which `SseAnswer` adds."""

    name, needs = "responses", ("input",)
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
        output = [self._item(kind, text, "completed") for kind, text in parts if text]
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
        failure = {"code": _IN_STREAM.get(error, "server_error"), "message": STREAM_ERRORS[error]}
        return {"type": "response.failed", "response": self._response(turn, "failed", [], error=failure)}


def _parts(kind: str, text: str) -> list[Document]:
    return [{"type": kind, "text": text}] if text else []


RESPONSES = Responses()
