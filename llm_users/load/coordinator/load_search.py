"""The search for the highest load that meets the objectives: geometric steps up, interpolation, then confirmation.

The steps up and the interpolation follow the figures of the stages, also of undecided ones. The result is a *confirmed*
load, whose verdict is passed. If the highest load by its figures stays undecided, lower loads follow, because requests
at a lower load depend less on each other, so that the same time decides more.

The search receives the verdicts on stages and returns the next load. It does not depend on objectives, rows or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llm_users.verdict import Verdict

WITHIN = 0.05
"""The search ends when the lowest failing load is at most this fraction above the highest passing load."""

MOST_REPEATS = 3
"""Maximum number of stages at one load, whose rows are judged together."""

STEP_DOWN = 0.1
"""An undecided load is followed by one that is lower by this fraction, until a load is confirmed."""

_CONFIRMING_STAGES = 4
"""Stages that are kept for the confirmation: an undecided load and three steps down. At most a third of all stages."""

_FAR, _NEAR = 4.0, 2.0  # steps up
_PUSH = 0.2
_DIGITS = 4  # significant digits of a rate


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of all stages at one load.

    ``holds`` is the verdict of the figures themselves, without their intervals. ``margin`` is the figure that is
    nearest to its limit, as a fraction of the limit, so a value below 1 passes; None if there is none. ``more_helps``
    says whether the rows of ``MOST_REPEATS`` stages could decide.
    """

    verdict: Verdict
    holds: bool
    text: str = ""
    margin: float | None = None
    more_helps: bool = True


@dataclass(slots=True)
class Point:
    """A tried load, with the numbers of its stages."""

    load: float
    judgement: Judgement
    stages: list[int] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        """Return whether the search continues above this load: by a decided verdict, or else by its figures."""
        return self.judgement.verdict is Verdict.PASSED or (not self.decided and self.judgement.holds)

    @property
    def confirmed(self) -> bool:
        """Return whether the intervals show that the load meets the objectives."""
        return self.judgement.verdict is Verdict.PASSED

    @property
    def decided(self) -> bool:
        """Return whether the intervals decide the verdict."""
        return self.judgement.verdict is not Verdict.UNDECIDED


@dataclass(frozen=True, slots=True)
class Range:
    """The range of the search. Users are whole numbers, rates are not."""

    low: float
    high: float
    whole: bool


