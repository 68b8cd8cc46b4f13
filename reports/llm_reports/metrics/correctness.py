"""Were the answers right? Checked requests of a group, counted, with the share of wrong ones and its interval.

The checking itself was done where the answers were (``LLMUser.check_answer``); the rows say what came out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, Series

from llm_reports.metrics.groups import Group, start_order
from llm_reports.metrics.outcomes import aborted, succeeded
from llm_reports.metrics.summary import Summary
from llm_reports.stats.effective_size import Dependence, dependence, share_interval
from llm_reports.stats.intervals import Interval

MATCH, STRICT_MATCH = "answer_match", "answer_strict_match"
RATIOS = {"mismatch_ratio": MATCH, "strict_mismatch_ratio": STRICT_MATCH}


@dataclass(frozen=True)
class Share:
    """Wrong answers among the checked ones of a group, by one rule.

    ``unknown`` are requests whose answer would have been checked but was cut by the end of the stage or the test.
    """

    wrong: int
    checked: int
    unknown: int
    dependence: Dependence
    """How much being wrong depends on the answers before."""

    @property
    def ratio(self) -> float:
        """NaN when nothing was checked."""
        return self.wrong / self.checked if self.checked else math.nan

    @property
    def interval(self) -> Interval:
        """Wilson's, of what was checked; unknown below an effective size of 30."""
        return share_interval(self.wrong, self.checked, self.dependence.size())

    @property
    def summary(self) -> Summary:
        """For ``summary.csv``: the ratio as a mean."""
        if not self.checked:
            return Summary(0)
        return Summary(
            self.checked, self.ratio, intervals={"mean": self.interval}, effective={"mean": self.dependence.size()}
        )


def mismatches(group: Group, column: str = MATCH) -> Share:
    """The wrong answers by the rule of this column."""
    checks = group.ok[column].iloc[start_order(group.ok)].dropna()
    cut = aborted(group.measured["error_code"])
    return Share(
        wrong=int((checks == 0).sum()),
        checked=len(checks),
        dependence=dependence((checks == 0).to_numpy(bool).astype(np.float64)),
        unknown=int((cut & _asked(group, group.measured)).sum()) if cut.any() else 0,
    )


def parted(group: Group) -> tuple[Group, Group]:
    """The requests of a group whose answers are checked, failed ones included, and the others.

    A request that failed was not checked; it is one of these when others of its user class were.
    """
    if not len(_classes(group)):
        return _only(group, Series(False, index=group.measured.index)), group
    asked = _asked(group, group.measured)
    return _only(group, asked), _only(group, ~asked)


def ratio_lines(group: Group) -> Iterator[tuple[str, Summary]]:
    """What ``summary.csv`` says: nothing when nothing was checked."""
    for name, column in RATIOS.items():
        share = mismatches(group, column)
        if share.checked:
            yield name, share.summary


def _classes(group: Group) -> set[str]:
    """The user classes of the run whose answers are checked."""
    rows = group.run.requests
    return set(rows["user_class"][rows[MATCH].notna()].unique())


def _asked(group: Group, rows: DataFrame) -> Series:
    return rows["user_class"].isin(_classes(group))


def _only(group: Group, wanted: Series) -> Group:
    measured = group.measured[wanted]
    return dataclasses.replace(group, measured=measured, ok=measured[succeeded(measured["error_code"])])
