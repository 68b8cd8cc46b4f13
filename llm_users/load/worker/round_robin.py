"""Smooth weighted round robin, which chooses the target and the user class of each request."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Generic, Protocol, TypeVar


class _Weighted(Protocol):
    @property
    def weight(self) -> Fraction | float: ...


_Choice = TypeVar("_Choice", bound=_Weighted)


class RoundRobin(Generic[_Choice]):
    """Smooth weighted round robin. Shares are exact after every round, and the choices are interleaved."""

    def __init__(self, choices: Sequence[_Choice], start: int = 0) -> None:
        """Create the sequence and skip ``start`` turns, so that workers do not all begin with the same choice."""
        self._choices = choices
        self._weights = [Fraction(choice.weight) for choice in choices]
        self._credit = [Fraction(0)] * len(choices)
        self._total = sum(self._weights, Fraction(0))
        for _ in range(start % 1000):
            self.next()

    def next(self) -> _Choice:
        """Return the next choice."""
        if len(self._choices) == 1:
            return self._choices[0]
        self._credit = [credit + weight for credit, weight in zip(self._credit, self._weights, strict=True)]
        chosen = max(range(len(self._choices)), key=lambda index: (self._credit[index], -index))
        self._credit[chosen] -= self._total
        return self._choices[chosen]
