"""Which request meets which fault: drawn from the seed and the request's number, so it does not depend on timing.

It must not know wire formats.
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
    """The end of a stream that is not its proper one. An empty `error` means that the connection is just closed."""

    after_tokens: int
    error: str

    @property
    def outcome(self) -> str:
        return "error" if self.error else "cut"


@dataclass(frozen=True, slots=True)
class Fault:
    """One of `fault_kinds`, and after how many tokens; None: before the answer's headers."""

    kind: str
    after: int | None

    def __str__(self) -> str:
        return self.kind if self.after is None else f"{self.kind}@{self.after}"


def drawn(choices: Sequence[tuple[_Kind, float]], key: str) -> _Kind | None:
    """One of the choices, each with its probability, or none."""
    if not choices:
        return None
    left = random.Random(key).random()
    for kind, share in choices:
        left -= share
        if left < 0:
            return kind
    return None


def status_error(spec: Spec, number: int) -> int | None:
    """The status with which this request shall be refused."""
    return drawn(spec.error, f"error {spec.seed} {number}")


def bedrock_error(spec: Spec, number: int) -> str | None:
    """The name of the exception with which this request shall be refused."""
    return drawn(spec.bedrock_error, f"bedrock_error {spec.seed} {number}")


def fault(spec: Spec, number: int) -> Fault | None:
    """What goes wrong with the connection or the stream of this request."""
    places = [(Fault(kind, after), share) for kind, after, share in spec.fault]
    return drawn(places, f"fault {spec.seed} {number}")


def stream_break(spec: Spec, number: int, tokens: int) -> Break | None:
    """Where this answer of so many tokens breaks off; not at all when it ends before."""
    places: list[tuple[Any, float]] = [((kind, after), share) for kind, after, share in spec.stream_error]
    error = drawn(places, f"stream_error {spec.seed} {number}")
    if error is not None and error[1] <= tokens:
        return Break(error[1], error[0])
    after = drawn(spec.cut, f"cut {spec.seed} {number}")
    return None if after is None or after > tokens else Break(after, "")
