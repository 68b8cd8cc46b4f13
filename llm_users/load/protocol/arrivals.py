"""The arrival times of requests in an open loop, and the shares of the workers.

Every worker draws the complete schedule of a stage and takes its share, so the arrivals of all workers together follow
the distribution exactly, for any number of workers. When a worker leaves, the others divide its share.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

from llm_users.distributions import ArrivalGap
from llm_users.record import RateRange


def arrival_times_s(gap: ArrivalGap, rate_per_s: float, seed: str) -> Iterator[float]:
    """Yield arrival times without end, in seconds from the start of a stage. The first one follows the first gap."""
    mean_s, rng = 1 / rate_per_s, Random(seed)
    at_s = 0.0
    while True:
        at_s += gap.draw(rng) * mean_s
        yield at_s


def ramp_times_s(
    gap: ArrivalGap, rates: RateRange, length_s: float, seed: str, *, warmup: int = 0, warmup_s: float = 0.0
) -> Iterator[float]:
    """Yield the arrival times of a rate that changes linearly over ``length_s``, in seconds from the start of a stage.

    The gaps of a process with mean rate 1 are drawn and scaled in time: arrival n comes when the integral of the rate
    reaches the sum of the first n gaps. So constant gaps give the exact number of arrivals of the integral, and a
    Poisson process becomes the inhomogeneous Poisson process with this rate.

    The change begins after ``warmup`` arrivals and after ``warmup_s``. Until then, the rate has its first value, or its
    mean if the first value is 0. After the change it keeps its last value. The arrivals end if that is 0.
    """
    start, end = rates
    warmup_rate = start or rates.mean_per_s
    rng, drawn, number = Random(seed), 0.0, 0
    begin_s = warmup_s
    before = warmup_rate * warmup_s  # the integral of the rate before the change
    growth = (end - start) / length_s
    total = rates.mean_per_s * length_s
    while True:
        drawn += gap.draw(rng)
        number += 1
        if number <= warmup:
            begin_s, before = max(begin_s, drawn / warmup_rate), max(before, drawn)
        rest = drawn - before
        if number <= warmup or rest <= 0:
            yield drawn / warmup_rate
        elif rest <= total:
            yield begin_s + 2 * rest / (start + math.sqrt(max(0.0, start * start + 2 * growth * rest)))
        elif end:
            yield begin_s + length_s + (rest - total) / end
        else:
            return


class ArrivalShare(NamedTuple):
    """A worker's share of the arrivals of a stage: number ``first`` and every ``step``-th arrival after it.

    The share excludes arrivals that are due before ``from_s``: another worker sent them, or no worker did.
    """

    first: int
    step: int
    from_s: float = 0.0

    def has(self, number: int, at_s: float) -> bool:
        """Return whether arrival ``number``, due at ``at_s``, belongs to the share."""
        return number >= self.first and (number - self.first) % self.step == 0 and at_s >= self.from_s

    def divided(self, count: int, from_s: float) -> list[ArrivalShare]:
        """Divide the share from ``from_s`` on among ``count`` workers that take its arrivals in turn."""
        from_s = max(from_s, self.from_s)
        return [ArrivalShare(self.first + index * self.step, count * self.step, from_s) for index in range(count)]


class Arrival(NamedTuple):
    """Arrival ``number`` of a stage, in seconds from the stage's origin."""

    number: int
    at_s: float


class ArrivalSchedule:
    """The arrivals of one worker in ascending time. Its shares of the common schedule can change at any time."""

    def __init__(self, times_s: Iterable[float], shares: Iterable[ArrivalShare]) -> None:
        self._all = map(Arrival._make, enumerate(times_s))
        self._shares = tuple(shares)
        self._others: deque[Arrival] = deque()  # drawn recently; belonged to another worker at that time
        self._mine: deque[Arrival] = deque()

    @property
    def next(self) -> Arrival | None:
        """Return the next arrival without removing it, or None when the schedule has no more."""
        while self._shares and not self._mine:
            arrival = next(self._all, None)
            if arrival is None:
                return None
            (self._mine if self._has(arrival) else self._others).append(arrival)
        return self._mine[0] if self._mine else None

    def take(self) -> Arrival:
        """Return the next arrival and remove it."""
        taken = self._mine.popleft()
        while self._others and self._others[0].at_s < taken.at_s - _KEPT_S:
            self._others.popleft()
        return taken

    def change(self, shares: Iterable[ArrivalShare]) -> None:
        """Replace the worker's shares."""
        self._shares = tuple(shares)
        drawn = sorted([*self._mine, *self._others])
        self._mine = deque(filter(self._has, drawn))
        self._others = deque(arrival for arrival in drawn if not self._has(arrival))

    def _has(self, arrival: Arrival) -> bool:
        return any(share.has(*arrival) for share in self._shares)


_KEPT_S = 5.0
"""How long arrivals of other workers are kept after they were due: a share that this worker takes over may begin before
now."""


def due_in(times_s: Iterable[float], shares: Iterable[ArrivalShare], until_s: float) -> int:
    """Return the number of arrivals in the shares that are due before ``until_s``."""
    shares = tuple(shares)
    count = 0
    for number, at_s in enumerate(times_s):
        if at_s >= until_s:
            break
        count += any(share.has(number, at_s) for share in shares)
    return count
