"""The interface between a wire format and the engine: a reply that is sent at once, or a token-by-token answer.

The wire formats create replies and answers, which share the base class `WireAnswer`; the engine times and sends them.
Neither side depends on the details of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from llm_users.simulator import http_wire
from llm_users.simulator.http_wire import Request
from llm_users.simulator.spec import Spec


@dataclass(slots=True)
class Reply:
    """Bytes that are sent at once. `failed_id` is the id of the rejected inference request, for the log.

    `reason` says in the log why it was rejected: the quota that throttled it, or the error code of a refused signature
    or route; empty for other rejections.
    """

    data: bytes
    status: int
    close: bool = False
    failed_id: str = ""
    reason: str = ""


class Answer(Protocol):
    """Bytes that are sent on a schedule. Token 0 is due after ttft, token k is due k gaps later."""

    number: int
    response_id: str
    prompt_tokens: int
    tokens: int
    streamed: bool
    outcome: str  # for the log: completed; cut, error, reset or stalled when the spec breaks the stream off
    close: bool
    answered: str  # for the log: right, wrong or vague; empty when the prompt asked for no number
    fault: str  # for the log: the injected fault; empty when there is none

    def opening(self) -> bytes:
        """Return the bytes to send as soon as the request is read."""
        ...

    def comment(self) -> bytes:
        """Return the comment to send before the first token, when the spec asks for comments."""
        ...

    def piece(self, start: int) -> tuple[bytes, int]:
        """Return the chunk that begins with token `start`, and its number of tokens."""
        ...

    def closing(self) -> bytes:
        """Return the bytes to send in the same write as the last chunk."""
        ...


class WireAnswer:
    """The part of an answer that all APIs share: its length, its premature end, and its framing as HTTP chunks."""

    prompt_tokens: int
    answered = fault = ""
    comment_line = b":\n\n"

    def __init__(self, spec: Spec, number: int, request: Request, *, tokens: int, streamed: bool) -> None:
        self.spec = spec
        self.number = number
        self.streamed = streamed
        self.broken = spec.stream_break(number, tokens) if streamed else None
        self.cap = tokens
        self.tokens = tokens if self.broken is None else self.broken.after_tokens
        self.outcome = "completed" if self.broken is None else self.broken.outcome
        self.chunked = request.can_chunk and spec.framing == "chunked"
        self.keep_alive = request.keep_alive
        is_last = streamed and (not self.chunked or spec.hangup)
        self.close = self.outcome == "cut" or not self.keep_alive or is_last
        self.held = b""  # bytes to send together with the next ones

    def comment(self) -> bytes:
        return self.framed(self.comment_line) if self.streamed and self.comment_line else b""

    def stream_head(self, content_type: str, headers: dict[str, str]) -> bytes:
        return http_wire.stream_head(content_type, chunked=self.chunked, keep_alive=self.keep_alive, headers=headers)

    def framed(self, data: bytes) -> bytes:
        """Return the data as one HTTP chunk, if the answer has chunks."""
        return http_wire.chunk(data) if self.chunked else data

    def ended(self, data: bytes) -> bytes:
        """Return the last data of a stream with the end of the HTTP body."""
        return data + http_wire.LAST_CHUNK if self.chunked else data

    def whole_response(self, body: bytes, headers: dict[str, str]) -> bytes:
        return http_wire.response(200, body, headers=headers, keep_alive=self.keep_alive)


class Application(Protocol):
    """Maps a request to a reply or an answer."""

    def handle(self, request: Request) -> Reply | Answer: ...

    def ended(self, answer: Answer, sent_tokens: int) -> None:
        """Note that an answer has ended, completed or not, and how many of its tokens were sent."""
        ...

    def refuse(self, status: int, message: str) -> Reply:
        """Return the reply to bytes that are not a valid request."""
        ...
