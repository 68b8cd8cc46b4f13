"""The number of replicas for a peak rate: the highest confirmed rate of one replica, and its bracket.

All runs of a report are one sweep of one replica: the bracket lies between the highest rate that passed and the lowest
rate that failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_reports.metrics.goodput import StagePoint
from llm_reports.metrics.load_search import Search
from llm_users.verdict import Verdict, worst

HEADROOM = 0.2
"""Share of the confirmed rate that stays free with headroom: bursts of random arrivals, and the error of the limit."""


@dataclass(frozen=True)
class Sizing:
    """The rates (requests/s) of one replica, and the replicas for the peak. ``None``: no such rate was measured."""

    peak_per_s: float
    confirmed_per_s: float | None
    fails_per_s: float | None
    rates_per_s: tuple[float, ...]
    undecided_per_s: tuple[float, ...] = ()
    """The rates inside the bracket without a decided verdict."""
    fails_by_figures: bool = False
    """The upper end exceeds a limit by its figures, without a decided verdict (in a load search)."""

    @property
    def replicas(self) -> int | None:
        """The replicas if each gets the confirmed rate."""
        return replicas(self.peak_per_s, self.confirmed_per_s)

    @property
    def replicas_with_headroom(self) -> int | None:
        """The replicas if each gets the confirmed rate minus the headroom."""
        return replicas(self.peak_per_s, self.confirmed_per_s and self.confirmed_per_s * (1 - HEADROOM))

    @property
    def fewest(self) -> int | None:
        """The replicas if each gets the upper end of the bracket: fewer cannot be enough."""
        return replicas(self.peak_per_s, self.fails_per_s)


def replicas(peak_per_s: float, rate_per_s: float | None) -> int | None:
    """Return the number of replicas that serve the peak at this rate each; ``None`` without a rate."""
    return math.ceil(peak_per_s / rate_per_s - 1e-9) if rate_per_s else None


def sizing(peak_per_s: float, points: Sequence[StagePoint], searches: Iterable[Search] = ()) -> Sizing:
    """Return the sizing by the verdicts on the rates of all points, and by the results of load searches.

    A rate that was measured several times has its worst verdict.
    """
    verdicts: dict[float, list[Verdict]] = {}
    by_figures: set[float] = set()
    for point in points:
        if point.load.rate_per_s and point.verdict is not None:
            verdicts.setdefault(point.load.rate_per_s, []).append(point.verdict)
    for search in searches:
        for level, (verdict, decided) in search.counted.items():
            counts = decided or verdict is Verdict.FAILED  # a search continues below a load that fails by its figures
            verdicts.setdefault(level, []).append(verdict if counts else Verdict.UNDECIDED)
            if verdict is Verdict.FAILED and not decided:
                by_figures.add(level)
    by_rate = {rate: worst(of_rate) for rate, of_rate in verdicts.items()}
    fails = min((rate for rate, verdict in by_rate.items() if verdict is Verdict.FAILED), default=None)
    below = {rate: verdict for rate, verdict in by_rate.items() if fails is None or rate < fails}
    confirmed = max((rate for rate, verdict in below.items() if verdict is Verdict.PASSED), default=None)
    undecided = (rate for rate, verdict in below.items() if verdict is Verdict.UNDECIDED and rate > (confirmed or 0.0))
    return Sizing(peak_per_s, confirmed, fails, tuple(sorted(by_rate)), tuple(sorted(undecided)), fails in by_figures)
