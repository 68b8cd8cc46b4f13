"""Correctness of answers: the number of checked requests of a group, the share of wrong answers, and its interval.

The worker checks the answers (``LLMUser.check_answer``); the rows contain the results.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pandas import Series

from llm_reports.metrics.groups import Group, start_order
from llm_reports.metrics.outcomes import aborted, succeeded
from llm_reports.metrics.summary import Summary
from llm_reports.stats.effective_size import Dependence, dependence, share_interval
from llm_reports.stats.intervals import Interval
from llm_users.record import COL

MATCH, STRICT_MATCH = COL.answer_match, COL.answer_strict_match
RATIOS = {"mismatch_ratio": MATCH, "strict_mismatch_ratio": STRICT_MATCH}


@dataclass(frozen=True)
class Share:
    """Wrong answers among the checked ones of a group, by one rule.

    ``unknown`` is the number of requests whose answer could not be checked because the end of the stage or the test
    aborted them.
    """

    wrong: int
    checked: int
    unknown: int
    dependence: Dependence
    """The dependence of wrong answers on the preceding answers."""

    @property
    def ratio(self) -> float:
        """The share of wrong answers; NaN without checked answers."""
        return self.wrong / self.checked if self.checked else math.nan

    @property
    def interval(self) -> Interval:
        """Wilson's interval of the ratio; unknown below an effective size of 30."""
        return share_interval(self.wrong, self.checked, self.dependence.size())

    @property
    def summary(self) -> Summary:
        """The ratio as a mean, for ``summary.csv``."""
        if not self.checked:
            return Summary(0)
        return Summary(
            self.checked, self.ratio, intervals={"mean": self.interval}, effective={"mean": self.dependence.size()}
        )


def mismatches(group: Group, column: str = MATCH) -> Share:
    """Return the wrong answers by the rule of this column."""
    checks = group.ok[column].iloc[start_order(group.ok)].dropna()
    cut = aborted(group.measured[COL.error_code])
    return Share(
        wrong=int((checks == 0).sum()),
        checked=len(checks),
        dependence=dependence((checks == 0).to_numpy(bool).astype(np.float64)),
        unknown=int((cut & _asked(group)).sum()) if cut.any() else 0,
    )


def parted(group: Group) -> tuple[Group, Group]:
    """Split a group into the requests whose answers are checked, including failed ones, and the others.

    A failed request was not checked; it belongs to the first part if other requests of its user class were checked.
    """
    has_checks = _asked(group)
    checked, others = (
        dataclasses.replace(group, measured=measured, ok=measured[succeeded(measured[COL.error_code])])
        for measured in (group.measured[has_checks], group.measured[~has_checks])
    )
    return checked, others if has_checks.any() else group


def ratio_lines(group: Group) -> Iterator[tuple[str, Summary]]:
    """Yield the ratios for ``summary.csv``, only for rules with checked answers."""
    for name, column in RATIOS.items():
        share = mismatches(group, column)
        if share.checked:
            yield name, share.summary


def _asked(group: Group) -> Series:
    """Return which measured requests are of a user class whose answers are checked."""
    rows = group.run.requests
    return group.measured[COL.user_class].isin(rows[COL.user_class][rows[MATCH].notna()].unique())
