"""The gaps between the events of an answer, pooled over a stage, and whether they are gaps between tokens.

A server may send several tokens in one event, or one in several. Where events and tokens differ by more than a factor
of 1.2, every table and figure calls the gaps inter-event: they are no times per token then (``tpot_s`` always is one).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_reports.metrics.groups import Group
from llm_reports.metrics.summary import Summary, summarize_histogram
from llm_users.quantile import DurationHistogram

INTER_TOKEN, INTER_EVENT = "inter-token", "inter-event"
_ALIKE = 1.2


@dataclass(frozen=True)
class Gaps:
    """The gaps of one stage, of all its models together. ``tokens_per_event`` is NaN when the rows do not say."""

    place: int  # of the first group of the stage
    histogram: DurationHistogram
    figures: Summary
    tokens_per_event: float

    @property
    def kind(self) -> str:
        """``inter-token`` or ``inter-event``; the former when nothing is known of events."""
        ratio = self.tokens_per_event
        return INTER_EVENT if ratio > _ALIKE or ratio < 1 / _ALIKE else INTER_TOKEN


def gaps_of(groups: Sequence[Group]) -> list[Gaps]:
    """The gaps of every stage that has a histogram of them."""
    found: dict[tuple[int, int], Gaps] = {}
    for place, group in enumerate(groups):
        histogram = group.run.gaps.get(group.stage) if group.stage is not None else None
        key = (id(group.run), group.stage or 0)
        if histogram is not None and histogram.total and key not in found:
            sharers = [each for each in groups if each.run is group.run and each.stage == group.stage]
            figures = summarize_histogram(histogram)
            found[key] = Gaps(place, histogram, figures, tokens_per_event(sharers))
    return list(found.values())


def tokens_per_event(groups: Iterable[Group]) -> float:
    """Output tokens by events over the measured requests that have both."""
    tokens = events = 0.0
    for group in groups:
        rows = group.measured[["chunks", "output_tokens"]].dropna()  # not a copy of all columns of a million rows
        rows = rows[rows["chunks"] > 0]
        tokens += float(rows["output_tokens"].sum())
        events += float(rows["chunks"].sum())
    return tokens / events if events else math.nan


def name_of(found: Iterable[Gaps]) -> str:
    """What gaps of several stages are called together: inter-event as soon as those of one are."""
    return INTER_EVENT if any(each.kind == INTER_EVENT for each in found) else INTER_TOKEN


def note_of(found: Sequence[Gaps]) -> str:
    """What the name means, for below a table or a figure."""
    if name_of(found) == INTER_TOKEN:
        return "Of all gaps of all answers, the pauses of slow moments among them; TPOT is the mean pace of one answer."
    return (
        "An event is not a token here (see tokens per event), so these are times between events; for the time per "
        "token see TPOT."
    )
