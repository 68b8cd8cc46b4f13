"""The latency/throughput curve: one point per stage, and the selection of the best point within a latency budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from llm_reports.metrics.distinctions import RUN, distinctions, words_of
from llm_reports.metrics.goodput import StagePoint
from llm_reports.metrics.groups import (
    CORRECTED_LATENCY,
    CORRECTED_TTFT,
    INPUT_TOKENS,
    LATENCY,
    NOT_WELL,
    OUTPUT_TOKENS,
    TPOT,
    TTFT,
    Group,
    Metric,
)
from llm_reports.metrics.load_search import search_of
from llm_reports.metrics.summary import ordered
from llm_reports.run import Run
from llm_reports.slo.objectives import FAILURES_ALLOWED, Objectives
from llm_reports.slo.stage_doubts import unfit
from llm_users.quantile import quantile
from llm_users.record import UNSTEADY, Lengths, StageLoad

# Three words for four tokens, the published factor for English text: 10 tokens/s are 450 words per minute.
WORDS_PER_TOKEN = 0.75
LATENCIES = {"e2e": LATENCY, "ttft": TTFT, "tpot": TPOT}
CORRECTED = {"corrected_e2e": CORRECTED_LATENCY, "corrected_ttft": CORRECTED_TTFT}
LATENCY_NAMES = {
    "e2e": "End-to-end latency",
    "ttft": "Time to first token",
    "tpot": "Time per output token",
    "corrected_e2e": "End-to-end latency from the intended start",
    "corrected_ttft": "Time to first token from the intended start",
}
SEEN_NOTE = "In an open loop, TTFT and E2E are measured from the intended start."
UNFIT_NOTE = (
    f"A stage cannot be the best point if more than {100 * FAILURES_ALLOWED:g} % of its requests failed, if it is "
    "unsteady, or if its client was saturated."
)
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MEAN = "mean"
FIGURE_NAMES = {"p50": "median", "p95": "95th percentile", "p99": "99th percentile"}


@dataclass(frozen=True)
class Limit:
    """An objective drawn as a line on the curve when the curve shows this figure (p95, p99.9, mean) of this latency."""

    metric: str
    figure: str
    limit_s: float
    text: str


def limits(objectives: Objectives | None) -> list[Limit]:
    """Return the objectives on a latency that the curve can show."""
    return [
        Limit(
            objective.name,
            MEAN if objective.q is None else f"p{round(100 * objective.q, 10):g}",
            objective.limit,
            objective.text,
        )
        for objective in (objectives.all if objectives is not None else ())
        if objective.name in LATENCY_NAMES
    ]


def latencies_of(groups: Sequence[Group]) -> dict[str, Metric]:
    """Return the latencies of the groups; with an open loop, include the latencies from the intended start."""
    return {**LATENCIES, **CORRECTED} if any(group.load.is_open for group in groups) else LATENCIES


def drawn_as(key: str, *, is_open: bool) -> str:
    """Return the latency to show for TTFT or end-to-end latency; for an open loop, this is the corrected latency."""
    corrected = f"corrected_{key}"
    return corrected if is_open and corrected in CORRECTED else key


def figure_name(figure: str) -> str:
    """Return the name of a figure in words."""
    return FIGURE_NAMES.get(figure) or (MEAN if figure == MEAN else f"{figure.removeprefix('p')}th percentile")


@dataclass(frozen=True)
class Point:
    """One stage on the curve. NaN means unknown. ``estimated``: the run's files do not contain the throughput."""

    label: str
    load: StageLoad
    health: str
    throughput_token_per_s: float
    estimated: bool
    requests_per_s: float
    per_user_token_per_s: float
    total_token_per_s: float
    latency_s: dict[str, dict[str, float]] = field(default_factory=dict)
    judged_s: dict[str, dict[str, float]] = field(default_factory=dict)
    """``latency_s`` with failed requests counted as infinitely slow. A budget is compared with these values."""
    mark: str = ""  # load search only: "limit" for the highest load that passes, "fails" for the lowest that fails
    unfit: str = ""  # reason why the point cannot be the best or an operating point; "" when it can
    steadiness: str = ""
    failed_share: float = 0.0
    shortfall: str = ""  # set when the load was below the requested load: ``5 of 8 users``

    @property
    def hollow(self) -> bool:
        """Whether the point is drawn hollow: the client was not healthy, the stage is unfit, or the load was below the
        requested load.
        """
        return self.health not in ("", "ok") or bool(self.unfit) or bool(self.shortfall)

    @property
    def words(self) -> str:
        """The name with its unit, for use in a sentence: ``8 parallel requests``, ``5 requests/s``."""
        unit = "requests/s" if self.load.is_open else "parallel requests"
        marked = self.name.replace("/s", "", 1) if self.load.is_open else self.name
        return f"{marked} {unit}"

    def seen(self, key: str, figure: str) -> float:
        """Return TTFT or latency as a user experiences it: in an open loop, from the intended start."""
        return self.latency_s[drawn_as(key, is_open=self.load.is_open)][figure]

    @property
    def words_per_minute(self) -> float:
        """The words per minute that one user receives while the answer streams."""
        return self.per_user_token_per_s * 60 * WORDS_PER_TOKEN

    @property
    def name(self) -> str:
        """The label of the point: the load and, in parentheses, remarks on the load search, the client, failures, an
        unsteady stage, and a load below the requested load.
        """
        remarks = [
            self.mark,
            self.health if self.health in NOT_WELL else "",
            f"{100 * self.failed_share:.0f} % failed" if self.failed_share > FAILURES_ALLOWED else "",
            self.steadiness if self.steadiness == UNSTEADY else "",
            self.shortfall,
        ]
        level = self.load.level_text
        return f"{level} ({', '.join(filter(None, remarks))})" if any(remarks) else level


