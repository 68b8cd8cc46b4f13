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
"""Maximum probability of so many independent requests beyond the limit. A stage with few of them continues."""

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

    def close(self, share: float) -> None:
        """End the period."""
        if self.now_seen:
            beyond = self.now_broken / self.now_seen
            self.periods += 1
            self.shares += beyond
            self.bad_periods += beyond > share
        self.now_seen = self.now_broken = 0


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
        failure = self._end_period() if self._now - self._began > self._longest_s else None
        self._longest_s = max(self._longest_s, duration_s)
        for allowance, count in zip(self._allowances, self._counts, strict=True):
            breaks = allowance.breaks(record)
            if breaks is not None:
                count.add(breaks)
        return failure

    def _end_period(self) -> str | None:
        self._began, failure = self._now, None
        for allowance, count in zip(self._allowances, self._counts, strict=True):
            count.close(allowance.share)
            if not count.periods or failure is not None:
                continue
            is_sure = allowance.sure is not None and count.broken >= allowance.sure
            if (is_sure and count.bad_periods >= _SURE_PERIODS) or (
                improbable(count.broken, count.seen, allowance.share, _REQUEST_CHANCE)
                and improbable(count.shares, count.periods, allowance.share, _CHANCE)
            ):
                failure = (
                    f"{allowance.text} is missed by {count.broken} of {count.seen} requests in {count.periods} periods"
                )
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
