"""The early stop of a search stage that has clearly failed, which saves the rest of its time.

Requests that are in flight together fail together: one stall of the server delays all of them. Therefore requests are
counted by periods, each longer than any latency so far. A period counts as one value between 0 and 1 (the share of its
requests beyond the limit), however many requests it has. A stall falls into one period, or two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_users.record import RequestRecord

_CHANCE = 1e-4
"""Maximum probability of such bad periods in a stage that meets its objective. It is small because each period is
another test."""

_REQUEST_CHANCE = 1e-6
"""Maximum probability that this number of independent requests exceeds the limit. A stage with few such requests
continues."""

_SURE_PERIODS = 3
"""Minimum number of periods with too many requests beyond the limit before a count that decides the figure ends the
stage."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many requests may be beyond a limit.

    ``breaks`` returns whether a request is beyond the limit, or None if the request does not count. ``share`` is the
    allowed share of all requests. ``sure`` is the number of requests beyond the limit at which the figure of the whole
    stage is beyond it, whatever the outcome of the other requests. It is None if the number of requests is not known in
    advance.
    """

    text: str
    breaks: Callable[[RequestRecord], bool | None]
    share: float
    sure: int | None = None


@dataclass(slots=True)
class _Count:
    """The requests of one allowance: of the whole stage, and of the present period."""

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

    def close(self, allowance: Allowance) -> bool:
        """End the period. Return whether the stage has clearly failed."""
        if self.now_seen:
            beyond = self.now_broken / self.now_seen
            self.periods += 1
            self.shares += beyond
            self.bad_periods += beyond > allowance.share
        self.now_seen = self.now_broken = 0
        if not self.periods:
            return False
        is_sure = allowance.sure is not None and self.broken >= allowance.sure
        return (is_sure and self.bad_periods >= _SURE_PERIODS) or (
            improbable(self.broken, self.seen, allowance.share, _REQUEST_CHANCE)
            and improbable(self.shares, self.periods, allowance.share, _CHANCE)
        )


class FailureWatch:
    """Counts the measured rows of one stage. A period lasts at least ``least_period_s``."""

    def __init__(self, allowances: Sequence[Allowance], least_period_s: float = 1.0) -> None:
        self._allowances = allowances
        self._counts = [_Count() for _ in allowances]
        self._longest_s = least_period_s
        self._began: float | None = None  # start of the period; wall clock
        self._now = -math.inf

    def add(self, record: RequestRecord) -> str | None:
        """Return why the stage has failed, or None while it can still pass."""
        duration_s = record.end_to_end_latency_s or record.connect_s or 0.0
        if record.started_at is not None:
            self._now = max(self._now, record.started_at + duration_s)
        if self._began is None:
            self._began = self._now
        period_ends = self._now - self._began > self._longest_s
        if period_ends:
            self._began = self._now
        self._longest_s = max(self._longest_s, duration_s)
        failure = None
        for allowance, count in zip(self._allowances, self._counts, strict=True):
            if period_ends and count.close(allowance) and failure is None:
                failure = (
                    f"{allowance.text} is missed by {count.broken} of {count.seen} requests in {count.periods} periods"
                )
            breaks = allowance.breaks(record)
            if breaks is not None:
                count.add(breaks)
        return failure


def improbable(hits: float, n: int, share: float, chance: float) -> bool:
    """Return whether a sum of n independent values between 0 and 1, each with mean ``share`` or less, is this
    improbable.

    The test is Chernoff's bound. Hoeffding (1963, theorem 1) proved it for all such values, not only 0 and 1.
    """
    mean = hits / n
    if mean <= share:
        return False
    if not share:
        return True
    rest = (1 - mean) * math.log((1 - mean) / (1 - share)) if mean < 1 else 0.0
    return n * (mean * math.log(mean / share) + rest) > -math.log(chance)