class LoadSearch:
    """One search. Call ``next``, run a stage at that load, call ``ended``, and repeat until ``next`` returns None.

    The state is the set of tried loads. The limit lies below the lowest failing load, even if a higher load passes: a
    load is not reliable if a lower one fails. The next load depends only on that set, so a verdict that changes with
    more rows moves the bracket and cannot cause an endless loop.
    """

    def __init__(self, where: Range, most_stages: int, judge: Callable[[Sequence[int]], Judgement]) -> None:
        self.where = where
        self._most = most_stages
        self._judge = judge
        self._points: dict[float, Point] = {}
        self._bracket: tuple[float, float] = (0.0, math.inf)
        self._close_by = 0  # maximum total number of stages when the bracket is closed
        self._first_width = 0.0

    # State.

    @property
    def points(self) -> list[Point]:
        """Return the tried loads in ascending order."""
        return sorted(self._points.values(), key=lambda point: point.load)

    @property
    def stages(self) -> int:
        """Return the number of judged stages."""
        return sum(len(point.stages) for point in self._points.values())

    @property
    def above(self) -> Point | None:
        """Return the lowest load that fails."""
        return next((point for point in self.points if not point.passes), None)

    @property
    def best(self) -> Point | None:
        """Return the highest load that passes, by its figures, and is below every load that fails."""
        passing = self._below_failures()
        return passing[-1] if passing else None

    @property
    def confirmed(self) -> Point | None:
        """Return the highest confirmed load below every load that fails."""
        return next((point for point in reversed(self._below_failures()) if point.confirmed), None)

    @property
    def undecided(self) -> list[Point]:
        """Return the undecided loads above the confirmed load and below every load that fails, in ascending order."""
        confirmed = self.confirmed
        return [point for point in self._below_failures() if confirmed is None or point.load > confirmed.load]

    @property
    def closed(self) -> bool:
        """Return whether the limit is known with the required precision."""
        best, above = self.best, self.above
        if best is None:
            return above is not None and above.load <= self.where.low
        if above is None:
            return best.load >= self.where.high
        adjacent = self.where.whole and above.load - best.load <= 1
        return adjacent or above.load <= best.load * (1 + WITHIN) * (1 + 1e-9)

    # Steps.

    def ended(self, load: float, stage: int) -> Point:
        """Judge a stage at this load together with the earlier stages at the same load."""
        earlier = self._points.get(load)
        stages = [*(earlier.stages if earlier is not None else ()), stage]
        point = self._points[load] = Point(load, self._judge(stages), stages)
        return point

    def next(self) -> float | None:
        """Return the next load, or None if the search is complete or no stage is left."""
        if self.stages >= self._most:
            return None
        best, above = self.best, self.above
        kept = min(_CONFIRMING_STAGES, self._most // 3)
        is_late = self.undecided and above is not None and self.stages >= self._most - kept
        if self.closed:
            return self._confirming()
        if is_late and (load := self._confirming()) is not None:
            return load
        if best is None:
            return self.where.low
        if above is None:
            step = _NEAR if self._comes_near(best) else _FAR
            return min(self.where.high, self._rounded(best.load * step, best.load, math.inf))
        return self._between(best, above)

    def _confirming(self) -> float | None:
        """Return the load whose stage can confirm a load, or then repeat the lowest failing load, or None."""
        undecided, above = self.undecided, self.above
        if undecided and not self._repeats(undecided[0]) and (lower := self._lower(undecided[0])) is not None:
            return lower
        # The lowest load first: while it is undecided, a higher one hardly becomes decided.
        edges = undecided if above is None or above.decided else [*undecided, above]
        return next((point.load for point in edges if self._repeats(point)), None)

    def _repeats(self, point: Point) -> bool:
        return point.judgement.more_helps and len(point.stages) < MOST_REPEATS

    def _lower(self, undecided: Point) -> float | None:
        """Return the load below an undecided load, or None if there is none between it and the confirmed load."""
        load = undecided.load * (1 - STEP_DOWN)
        load = max(self.where.low, float(math.floor(load)) if self.where.whole else float(f"{load:.{_DIGITS}g}"))
        least = self.where.low if self.confirmed is None else self.confirmed.load * (1 + WITHIN)
        return load if least <= load < undecided.load else None

    def _below_failures(self) -> list[Point]:
        above = self.above
        return [point for point in self.points if point.passes and (above is None or point.load < above.load)]

    def _comes_near(self, best: Point) -> bool:
        """Return whether the figures, extrapolated from the load before, reach the limit within a long step.

        A short step must be affordable: enough stages must remain for long steps up to the maximum and for the bracket.
        """
        passed = [point for point in self.points if point.passes and point.load < best.load]
        now, before = best.judgement.margin, passed[-1].judgement.margin if passed else None
        rest = math.ceil(math.log(max(1.0, self.where.high / (best.load * _NEAR)), _FAR) - 1e-9)
        if self._most - self.stages - 1 < rest + _halvings(math.log(_FAR)) or not now or not before or now <= before:
            return False
        slope = math.log(now / before) / math.log(best.load / passed[-1].load)
        return -math.log(now) / slope < math.log(_FAR)

    def _between(self, best: Point, above: Point) -> float:
        """Return a load inside the bracket, where the figures, interpolated as a power of the load, meet the limit.

        The ITP rule (Oliveira and Takahashi 2020) on the logarithm of the load: the interpolated point is moved a
        little towards the middle, so that the bracket shrinks from both sides, and is kept so close to the middle that
        the search takes at most one stage more than bisection.
        """
        width = math.log(above.load / best.load)
        if best.load < self._bracket[0] or above.load > self._bracket[1] or not self._close_by:
            # The bracket does not lie inside the previous one, so a new count of stages starts.
            self._close_by = self.stages + _halvings(width) + 1
            self._first_width = width
        self._bracket = (best.load, above.load)
        half = width / 2
        offset = half
        low, high = best.judgement.margin, above.judgement.margin
        if low and high and low < 1 < high and math.isfinite(high):
            crossing = width * -math.log(low) / (math.log(high) - math.log(low))
            push = min(_PUSH * width * width / self._first_width, abs(half - crossing))
            offset = crossing + math.copysign(push, half - crossing)
        stages_after = max(0, self._close_by - self.stages - 1)
        slack = max(0.0, _tolerance() * 2.0**stages_after - half)
        offset = min(max(offset, half - slack), half + slack)
        return self._rounded(best.load * math.exp(offset), best.load, above.load)

    def _rounded(self, load: float, low: float, high: float) -> float:
        if not self.where.whole:
            return float(f"{load:.{_DIGITS}g}")
        return float(min(max(round(load), low + 1), high - 1))


def _tolerance() -> float:
    """Return the width of a closed bracket, minus a margin for the rounding of loads."""
    return 0.98 * math.log1p(WITHIN)


def _halvings(width: float) -> int:
    """Return the number of bisections that reach the tolerance."""
    return max(0, math.ceil(math.log2(max(1e-12, width / _tolerance()))))
