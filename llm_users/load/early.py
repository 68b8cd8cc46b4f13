"""When a stage has clearly failed before it is over: counts of requests beyond a limit, nothing else.

Knows no interval: how many requests may break a limit for good is told to it. Asked once per row, so it only counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_users.record import RequestRecord

_LEAST_ROWS = 10
"""The first rows of a stage come from one wave of requests and say little."""

_CHANCE = 1e-6
"""Of calling a stage that meets its objective failed; small, because every row is another look."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many requests may be beyond a limit.

    ``breaks`` says of one request whether it is; None: the request says nothing. ``share`` of all requests may be.
    ``sure``: of the requests that are planned, so many beyond the limit settle the verdict whatever the others do.
    """

    text: str
    breaks: Callable[[RequestRecord], bool | None]
    share: float
    sure: int | None = None


class FailureWatch:
    """Counts the measured rows of one stage."""

    def __init__(self, allowances: Sequence[Allowance]) -> None:
        self._allowances = allowances
        self._seen = [0] * len(allowances)
        self._broken = [0] * len(allowances)

    def add(self, record: RequestRecord) -> str | None:
        """Why the stage has failed, once it has; None as long as it may still be met."""
        found = None
        for place, allowance in enumerate(self._allowances):
            breaks = allowance.breaks(record)
            if breaks is None:
                continue
            self._seen[place] += 1
            if breaks:
                self._broken[place] += 1
                found = found or self._why(place, allowance)
        return found

    def _why(self, place: int, allowance: Allowance) -> str | None:
        broken, seen = self._broken[place], self._seen[place]
        settled = allowance.sure is not None and broken >= allowance.sure
        if settled or (seen >= _LEAST_ROWS and improbable(broken, seen, allowance.share)):
            return f"{allowance.text} is missed by {broken} of {seen} requests so far"
        return None


def improbable(hits: int, n: int, share: float, chance: float = _CHANCE) -> bool:
    """Whether so many hits would be a rare chance with this share of them: Chernoff's bound of the binomial law."""
    found = hits / n
    if found <= share:
        return False
    if not share:
        return True
    rest = (1 - found) * math.log((1 - found) / (1 - share)) if found < 1 else 0.0
    return n * (found * math.log(found / share) + rest) > -math.log(chance)
