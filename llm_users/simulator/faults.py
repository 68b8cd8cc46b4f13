"""Chooses the faults of a request from the seed and the request's number, so that they do not depend on timing.

It does not depend on wire formats.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from llm_users.simulator.spec import Spec

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class Break:
    """A premature end of a stream. An empty `error` means that the server closes the connection without an error."""

    after_tokens: int
    error: str

    @property
    def outcome(self) -> str:
        return "error" if self.error else "cut"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `fault_kinds` and the number of tokens before it; None: before the headers of the answer."""

    kind: str
    after: int | None

    def __str__(self) -> str:
        return self.kind if self.after is None else f"{self.kind}@{self.after}"


def drawn(choices: Sequence[tuple[_Kind, float]], key: str) -> _Kind | None:
    """Return one of the choices, which are (value, probability) pairs, or None."""
    if not choices:
        return None
    remaining = random.Random(key).random()
    for kind, share in choices:
        remaining -= share
        if remaining < 0:
            return kind
    return None


def status_error(spec: Spec, number: int) -> int | None:
    """Return the status with which to reject this request, or None."""
    return drawn(spec.error, f"error {spec.seed} {number}")


def bedrock_error(spec: Spec, number: int) -> str | None:
    """Return the name of the exception with which to reject this request, or None."""
    return drawn(spec.bedrock_error, f"bedrock_error {spec.seed} {number}")


def fault(spec: Spec, number: int) -> Fault | None:
    """Return the fault of the connection or the stream of this request, or None."""
    choices = [(Fault(kind, after), share) for kind, after, share in spec.fault]
    return drawn(choices, f"fault {spec.seed} {number}")


def stream_break(spec: Spec, number: int, tokens: int) -> Break | None:
    """Return where this answer of `tokens` tokens breaks off; None when it does not, or when it ends earlier."""
    choices: list[tuple[Any, float]] = [((kind, after), share) for kind, after, share in spec.stream_error]
    error = drawn(choices, f"stream_error {spec.seed} {number}")
    if error is not None and error[1] <= tokens:
        return Break(error[1], error[0])
    after = drawn(spec.cut, f"cut {spec.seed} {number}")
    return None if after is None or after > tokens else Break(after, "")
