"""The latency/throughput curve: one point per stage, and which point is best within a latency budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llm_users.quantile import quantile
from reports.grouping import INPUT_TOKENS, LATENCY, OUTPUT_TOKENS, TPOT, TTFT, Group
from reports.limit import search_of
from reports.objectives import Objective, Objectives
from reports.sizing import StagePoint
from reports.statistics import ordered

# Three words for four tokens, the factor of the published figures for English text: 10 tokens/s are 450 words a minute.
WORDS_PER_TOKEN = 0.75
LATENCIES = {"e2e": LATENCY, "ttft": TTFT, "tpot": TPOT}
LATENCY_NAMES = {"e2e": "End-to-end latency", "ttft": "Time to first token", "tpot": "Time per output token"}
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
    return [Limit(each.name, figure_of(each), each.limit, each.text) for each in found if each.name in LATENCIES]


def figure_of(objective: Objective) -> str:
    """The figure an objective speaks of: ``p95``, ``p99.9`` or ``mean``."""
    return MEAN if objective.q is None else f"p{round(100 * objective.q, 10):g}"


def figure_name(figure: str) -> str:
    """A figure in words."""
    return FIGURE_NAMES.get(figure) or (MEAN if figure == MEAN else f"{figure.removeprefix('p')}th percentile")


@dataclass(frozen=True)
class Point:
    """One stage on the curve. NaN is what is not known; ``estimated`` when no stages file gave the throughput."""

    label: str
    concurrency: int | None
    health: str
    throughput_token_per_s: float
    estimated: bool
    requests_per_s: float
    per_user_token_per_s: float
    total_token_per_s: float
    latency_s: dict[str, dict[str, float]] = field(default_factory=dict)
    mark: str = ""  # of a search: limit, the level that was found, or fails, the lowest above it

    @property
    def words_per_minute(self) -> float:
        """What one user reads while the answer streams."""
        return self.per_user_token_per_s * 60 * WORDS_PER_TOKEN

    @property
    def name(self) -> str:
        """The label of the point: parallel requests, with its mark when the client was not well."""
        level = "?" if self.concurrency is None else str(self.concurrency)
        said = [self.mark, self.health if self.health in ("strained", "saturated") else ""]
        return f"{level} ({', '.join(filter(None, said))})" if any(said) else level


@dataclass(frozen=True)
class Curve:
    """The stages of one run, framework and model, in the order of their concurrency."""

    name: str
    points: tuple[Point, ...]

    def best(self, metric: str, figure: str, budget_s: float) -> Point | None:
        """The point of highest throughput whose latency is within the budget."""
        within = [point for point in self.points if point.latency_s[metric][figure] <= budget_s]
        return max(within, key=lambda point: point.throughput_token_per_s, default=None)


def curves(
    groups: Sequence[Group], labels: Sequence[str], stages: Sequence[StagePoint], wanted: Sequence[Limit] = ()
) -> list[Curve]:
    """The curves of the groups; ``labels`` name the groups elsewhere in the report, ``stages`` know their rates.

    The points have the figures that limits are wanted for besides the median, the P95 and the P99.
    """
    more = dict.fromkeys(each.figure for each in wanted)
    rates = {stage.group: stage for stage in stages}
    searches = {run: search_of(run) for run in dict.fromkeys(group.run for group in groups)}
    found: dict[tuple[str, str, str], list[Point]] = {}
    for group, label in zip(groups, labels, strict=True):
        made = _point(group, label, rates.get(group), [*dict.fromkeys([*QUANTILES, *more])])
        if (search := searches[group.run]) is not None:
            made = dataclasses.replace(made, mark=search.mark(group.stage))
        found.setdefault((group.run.name, group.framework, group.model), []).append(made)
    parts = [{key[i] for key in found} for i in range(3)]
    telling = [i for i in (1, 2, 0) if len(parts[i]) > 1] or [2]
    return [
        Curve(
            " ".join(key[i] or "-" for i in telling),
            tuple(sorted(points, key=lambda each: (each.concurrency is None, each.concurrency or 0))),
        )
        for key, points in found.items()
    ]


def _point(group: Group, label: str, rates: StagePoint | None, figures: Sequence[str]) -> Point:
    throughput = rates.tokens_per_s if rates else math.nan
    tokens_in, tokens_out = (
        float(np.nansum(group.values(metric, group.ok).to_numpy(dtype=np.float64)))
        for metric in (INPUT_TOKENS, OUTPUT_TOKENS)
    )
    latencies = {name: ordered(group.values(metric, group.ok)) for name, metric in LATENCIES.items()}
    tpot_s = quantile(latencies["tpot"], 0.5)
    stages = group.run.stages
    known = stages[(stages["stage"] == group.stage) & (stages["measure_s"] > 0)] if group.stage is not None else ()
    return Point(
        label=label,
        concurrency=group.concurrency,
        health=group.health,
        throughput_token_per_s=throughput,
        estimated=not len(known),
        requests_per_s=rates.requests_per_s if rates else math.nan,
        per_user_token_per_s=1.0 / tpot_s if tpot_s > 0 else math.nan,
        total_token_per_s=throughput * (tokens_in + tokens_out) / tokens_out if tokens_out else math.nan,
        latency_s={name: {figure: _figure(values, figure) for figure in figures} for name, values in latencies.items()},
    )


def _figure(values: Sequence[float], figure: str) -> float:
    if figure == MEAN:
        return math.fsum(values) / len(values) if len(values) else math.nan
    return quantile(values, float(figure.removeprefix("p")) / 100)
