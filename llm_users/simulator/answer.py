"""The interface between a wire format and the engine: a reply that is sent at once, or a token-by-token answer.

The wire formats create replies and answers; the engine times and sends them. Neither side depends on the details of
the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from llm_users.simulator.http_wire import Request


@dataclass(slots=True)
class Reply:
    """Bytes that are sent at once. `failed_id` is the id of the rejected inference request, for the log."""

    data: bytes
    status: int
    close: bool = False
    failed_id: str = ""


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


class Application(Protocol):
    """Maps a request to a reply or an answer."""

    def handle(self, request: Request) -> Reply | Answer: ...

    def refuse(self, status: int, message: str) -> Reply:
        """Return the reply to bytes that are not a valid request."""
        ...