_CurveKey = tuple[Run, str, str, Lengths | None]


@dataclass(frozen=True)
class Curve:
    """The stages of one run, framework, model and pair of lengths, in the order of their loads."""

    name: str
    points: tuple[Point, ...]

    def best(self, metric: str, figure: str, budget_s: float) -> Point | None:
        """Return the point with the highest throughput whose latency is within the budget.

        Failed requests count as too slow. Return ``None`` when no point qualifies.
        """
        within = [
            point
            for point in self.points
            if not point.unfit and (point.judged_s or point.latency_s)[metric][figure] <= budget_s
        ]
        return max(within, key=lambda point: point.throughput_token_per_s, default=None)


def curves(
    groups: Sequence[Group], labels: Sequence[str], stages: Sequence[StagePoint], wanted: Sequence[Limit] = ()
) -> list[Curve]:
    """Return the curves of the groups.

    ``labels`` are the names of the groups in the rest of the report; ``stages`` contain their rates. The points have
    the figures of the ``wanted`` limits in addition to the median, the P95 and the P99.
    """
    more = dict.fromkeys(limit.figure for limit in wanted)
    latencies = latencies_of(groups)
    rates = {stage.group: stage for stage in stages}
    searches = {run: search_of(run) for run in dict.fromkeys(group.run for group in groups)}
    points_by_curve: dict[_CurveKey, list[Point]] = {}
    first_groups: dict[_CurveKey, Group] = {}
    for group, label in zip(groups, labels, strict=True):
        point = _point(group, label, rates.get(group), latencies, [*dict.fromkeys([*QUANTILES, *more])])
        if (search := searches[group.run]) is not None:
            point = dataclasses.replace(point, mark=search.mark(group.stage))
        key = (group.run, group.framework, group.model, group.load.lengths)
        points_by_curve.setdefault(key, []).append(point)
        first_groups.setdefault(key, group)
    return [
        Curve(name, tuple(sorted(points, key=lambda point: (not point.load.is_known, point.load.order))))
        for name, points in zip(_names(list(first_groups.values())), points_by_curve.values(), strict=True)
    ]


def _names(firsts: Sequence[Group]) -> list[str]:
    """Return names for the curves that start with these groups: framework, model and run where they differ, and
    conditions.
    """
    parts = [
        (
            group.framework,
            group.model,
            group.run.name,
            f"{lengths.text} tokens" if (lengths := group.load.lengths) else "",
        )
        for group in firsts
    ]
    differing = [i for i in range(4) if len({part[i] for part in parts}) > 1] or [1]
    conditions = distinctions(firsts, by_load=False)
    return [
        ", ".join([" ".join(part[i] or "-" for i in differing), *words_of(conditions, index, without=(RUN,))])
        for index, part in enumerate(parts)
    ]


def _point(
    group: Group, label: str, rates: StagePoint | None, metrics: Mapping[str, Metric], figures: Sequence[str]
) -> Point:
    throughput = rates.tokens_per_s if rates else math.nan
    tokens_in, tokens_out = (
        float(np.nansum(group.values(metric, group.ok).to_numpy(dtype=np.float64)))
        for metric in (INPUT_TOKENS, OUTPUT_TOKENS)
    )
    latencies: dict[str, Sequence[float]] = {}
    for name, metric in metrics.items():
        # Next to an open loop, a closed loop is drawn with its uncorrected latencies; schedules do not apply to it.
        own = name.removeprefix("corrected_") if name in CORRECTED and not group.load.is_open else name
        latencies[name] = latencies[own] if own in latencies else ordered(group.values(metric, group.ok))
    tpot_s = quantile(latencies["tpot"], 0.5)
    return Point(
        label=label,
        load=group.load,
        health=group.health,
        throughput_token_per_s=throughput,
        estimated=rates is None or rates.estimated,
        requests_per_s=rates.requests_per_s if rates else math.nan,
        per_user_token_per_s=1.0 / tpot_s if tpot_s > 0 else math.nan,
        total_token_per_s=throughput * (tokens_in + tokens_out) / tokens_out if tokens_out else math.nan,
        latency_s={name: {figure: _figure(values, figure) for figure in figures} for name, values in latencies.items()},
        judged_s={
            name: {figure: _with_failures(values, figure, group.counts.failed) for figure in figures}
            for name, values in latencies.items()
        },
        unfit=rates.unfit if rates else unfit(group),
        steadiness=group.steadiness,
        shortfall=group.shortfall.short if group.shortfall is not None else "",
        failed_share=group.counts.failed / group.counts.ended if group.counts.ended else 0.0,
    )


def _figure(values: Sequence[float], figure: str) -> float:
    if figure == MEAN:
        return math.fsum(values) / len(values) if len(values) else math.nan
    return quantile(values, float(figure.removeprefix("p")) / 100)


def _with_failures(values: Sequence[float], figure: str, failed: int) -> float:
    """Return a figure of a latency in which ``failed`` additional requests count as infinitely slow."""
    if not failed or not len(values):
        return math.inf if failed else _figure(values, figure)
    if figure == MEAN:
        return math.inf
    position = (len(values) + failed - 1) * float(figure.removeprefix("p")) / 100
    if math.ceil(position) >= len(values):
        return math.inf
    low = math.floor(position)
    return values[low] + (values[math.ceil(position)] - values[low]) * (position - low)
