"""The search for the highest load that meets the objectives: geometric up, then inwards, then again where undecided.

It is told the results of stages and says which load comes next. It knows no objective, no row and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llm_users.verdict import Verdict

WITHIN = 0.05
"""The search is over when the lowest load that fails is at most this much above the highest that passes."""

MOST_REPEATS = 3
"""Stages at one load, whose rows are judged together; what they do not decide counts by its estimate."""

_FAR, _NEAR = 4.0, 2.0  # steps up
_PUSH = 0.2
_DIGITS = 4  # of a load with a fraction


@dataclass(frozen=True, slots=True)
class Judgement:
    """What all stages at one load say about it.

    ``holds``: by the figures themselves, whatever their intervals. ``margin``: the figure nearest to its limit, as a
    share of the limit, so that below 1 passes; None when there is none. ``more_helps``: whether rows of
    ``MOST_REPEATS`` stages could decide at all.
    """

    verdict: Verdict
    holds: bool
    text: str = ""
    margin: float | None = None
    more_helps: bool = True


@dataclass(slots=True)
class Point:
    """One load that was tried, with the numbers of its stages."""

    load: float
    judgement: Judgement
    stages: list[int] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        """Whether it counts as passed: decided, or else by its estimate."""
        return self.judgement.verdict is Verdict.PASSED or (not self.decided and self.judgement.holds)

    @property
    def decided(self) -> bool:
        """Whether the intervals say so too."""
        return self.judgement.verdict is not Verdict.UNDECIDED


@dataclass(frozen=True, slots=True)
class Range:
    """Where to search: users are whole, rates are not."""

    low: float
    high: float
    whole: bool


class LoadSearch:
    """One search. Ask ``next``, run a stage at that load, say ``ended``, and so on until ``next`` gives None.

    What is known is the set of tried loads. The limit lies below the lowest one that fails, whatever passes above it:
    an endpoint that is good again at a higher load would be no load to promise. Every answer follows from that set, so
    a load that changes its mind when its rows become more moves the bracket and cannot make the search go round.
    """

    def __init__(self, where: Range, most_stages: int, judge: Callable[[Sequence[int]], Judgement]) -> None:
        self.where = where
        self._most = most_stages
        self._judge = judge
        self._points: dict[float, Point] = {}
        self._bracket: tuple[float, float] = (0.0, math.inf)
        self._close_by = 0  # the most stages that may be used in all when the bracket is closed
        self._first_width = 0.0

    # What is known.

    @property
    def points(self) -> list[Point]:
        """The loads that were tried, from the lowest."""
        return sorted(self._points.values(), key=lambda point: point.load)

    @property
    def stages(self) -> int:
        """Stages that were judged."""
        return sum(len(point.stages) for point in self._points.values())

    @property
    def above(self) -> Point | None:
        """The lowest load that fails."""
        return next((point for point in self.points if not point.passes), None)

    @property
    def best(self) -> Point | None:
        """The highest load that passes, below every one that fails."""
        above = self.above
        passing = [point for point in self.points if point.passes and (above is None or point.load < above.load)]
        return passing[-1] if passing else None

    @property
    def closed(self) -> bool:
        """Whether the limit is known as closely as it shall be."""
        best, above = self.best, self.above
        if best is None:
            return above is not None and above.load <= self.where.low
        if above is None:
            return best.load >= self.where.high
        adjacent = self.where.whole and above.load - best.load <= 1
        return adjacent or above.load <= best.load * (1 + WITHIN) * (1 + 1e-9)

    # The course.

    def ended(self, load: float, stage: int) -> Point:
        """A stage at this load is over: judge it together with those before it at the load."""
        known = self._points.get(load)
        stages = [*(known.stages if known is not None else ()), stage]
        point = self._points[load] = Point(load, self._judge(stages), stages)
        return point

    def next(self) -> float | None:
        """The next load; None when everything is known, or no stage is left."""
        if self.stages >= self._most:
            return None
        if self.closed:
            return self._to_repeat()
        best, above = self.best, self.above
        if best is None:
            return self.where.low
        if above is None:
            return self._higher(best)
        return self._between(best, above)

    def _to_repeat(self) -> float | None:
        """An edge that is not decided; the one that passes first, since it is what will be promised."""
        edges = [point for point in (self.best, self.above) if point is not None]
        open_ = [
            point
            for point in edges
            if not point.decided and point.judgement.more_helps and len(point.stages) < MOST_REPEATS
        ]
        return min(open_, key=lambda point: len(point.stages)).load if open_ else None

    def _higher(self, best: Point) -> float:
        step = _NEAR if self._comes_near(best) else _FAR
        return min(self.where.high, self._rounded(best.load * step, best.load, math.inf))

    def _comes_near(self, best: Point) -> bool:
        """Whether the figures, going on as they went from the load before, reach the limit within a long step.

        A short step must be affordable: afterwards long ones up to the top and the way inwards must still fit.
        """
        passed = [point for point in self.points if point.passes and point.load < best.load]
        now, before = best.judgement.margin, passed[-1].judgement.margin if passed else None
        rest = math.ceil(math.log(max(1.0, self.where.high / (best.load * _NEAR)), _FAR) - 1e-9)
        if self._most - self.stages - 1 < rest + _halvings(math.log(_FAR)) or not now or not before or now <= before:
            return False
        slope = math.log(now / before) / math.log(best.load / passed[-1].load)
        return -math.log(now) / slope < math.log(_FAR)

    def _between(self, best: Point, above: Point) -> float:
        """A load inside the bracket: where the figures, taken as a power of the load, meet the limit.

        The ITP rule (Oliveira and Takahashi 2020) on the logarithm of the load: the interpolated place is pushed a
        little to the middle, so that the bracket shrinks from both sides, and is kept so near to the middle that at
        most one stage more is taken than halving takes.
        """
        width = math.log(above.load / best.load)
        self._keep_count(best.load, above.load, width)
        half = width / 2
        place = half
        low, high = best.judgement.margin, above.judgement.margin
        if low and high and low < 1 < high and math.isfinite(high):
            crossing = width * -math.log(low) / (math.log(high) - math.log(low))
            push = min(_PUSH * width * width / self._first_width, abs(half - crossing))
            place = crossing + math.copysign(push, half - crossing)
        stages_after = max(0, self._close_by - self.stages - 1)
        slack = max(0.0, _tolerance() * 2.0**stages_after - half)
        place = min(max(place, half - slack), half + slack)
        return self._rounded(best.load * math.exp(place), best.load, above.load)

    def _keep_count(self, low: float, high: float, width: float) -> None:
        """A bracket that does not lie in the one before is a new one, with its own count of stages."""
        if low < self._bracket[0] or high > self._bracket[1] or not self._close_by:
            self._close_by = self.stages + _halvings(width) + 1
            self._first_width = width
        self._bracket = (low, high)

    def _rounded(self, load: float, low: float, high: float) -> float:
        if not self.where.whole:
            return float(f"{load:.{_DIGITS}g}")
        return float(min(max(round(load), low + 1), high - 1))


def _tolerance() -> float:
    """The width of a closed bracket, less what the rounding of loads may take of it."""
    return 0.98 * math.log1p(WITHIN)


def _halvings(width: float) -> int:
    """Stages that halving takes to come within the tolerance."""
    return max(0, math.ceil(math.log2(max(1e-12, width / _tolerance()))))
