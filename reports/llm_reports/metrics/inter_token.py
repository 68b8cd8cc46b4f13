"""The gaps between the events of an answer, pooled over a stage, and whether they are gaps between tokens.

A server may send several tokens in one event, or one token in several events. If the numbers of events and tokens
differ by more than a factor of 1.2, every table and figure calls the gaps inter-event, because they are not times per
token (``tpot_s`` always is a time per token).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_reports.metrics.stage_group import StageGroup
from llm_reports.metrics.summary import Summary, summarize_histogram
from llm_users.quantile import DurationHistogram

INTER_TOKEN, INTER_EVENT = "inter-token", "inter-event"
_ALIKE = 1.2


@dataclass(frozen=True)
class Gaps:
    """The gaps of one model in one stage. ``tokens_per_event`` is NaN when unknown."""

    place: int  # index of the group, or of the first one whose requests have these gaps
    places: tuple[int, ...]  # indices of all groups whose requests have these gaps
    histogram: DurationHistogram
    figures: Summary
    tokens_per_event: float

    @property
    def kind(self) -> str:
        """``inter-token`` or ``inter-event``; the former when the number of events is unknown."""
        ratio = self.tokens_per_event
        return INTER_EVENT if ratio > _ALIKE or ratio < 1 / _ALIKE else INTER_TOKEN


def gaps_of(groups: Sequence[StageGroup]) -> list[Gaps]:
    """Return the gaps of every stage and model that have a histogram of gaps.

    Groups of one stage share a histogram if only their framework differs, or if the file pools the models.
    """
    places: dict[tuple[int, int, str], list[int]] = {}
    histograms: dict[tuple[int, int, str], DurationHistogram] = {}
    for index, group in enumerate(groups):
        by_model = group.run.gaps.get(group.stage, {}) if group.stage is not None else {}
        model = group.model if group.model in by_model else ""
        if model in by_model and by_model[model].total:
            key = (id(group.run), group.stage or 0, model)
            places.setdefault(key, []).append(index)
            histograms[key] = by_model[model]
    found = []
    for key, indices in places.items():
        ratio = tokens_per_event(groups[index] for index in indices)
        figures = summarize_histogram(histograms[key])
        found.append(Gaps(indices[0], tuple(indices), histograms[key], figures, ratio))
    return found


def tokens_per_event(groups: Iterable[StageGroup]) -> float:
    """Return output tokens divided by events over the measured requests that have both values."""
    facts = [group.facts for group in groups]
    events = sum(fact.events for fact in facts)
    return sum(fact.event_tokens for fact in facts) / events if events else math.nan


def name_of(gaps: Iterable[Gaps]) -> str:
    """Return the common name for the gaps of several stages: inter-event if the gaps of at least one stage are."""
    return INTER_EVENT if any(stage_gaps.kind == INTER_EVENT for stage_gaps in gaps) else INTER_TOKEN


def note_of(gaps: Sequence[Gaps]) -> str:
    """Return the note below a table or a figure that explains the name."""
    if name_of(gaps) == INTER_TOKEN:
        return "Includes all gaps of all answers, also pauses in slow periods; TPOT is the mean pace of one answer."
    return (
        "An event is not a token here (see tokens per event), so these are times between events; for the time per "
        "token, see TPOT."
    )
