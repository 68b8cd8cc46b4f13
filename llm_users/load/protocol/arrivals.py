"""When requests of an open loop arrive, and which worker sends which of them.

Every worker draws the whole schedule of a stage and takes its share, so the arrivals of all workers together follow
the distribution exactly, however many workers there are. When a worker leaves, the others divide its share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

from llm_users.distributions import ArrivalGap


def arrival_times_s(gap: ArrivalGap, rate_per_s: float, seed: str) -> Iterator[float]:
    """Endless arrival times, in seconds from the start of a stage; the first one follows the first gap."""
    gap_s, rng = gap.with_mean(1 / rate_per_s), Random(seed)
    at_s = 0.0
    while True:
        at_s += gap_s.draw(rng)
        yield at_s


class ArrivalShare(NamedTuple):
    """A worker's share of the arrivals of a stage: number ``first`` and every ``step``-th from there.

    Arrivals that are due before ``from_s`` are not in it: another worker sent them, or no worker did.
    """

    first: int
    step: int
    from_s: float = 0.0

    def has(self, number: int, at_s: float) -> bool:
        """Whether arrival ``number``, due at ``at_s``, is in the share."""
        return number >= self.first and (number - self.first) % self.step == 0 and at_s >= self.from_s

    def divided(self, count: int, from_s: float) -> list[ArrivalShare]:
        """The share from ``from_s`` on, divided among ``count`` workers that take its arrivals in turn."""
        from_s = max(from_s, self.from_s)
        return [ArrivalShare(self.first + index * self.step, count * self.step, from_s) for index in range(count)]


class Arrival(NamedTuple):
    """Arrival ``number`` of a stage, in seconds from the stage's origin."""

    number: int
    at_s: float


class ArrivalSchedule:
    """The arrivals of one worker, in the order of time. Its shares of the common schedule may change at any time."""

    def __init__(self, times_s: Iterable[float], shares: Iterable[ArrivalShare]) -> None:
        self._all = map(Arrival._make, enumerate(times_s))
        self._shares = tuple(shares)
        self._others: deque[Arrival] = deque()  # recently drawn, and another worker's at that moment
        self._mine: deque[Arrival] = deque()

    @property
    def next(self) -> Arrival | None:
        """The next arrival, which stays the next one until ``take``; None when the schedule has no more."""
        while self._shares and not self._mine:
            arrival = next(self._all, None)
            if arrival is None:
                return None
            (self._mine if self._has(arrival) else self._others).append(arrival)
        return self._mine[0] if self._mine else None

    def take(self) -> Arrival:
        """Go on to the one after ``next``."""
        taken = self._mine.popleft()
        while self._others and self._others[0].at_s < taken.at_s - _KEPT_S:
            self._others.popleft()
        return taken

    def change(self, shares: Iterable[ArrivalShare]) -> None:
        """From now on these are the worker's shares."""
        self._shares = tuple(shares)
        drawn = sorted([*self._mine, *self._others])
        self._mine = deque(filter(self._has, drawn))
        self._others = deque(arrival for arrival in drawn if not self._has(arrival))

    def _has(self, arrival: Arrival) -> bool:
        return any(share.has(*arrival) for share in self._shares)


_KEPT_S = 5.0
"""Arrivals of other workers are kept for this long after they were due: a share that this worker takes over may begin
before now."""


def due_in(times_s: Iterable[float], shares: Iterable[ArrivalShare], until_s: float) -> int:
    """How many arrivals of the shares are due before ``until_s``."""
    shares = tuple(shares)
    count = 0
    for number, at_s in enumerate(times_s):
        if at_s >= until_s:
            break
        count += any(share.has(number, at_s) for share in shares)
    return count
