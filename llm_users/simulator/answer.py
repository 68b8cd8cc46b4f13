"""What the engine needs of a protocol: a whole reply at once, or an answer that leaves token by token.

A wire format (OpenAI's here, others later) makes these; the engine times and sends them. Neither side must know the
other's details.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from llm_users.simulator.http_wire import Request


@dataclass(slots=True)
class Reply:
    """Bytes that leave at once. `failed_id` names the inference request that this reply refuses, for the log."""

    data: bytes
    status: int
    close: bool = False
    failed_id: str = ""


class Answer(Protocol):
    """Bytes that leave on a schedule. Token 0 is due after ttft, token k is due k gaps later."""

    number: int
    response_id: str
    prompt_tokens: int
    tokens: int
    streamed: bool
    outcome: str  # for the log: completed; cut, error, reset or stalled when the stream shall break off
    close: bool
    answered: str  # for the log: right, wrong or vague; empty when no number was asked for
    fault: str  # for the log: what goes wrong with it on the way, if anything

    def opening(self) -> bytes:
        """Sent as soon as the request was read."""
        ...

    def comment(self) -> bytes:
        """Sent while the first token is awaited, when the spec asks for it."""
        ...

    def piece(self, start: int) -> tuple[bytes, int]:
        """The chunk that begins with token `start`, and how many tokens it has."""
        ...

    def closing(self) -> bytes:
        """Leaves in the same write as the last chunk."""
        ...


class Application(Protocol):
    """From a request to what is sent back."""

    def handle(self, request: Request) -> Reply | Answer: ...

    def refuse(self, status: int, message: str) -> Reply:
        """For bytes that are not a request."""
        ...
