"""The documents of Anthropic's Messages API: the same documents as Claude's on Bedrock, with this API's ids."""

from __future__ import annotations

from typing import Any, ClassVar

from llm_users.simulator.bedrock.errors import STREAM_ERRORS
from llm_users.simulator.bedrock.families import AnthropicMessages, Document, Turn

_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
          429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error"}  # fmt: skip
_IN_STREAM = {
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
    "serviceUnavailableException": "overloaded_error",
    "modelTimeoutException": "timeout_error",
}


class Messages(AnthropicMessages):
    name, needs = "messages", ("max_tokens", "messages")
    id_header: ClassVar[str] = "request-id"
    numbered: ClassVar[bool] = False

    def identify(self, number: int) -> str:
        return f"msg_{number:08d}"

    def _message(self, turn: Turn, content: list[Document], **more: Any) -> Document:
        return {**super()._message(turn, content, **more), "id": turn.response_id}

    def failure(self, turn: Turn, error: str) -> Document:  # noqa: ARG002 - the Responses API needs the turn
        """Return the event that ends a stream with an error. ``error`` is a name from the spec."""
        return error_document(_IN_STREAM.get(error, "api_error"), STREAM_ERRORS[error])


def refusal(status: int, message: str) -> Document:
    """Return the body of an error response."""
    return error_document(_KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error"), message)


def error_document(kind: str, message: str) -> Document:
    return {"type": "error", "error": {"type": kind, "message": message}}


MESSAGES = Messages()
