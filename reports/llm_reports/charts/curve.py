"""The latency/throughput curve: one point per stage, and which point is best within a latency budget."""

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
from llm_reports.slo.objectives import FAILURES_ALLOWED, Objective, Objectives
from llm_reports.slo.unfit_stages import unfit
from llm_users.quantile import quantile
from llm_users.record import UNSTEADY, StageLoad

# Three words for four tokens, the factor of the published figures for English text: 10 tokens/s are 450 words a minute.
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
SEEN_NOTE = "TTFT and E2E of an open loop are those from the intended start."
UNFIT_NOTE = (
    f"Stages in which more than {100 * FAILURES_ALLOWED:g} % of the requests failed, unsteady ones and those of a "
    "saturated client are never the best point."
)
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MEAN = "mean"
FIGURE_NAMES = {"p50": "median", "p95": "95th percentile", "p99": "99th percentile"}


@dataclass(frozen=True)
class Limit:
    """An objective as a line on the curve, where the curve shows this figure of this latency."""

    metric: str
    figure: str
    limit_s: float
    text: str


def limits(objectives: Objectives | None) -> list[Limit]:
    """The objectives that speak of a latency of the curve."""
    found = objectives.all if objectives is not None else ()
    return [Limit(each.name, figure_of(each), each.limit, each.text) for each in found if each.name in LATENCY_NAMES]


def latencies_of(groups: Sequence[Group]) -> dict[str, Metric]:
    """The latencies that groups have: with an open loop among them, those from the intended start as well."""
    return {**LATENCIES, **CORRECTED} if any(group.load.is_open for group in groups) else LATENCIES


def drawn_as(key: str, *, is_open: bool) -> str:
    """The latency that stands for TTFT or end-to-end latency where there is room for one: an open loop's corrected."""
    corrected = f"corrected_{key}"
    return corrected if is_open and corrected in CORRECTED else key


def figure_of(objective: Objective) -> str:
    """The figure an objective speaks of: ``p95``, ``p99.9`` or ``mean``."""
    return MEAN if objective.q is None else f"p{round(100 * objective.q, 10):g}"


def figure_name(figure: str) -> str:
    """A figure in words."""
    return FIGURE_NAMES.get(figure) or (MEAN if figure == MEAN else f"{figure.removeprefix('p')}th percentile")


@dataclass(frozen=True)
class Point:
    """One stage on the curve. NaN is what is not known. ``estimated``: the run's files do not give the throughput."""

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
    """The same with failed requests as infinitely slow: what a budget is compared with."""
    mark: str = ""  # of a search: limit, the level that was found, or fails, the lowest above it
    unfit: str = ""  # why the point can be neither best nor an operating point; "" when it can
    steadiness: str = ""
    failed_share: float = 0.0
    shortfall: str = ""  # of a load below that which was asked for: ``5 of 8 users``

    @property
    def hollow(self) -> bool:
        """Whether the point is drawn hollow: its figures are not those of a steady endpoint and a healthy client under
        the load that was asked for.
        """
        return self.health not in ("", "ok") or bool(self.unfit) or bool(self.shortfall)

    @property
    def words(self) -> str:
        """The same in a sentence: ``8 parallel requests``, ``5 requests/s``."""
        unit = "requests/s" if self.load.is_open else "parallel requests"
        marked = self.name.replace("/s", "", 1) if self.load.is_open else self.name
        return f"{marked} {unit}"

    @property
    def concurrency(self) -> int | None:
        """The users of a closed loop."""
        return self.load.users

    def seen(self, key: str, figure: str) -> float:
        """TTFT or latency as a user sees it: in an open loop from the intended start."""
        return self.latency_s[drawn_as(key, is_open=self.load.is_open)][figure]

    @property
    def words_per_minute(self) -> float:
        """What one user reads while the answer streams."""
        return self.per_user_token_per_s * 60 * WORDS_PER_TOKEN

    @property
    def name(self) -> str:
        """The label of the point: the load with its marks: of a search, the client, failures, an unsteady stage, a load
        below that which was asked for.
        """
        said = [
            self.mark,
            self.health if self.health in NOT_WELL else "",
            f"{100 * self.failed_share:.0f} % failed" if self.failed_share > FAILURES_ALLOWED else "",
            self.steadiness if self.steadiness == UNSTEADY else "",
            self.shortfall,
        ]
        return f"{self.load.short} ({', '.join(filter(None, said))})" if any(said) else self.load.short


@dataclass(frozen=True)
class Curve:
    """The stages of one run, framework and model, in the order of their loads."""

    name: str
    points: tuple[Point, ...]

    def best(self, metric: str, figure: str, budget_s: float) -> Point | None:
        """The point of highest throughput whose latency is within the budget; failed requests count as too slow."""
        within = [
            point
            for point in self.points
            if not point.unfit and (point.judged_s or point.latency_s)[metric][figure] <= budget_s
        ]
        return max(within, key=lambda point: point.throughput_token_per_s, default=None)


def curves(
    groups: Sequence[Group], labels: Sequence[str], stages: Sequence[StagePoint], wanted: Sequence[Limit] = ()
) -> list[Curve]:
    """The curves of the groups; ``labels`` name the groups elsewhere in the report, ``stages`` know their rates.

    The points have the figures that limits are wanted for besides the median, the P95 and the P99.
    """
    more = dict.fromkeys(each.figure for each in wanted)
    latencies = latencies_of(groups)
    rates = {stage.group: stage for stage in stages}
    searches = {run: search_of(run) for run in dict.fromkeys(group.run for group in groups)}
    found: dict[tuple[Run, str, str], list[Point]] = {}
    firsts: dict[tuple[Run, str, str], Group] = {}
    for group, label in zip(groups, labels, strict=True):
        made = _point(group, label, rates.get(group), latencies, [*dict.fromkeys([*QUANTILES, *more])])
        if (search := searches[group.run]) is not None:
            made = dataclasses.replace(made, mark=search.mark(group.stage))
        key = (group.run, group.framework, group.model)
        found.setdefault(key, []).append(made)
        firsts.setdefault(key, group)
    return [
        Curve(
            name,
            tuple(sorted(points, key=lambda each: (not each.load.is_known, each.load.order))),
        )
        for name, points in zip(_names(list(firsts.values())), found.values(), strict=True)
    ]


def _names(firsts: Sequence[Group]) -> list[str]:
    """Names for the curves that begin with these groups: framework, model and run where they differ, and conditions."""
    parts = [(group.framework, group.model, group.run.name) for group in firsts]
    telling = [i for i in range(3) if len({part[i] for part in parts}) > 1] or [1]
    found = distinctions(firsts, by_load=False)
    return [
        ", ".join([" ".join(part[i] or "-" for i in telling), *words_of(found, place, without=(RUN,))])
        for place, part in enumerate(parts)
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
        # Beside an open loop a closed one is drawn with its own latencies, in which no schedule was missed.
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
    """A figure of a latency when so many more requests never got their answer; infinite from the first of them on."""
    if not failed or not len(values):
        return math.inf if failed else _figure(values, figure)
    if figure == MEAN:
        return math.inf
    position = (len(values) + failed - 1) * float(figure.removeprefix("p")) / 100
    if math.ceil(position) >= len(values):
        return math.inf
    low = math.floor(position)
    return values[low] + (values[math.ceil(position)] - values[low]) * (position - low)
