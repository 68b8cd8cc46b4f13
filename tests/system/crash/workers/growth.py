"""Whether a quantity that was looked at over a long run grows: its slope after the warm-up, and what is certain of it.

Memory comes in steps (an arena, a heap that is extended) and in spikes (garbage that waits for its collection). So the
least value of each of twelve stretches of the run stands for it, and the slope is the median of those between all
pairs of stretches (Theil and Sen), with the one-sided 95 % bound that goes with it: a single step moves neither much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WARM_SHARE = 0.4
WARM_S = 240.0
"""Of the run, and no less than this: caches, histograms and Locust's own tables fill at first. A worker grew by 0.7 MB
in the first minute, by 0.04 in the third, and by less than 0.02 from the fifth on."""

STRETCHES = 12
_ONE_SIDED_95 = 1.645
_FEWEST = 6
"""Stretches with values, below which nothing is certain."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Per minute, in the unit of what was looked at."""

    per_min: float
    at_least_per_min: float
    """With 95 % certainty; minus infinity when there is too little to say."""

    def exceeds(self, bound_per_min: float) -> bool:
        """It is certain to grow faster than that."""
        return self.at_least_per_min > bound_per_min


def growth(seconds: Sequence[float], values: Sequence[float], *, warm_s: float = WARM_S) -> Growth:
    """How fast the values grow after the warm-up."""
    times, floors = _floors(seconds, values, warm_s)
    slopes = sorted(
        (floors[later] - floors[earlier]) / (times[later] - times[earlier]) * 60
        for earlier in range(len(times))
        for later in range(earlier + 1, len(times))
    )
    if not slopes:
        return Growth(math.nan, -math.inf)
    return Growth(statistics.median(slopes), _at_least(slopes, len(times)))


def _floors(seconds: Sequence[float], values: Sequence[float], warm_s: float) -> tuple[list[float], list[float]]:
    """The least value of each stretch after the warm-up, at the stretch's middle."""
    first_s = max(warm_s, WARM_SHARE * max(seconds, default=0.0))
    long_s = (max(seconds, default=0.0) - first_s) / STRETCHES
    if long_s <= 0:
        return [], []
    least: dict[int, float] = {}
    for second, value in zip(seconds, values, strict=True):
        stretch = min(STRETCHES - 1, math.floor((second - first_s) / long_s))
        if stretch >= 0:
            least[stretch] = min(value, least.get(stretch, value))
    return [first_s + (stretch + 0.5) * long_s for stretch in least], list(least.values())


def _at_least(slopes: Sequence[float], count: int) -> float:
    """Sen's bound: so many of the sorted slopes may be below the true one by chance."""
    if count < _FEWEST:
        return -math.inf
    spread = _ONE_SIDED_95 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return slopes[max(0, math.floor((len(slopes) - spread) / 2))]
