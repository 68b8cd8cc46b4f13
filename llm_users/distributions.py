"""When requests of an open loop arrive: the laws of the gaps between them, and one seeded schedule for all processes.

Knows numbers only. Every load process draws the whole schedule and takes its part of it, so that the arrivals of all of
them together follow the law exactly, however many there are. When a worker is gone the others divide its part.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

_SHAPE = "write constant, poisson, or gamma:CV with the coefficient of variation of the gaps, for example gamma:2"


@dataclass(frozen=True, slots=True)
class ArrivalLaw:
    """``name`` is constant, poisson or gamma; ``cv`` the coefficient of variation of the gaps, 0, 1 or as given."""

    name: str = "poisson"
    cv: float = 1.0

    @classmethod
    def parse(cls, text: str) -> ArrivalLaw:
        """From ``constant``, ``poisson`` or ``gamma:CV``. Raises ValueError."""
        name, colon, number = text.strip().lower().partition(":")
        if not colon and name in ("constant", "poisson"):
            return cls(name, float(name == "poisson"))
        try:
            cv = float(number)
        except ValueError:
            cv = math.nan
        if name != "gamma" or not 0.01 <= cv <= 100:
            raise ValueError(f"{text[:40]!r} is no law of arrivals; {_SHAPE}")
        return cls(name, cv)

    def __str__(self) -> str:
        return f"gamma:{self.cv:g}" if self.name == "gamma" else self.name

    def gaps(self, rate_per_s: float, rng: Random) -> Callable[[], float]:
        """What draws one gap after the other, in seconds, with a mean of ``1 / rate_per_s``."""
        mean_s = 1 / rate_per_s
        if self.name == "constant":
            return lambda: mean_s
        if self.name == "poisson":
            return lambda: -math.log(1.0 - rng.random()) * mean_s
        shape = self.cv**-2  # of the gamma distribution with this coefficient of variation
        scale_s = mean_s / shape
        return lambda: rng.gammavariate(shape, scale_s)


def arrival_times_s(law: ArrivalLaw, rate_per_s: float, seed: str) -> Iterator[float]:
    """Arrivals without end, in seconds from the start of a stage; the first comes after the first gap."""
    gap_s = law.gaps(rate_per_s, Random(seed))
    at_s = 0.0
    while True:
        at_s += gap_s()
        yield at_s


class Part(NamedTuple):
    """A worker's part of the arrivals of a stage: number ``first`` and every ``step``-th from there.

    Arrivals that are due before ``from_s`` do not belong to it: another worker sent them, or no worker did.
    """

    first: int
    step: int
    from_s: float = 0.0

    def has(self, number: int, at_s: float) -> bool:
        """Whether arrival ``number``, due at ``at_s``, belongs to the part."""
        return number >= self.first and (number - self.first) % self.step == 0 and at_s >= self.from_s

    def shares(self, count: int, from_s: float) -> list[Part]:
        """The part from ``from_s`` on, divided among ``count`` workers that take its arrivals in turn."""
        from_s = max(from_s, self.from_s)
        return [Part(self.first + place * self.step, count * self.step, from_s) for place in range(count)]


class Arrival(NamedTuple):
    """Arrival ``number`` of a stage, in seconds from the stage's origin."""

    number: int
    at_s: float


class PartSchedule:
    """The arrivals of one worker, in the order of time. Its parts of the common schedule may change at any time."""

    def __init__(self, times_s: Iterable[float], parts: Iterable[Part]) -> None:
        self._all = map(Arrival._make, enumerate(times_s))
        self._parts = tuple(parts)
        self._others: deque[Arrival] = deque()  # drawn lately, and of another worker when they were
        self._mine: deque[Arrival] = deque()

    @property
    def next(self) -> Arrival | None:
        """The next arrival, which stays the next one until ``take``; None when the schedule has no more."""
        while self._parts and not self._mine:
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

    def change(self, parts: Iterable[Part]) -> None:
        """From now on these are the worker's parts."""
        self._parts = tuple(parts)
        drawn = sorted([*self._mine, *self._others])
        self._mine = deque(filter(self._has, drawn))
        self._others = deque(arrival for arrival in drawn if not self._has(arrival))

    def _has(self, arrival: Arrival) -> bool:
        return any(part.has(*arrival) for part in self._parts)


_KEPT_S = 5.0
"""Arrivals of other workers are kept for this long after they were due: a part that this worker takes over may begin
before now."""


def due_in(times_s: Iterable[float], parts: Iterable[Part], until_s: float) -> int:
    """How many arrivals of the parts are due before ``until_s``."""
    parts = tuple(parts)
    count = 0
    for number, at_s in enumerate(times_s):
        if at_s >= until_s:
            break
        count += any(part.has(number, at_s) for part in parts)
    return count
