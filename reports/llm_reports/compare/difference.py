"""One line of a comparison: a figure of one stage before and after, and its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_reports.compare.estimates import NO_ESTIMATE, Estimate
from llm_reports.metrics.groups import Group
from llm_reports.stats.intervals import UNKNOWN, Interval
from llm_users.record import COL
from llm_users.verdict import Verdict

ERROR_RATIO, SYSTEM_THROUGHPUT = "error_ratio", COL.output_throughput_token_per_s
UNCLEAR, BETTER, WORSE = "no clear difference", "better", "worse"


@dataclass(frozen=True)
class Difference:
    """One line of a comparison. ``p`` is corrected for the number of lines in the table.

    ``outcome`` states which side is better if the difference is significant. ``verdict`` is the result for the
    threshold, ``None`` if the line does not decide and did not fail. A line with ``NO_ESTIMATE`` represents a stage
    that cannot be compared; ``reason`` states why. ``needed`` is the approximate number of requests per run (or runs
    per side) that would decide an undecided line, ``None`` when more of them would not help.
    """

    bases: tuple[Group, ...]
    others: tuple[Group, ...]
    metric: str
    figure: str
    unit: str
    more_is_better: bool = False
    estimate: Estimate = NO_ESTIMATE
    p: float = math.nan
    outcome: str = UNCLEAR
    verdict: Verdict | None = None
    reason: str = ""
    needed: int | None = None
    deciding: bool = False

    @property
    def name(self) -> str:
        """The name of the line in the table."""
        return f"{self.metric} {self.figure}".strip()

    @property
    def base(self) -> Group:
        """The first group of the first side."""
        return self.bases[0]

    @property
    def other(self) -> Group:
        """The first group of the other side."""
        return self.others[0]

    @property
    def base_names(self) -> str:
        """The runs of the first side."""
        return ", ".join(group.run.name for group in self.bases)

    @property
    def other_names(self) -> str:
        """The runs of the other side."""
        return ", ".join(group.run.name for group in self.others)

    @property
    def is_share(self) -> bool:
        """Whether the figure is a share, whose difference is in percentage points."""
        return self.metric == ERROR_RATIO

    @property
    def by_runs(self) -> bool:
        """Whether the statistical unit is the run rather than the time block."""
        return len(self.bases) + len(self.others) > 2

    @property
    def before(self) -> float:
        """The first side's figure."""
        return self.estimate.before

    @property
    def after(self) -> float:
        """The other side's figure."""
        return self.estimate.after

    @property
    def difference(self) -> float:
        """After minus before; for paired prompts, the first side's figure times their mean relative change."""
        change = self.estimate.change
        return self.after - self.before if math.isnan(change) else self.before * (change - 1)

    @property
    def ratio(self) -> float:
        """After divided by before; for paired prompts, their mean change."""
        if not math.isnan(self.estimate.change):
            return self.estimate.change
        return self.after / self.before if self.before else math.nan

    @property
    def difference_interval(self) -> Interval:
        """The 95 % interval of the difference."""
        return self.estimate.difference_interval

    @property
    def ratio_interval(self) -> Interval:
        """The 95 % interval of the ratio."""
        return self.estimate.ratio_interval

    @property
    def comparable(self) -> bool:
        """Whether the line has figures; otherwise it represents a stage that cannot be compared."""
        return self.estimate is not NO_ESTIMATE

    @property
    def worsening(self) -> float:
        """The worsening as a share of the first side's figure; for shares, the difference. Negative means better."""
        change = self.difference if self.is_share else self.ratio - 1
        return -change if self.more_is_better else change

    @property
    def worsening_interval(self) -> Interval:
        """The 95 % interval of ``worsening``."""
        difference = self.difference_interval
        if self.is_share:
            change = difference
        elif self.ratio_interval.known:
            change = Interval(self.ratio_interval.low - 1, self.ratio_interval.high - 1)
        elif difference.known and self.before > 0:  # the ratio may be 0, for example without any tokens after
            change = Interval(difference.low / self.before, difference.high / self.before)
        else:
            return UNKNOWN
        return Interval(-change.high, -change.low) if self.more_is_better else change
