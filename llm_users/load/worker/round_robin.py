"""Smooth weighted round robin, which chooses the target of each request."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from llm_users.options.parsers import Target


class RoundRobin:
    """Smooth weighted round robin. Shares are exact after every round, and the targets are interleaved."""

    def __init__(self, targets: Sequence[Target], start: int = 0) -> None:
        """Create the sequence and skip ``start`` turns, so that workers do not all begin with the same target."""
        self._targets = targets
        self._credit = [Fraction(0)] * len(targets)
        self._total = sum((target.weight for target in targets), Fraction(0))
        for _ in range(start % 1000):
            self.next()

    def next(self) -> Target:
        """Return the target of the next request."""
        for index, target in enumerate(self._targets):
            self._credit[index] += target.weight
        chosen = max(range(len(self._targets)), key=lambda index: (self._credit[index], -index))
        self._credit[chosen] -= self._total
        return self._targets[chosen]
