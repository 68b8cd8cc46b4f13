"""When requests of an open loop arrive: the laws of the gaps between them, and one seeded schedule for all processes.

Knows numbers only. Every load process draws the whole schedule and takes its part of it, so that the arrivals of all of
them together follow the law exactly, however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

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


def part_of(times_s: Iterator[float], rank: int, processes: int) -> Iterator[float]:
    """What is one process's of a common schedule: each arrival is exactly one process's."""
    return islice(times_s, rank, None, processes)
