"""When a search stage has clearly failed before it is over, so that the rest of its time is saved.

Requests that are in flight together fail together: one stall of the server makes all of them late. So requests are
counted by periods of time, each longer than any latency so far, and a period counts as one value between 0 and 1 (the
share of its requests beyond the limit), however many requests it has. A stall falls into one period, or two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_users.record import RequestRecord

_CHANCE = 1e-4
"""Of periods as bad as these in a stage that meets its objective; small, because every period is another look."""

_REQUEST_CHANCE = 1e-6
"""The same of as many requests, without dependence: a stage with few requests beyond the limit goes on."""

_SURE_PERIODS = 3
"""Periods with too many requests beyond the limit, from which a count that settles the figure ends the stage."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many requests may be beyond a limit.

    ``breaks`` says of one request whether it is; None: the request says nothing. ``share`` of all requests may be.
    ``sure``: this many beyond the limit, and the figure of the whole stage is beyond it, whatever the other requests
    of the stage do. None where the number of its requests is not known beforehand.
    """

    text: str
    breaks: Callable[[RequestRecord], bool | None]
    share: float
    sure: int | None = None


@dataclass(slots=True)
class _Count:
    """The requests of one allowance: of the whole stage, and of the period that is not over yet."""

    seen: int = 0
    broken: int = 0
    now_seen: int = 0
    now_broken: int = 0
    periods: int = 0
    shares: float = 0.0  # sum over the periods of the share beyond the limit
    bad_periods: int = 0

    def add(self, breaks: bool) -> None:
        self.seen += 1
        self.broken += breaks
        self.now_seen += 1
        self.now_broken += breaks

    def close(self, share: float) -> None:
        """The period is over."""
        if self.now_seen:
            beyond = self.now_broken / self.now_seen
            self.periods += 1
            self.shares += beyond
            self.bad_periods += beyond > share
        self.now_seen = self.now_broken = 0


class FailureWatch:
    """Counts the measured rows of one stage. ``least_period_s``: periods are at least this long."""

    def __init__(self, allowances: Sequence[Allowance], least_period_s: float = 1.0) -> None:
        self._allowances = allowances
        self._counts = [_Count() for _ in allowances]
        self._longest_s = least_period_s
        self._began: float | None = None  # the period; wall clock
        self._now = -math.inf

    def add(self, record: RequestRecord) -> str | None:
        """Why the stage has failed, once it has; None as long as it may still be met."""
        duration_s = record.end_to_end_latency_s or record.connect_s or 0.0
        if record.started_at is not None:
            self._now = max(self._now, record.started_at + duration_s)
        if self._began is None:
            self._began = self._now
        found = self._end_period() if self._now - self._began > self._longest_s else None
        self._longest_s = max(self._longest_s, duration_s)
        for allowance, count in zip(self._allowances, self._counts, strict=True):
            breaks = allowance.breaks(record)
            if breaks is not None:
                count.add(breaks)
        return found

    def _end_period(self) -> str | None:
        self._began = self._now
        for allowance, count in zip(self._allowances, self._counts, strict=True):
            count.close(allowance.share)
        failed = (pair for pair in zip(self._allowances, self._counts, strict=True) if _failed(*pair))
        for allowance, count in failed:
            return f"{allowance.text} is missed by {count.broken} of {count.seen} requests in {count.periods} periods"
        return None


def _failed(allowance: Allowance, count: _Count) -> bool:
    if not count.periods:
        return False
    if allowance.sure is not None and count.broken >= allowance.sure and count.bad_periods >= _SURE_PERIODS:
        return True
    return improbable(count.broken, count.seen, allowance.share, _REQUEST_CHANCE) and improbable(
        count.shares, count.periods, allowance.share, _CHANCE
    )


def improbable(hits: float, n: int, share: float, chance: float) -> bool:
    """Whether this sum of n independent values between 0 and 1, of a mean of at most ``share``, would be a rare chance.

    Chernoff's bound; Hoeffding (1963, theorem 1) has shown it for any such values, not only 0 and 1.
    """
    found = hits / n
    if found <= share:
        return False
    if not share:
        return True
    rest = (1 - found) * math.log((1 - found) / (1 - share)) if found < 1 else 0.0
    return n * (found * math.log(found / share) + rest) > -math.log(chance)
