"""Were the answers right? Checked requests of a group, counted, with the share of wrong ones and its interval.

The checking itself was done where the answers were (``LLMUser.check_answer``); the rows say what came out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, Series

from llm_reports.markdown.table_notes import labels
from llm_reports.markdown.text import aligned, bullets, plain
from llm_reports.metrics.groups import Group, start_order
from llm_reports.metrics.outcomes import aborted, succeeded
from llm_reports.metrics.summary import Summary
from llm_reports.stats.effective_size import Dependence, dependence, share_interval
from llm_reports.stats.intervals import Interval

MATCH, STRICT_MATCH = "answer_match", "answer_strict_match"
RATIOS = {"mismatch_ratio": MATCH, "strict_mismatch_ratio": STRICT_MATCH}
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 60


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


def correctness_section(groups: Sequence[Group]) -> str:
    """A table of the wrong answers of every stage by both rules and some of them, in Markdown; "" without checks."""
    found = [(label, group) for label, group in zip(labels(groups), groups, strict=True) if mismatches(group).checked]
    if not found:
        return ""
    header = ["", "Checked", "Wrong", "Share", "95 % interval", "Strictly wrong", "Share", "95 % interval"]
    rows = []
    for label, group in found:
        loose, strict = mismatches(group), mismatches(group, STRICT_MATCH)
        strictly = [str(strict.wrong), *_shares(strict)] if strict.checked else ["-"] * 3
        rows.append([label or "all requests", str(loose.checked), str(loose.wrong), *_shares(loose), *strictly])
    notes = [
        "Of numbers: wrong is an answer without the expected number in digits (LLMPerf's rule), strictly wrong one "
        "that is not just this number. Shares are of the checked answers; failed requests have none."
    ]
    parts = ["## Correctness", aligned(header, rows, left={0}), bullets(notes)]
    examples = list(_examples(found))
    if examples:
        parts.append(aligned(["Wrong answers", "Expected", "Answered"], examples, left={0, 1, 2}))
    return "\n\n".join(parts) + "\n"


def _examples(found: Sequence[tuple[str, Group]]) -> Iterator[list[str]]:
    """Some of each stage, the first by their start."""
    left = max(1, _EXAMPLES // len(found))
    for label, group in found:
        wrong = group.ok[(group.ok[MATCH] == 0).fillna(value=False).astype(bool)].sort_values(
            ["started_at", "request_id"]
        )[:left]
        for expected, answer in zip(wrong["expected_answer"], wrong["answer_excerpt"], strict=True):
            yield [label or "all requests", _quoted(str(expected)), _quoted(str(answer))]


def _quoted(text: str) -> str:
    """A server's text as code, which no reader of Markdown takes for a link or a picture."""
    text = plain(text).replace("`", "'")
    return f"`{text[:_EXAMPLE_CHARACTERS]}`" if text else "-"


def _shares(share: Share) -> list[str]:
    ends = share.interval
    between = f"{100 * ends.low:.1f} % to {100 * ends.high:.1f} %" if ends.known else "-"
    return [f"{100 * share.ratio:.1f} %", between]


def _classes(group: Group) -> set[str]:
    """The user classes of the run whose answers are checked."""
    rows = group.run.requests
    return set(rows["user_class"][rows[MATCH].notna()].unique())


def _asked(group: Group, rows: DataFrame) -> Series:
    return rows["user_class"].isin(_classes(group))


def _only(group: Group, wanted: Series) -> Group:
    measured = group.measured[wanted]
    return dataclasses.replace(group, measured=measured, ok=measured[succeeded(measured["error_code"])])
