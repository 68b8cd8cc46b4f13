"""What the requests of a stage say about one objective: the figure, its interval, and the bounds that decide.

An objective holds when even the bad end of the interval keeps to the limit (``proof``), and is broken when even the
good end does not (``disproof``). What is not known of a request is taken at its worst for the proof and at its best
for the disproof.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from llm_reports.metrics.correctness import mismatches
from llm_reports.metrics.groups import OPEN_LOOP_METRICS, OUTPUT_THROUGHPUT, REQUEST_METRICS, Group, Metric
from llm_reports.metrics.outcomes import buffered
from llm_reports.metrics.outcomes import failed as failed_rows
from llm_reports.slo.objectives import ERRORS, Objective
from llm_reports.stats.effective_size import (
    LEAST_EFFECTIVE,
    OF_DISPROOFS,
    OF_PROOFS,
    Dependence,
    Floats,
    Sample,
    dependence,
    share_interval,
)
from llm_reports.stats.intervals import UNKNOWN, Interval, requests_needed_below, requests_to_tell, values_needed
from llm_users.quantile import quantile

_METRICS = {metric.name: metric for metric in (*REQUEST_METRICS, *OPEN_LOOP_METRICS)}
_NEEDS_STREAMING = {"ttft", "ttfat", "tpot", "corrected_ttft"}
_FAR = 4.0
"""When all values are this many times better than the limit, being within it is taken as a constant, which has the
effective size N. In M/M/1 queues with the limit at the true P95 or P99, at loads up to 0.9, that is so in 1.8 % of runs
of 400 requests at most (a factor of 3: 11.5 %)."""


@dataclass(frozen=True)
class Evidence:
    """The requests of one stage against one objective. NaN and infinite bounds stand for what they cannot say.

    ``n`` values are worth ``effective`` independent ones. ``failed`` of them are failed requests: infinitely slow, or
    a throughput of 0. ``unknown`` requests are not among the values.
    """

    n: int
    effective: float
    estimate: float
    interval: Interval
    proof: float
    disproof: float
    failed: int = 0
    unknown: int = 0
    enough: int | None = None
    """How many requests would decide it if the figures stay as they are; ``None`` when they cannot say."""
    far_from_limit: bool = False
    """Whether all values are so far from the limit that it holds however they depend on each other."""


_NOTHING = Evidence(0, math.nan, math.nan, UNKNOWN, math.nan, math.nan)


def evidence(group: Group, objective: Objective, delay_s: float = 0.0) -> Evidence:
    """The evidence of a group.

    ``delay_s`` is how late the client may have been to read. It can make a time per output token look shorter, so the
    proof counts it in: delay / (N - 1) for each request.
    """
    if objective.name == ERRORS:
        return _of_errors(group, objective)
    if objective.is_share:
        return _of_mismatches(group, objective)
    return _of_values(group, objective, delay_s if objective.name == "tpot" else 0.0)


def metric_of(objective: Objective) -> Metric:
    """What an objective is measured by."""
    return OUTPUT_THROUGHPUT if objective.name == "throughput" else _METRICS[objective.kind.column]


def least_requests(objective: Objective) -> int:
    """The smallest number of independent requests that can meet an objective at all."""
    if objective.is_share:
        return max(LEAST_EFFECTIVE, requests_needed_below(objective.limit))
    return LEAST_EFFECTIVE if objective.q is None else max(LEAST_EFFECTIVE, values_needed(objective.q))


def _of_errors(group: Group, objective: Objective) -> Evidence:
    counts = group.counts
    n = counts.ended
    if not n:
        return _NOTHING
    # Failures are what this objective counts, so they are not set apart as `failed`.
    return _of_share(objective, counts.failed, n, counts.aborted, dependence(group.failures))


def _of_mismatches(group: Group, objective: Objective) -> Evidence:
    share = mismatches(group, objective.kind.column)
    if not share.checked:
        return _NOTHING
    return _of_share(objective, share.wrong, share.checked, share.unknown, share.dependence)


def _of_share(objective: Objective, hits: int, n: int, unknown: int, depends: Dependence) -> Evidence:
    size, for_proof = depends.size(OF_DISPROOFS), depends.size(OF_PROOFS)
    worst = share_interval(hits, n, for_proof, unknown=unknown)
    best, shown = share_interval(hits, n, size), share_interval(hits, n, for_proof)
    ends = _ends(Interval(best.low, shown.high))
    enough = _scaled(requests_to_tell(hits / n, objective.limit), n, for_proof)
    return Evidence(n, for_proof, hits / n, ends, worst.high, best.low, unknown=unknown, enough=enough)


def _of_values(group: Group, objective: Objective, delay_s: float) -> Evidence:
    rows, order = group.measured, group.ended_order
    values = group.values(metric_of(objective), rows).to_numpy(np.float64, na_value=math.nan)[order]
    failures = failed_rows(rows["error_code"]).to_numpy(bool)[order]
    less = objective.kind.less_is_better
    bad = math.inf if less else 0.0
    # A wait in front of the client is known of a failed request, too: only what never was sent has none.
    missing = failures & np.isnan(values) if objective.name == "queue" else failures
    values = np.where(missing, bad, values)
    late = values
    if delay_s > 0:
        tokens = rows["output_tokens"].to_numpy(np.float64, na_value=math.nan)[order]
        late = values + delay_s / np.maximum(1.0, np.nan_to_num(tokens, nan=2.0) - 1)
    known = ~np.isnan(values)
    failed, n = int(missing.sum()), int(known.sum())
    unknown = group.counts.aborted + _buffered(group, objective)
    if not n:
        return Evidence(0, math.nan, math.nan, UNKNOWN, math.nan, math.nan, unknown=unknown)
    sample = Sample.of(values[known])
    worst = sample if late is values else Sample.of(late[known])
    if objective.q is None:
        return _of_mean(objective, sample, worst, failed=failed, unknown=unknown)
    return _of_quantile(objective, objective.q, sample, worst, failed=failed, unknown=unknown)


def _of_mean(objective: Objective, sample: Sample, worst: Sample, *, failed: int, unknown: int) -> Evidence:
    less, n = objective.kind.less_is_better, len(sample.values)
    if failed:
        estimate = math.inf if less else float(sample.values.mean())
        return Evidence(n, float(n), estimate, UNKNOWN, math.nan, estimate, failed=failed, unknown=unknown)
    best = _mean_interval(sample, sample.dependence.size(OF_DISPROOFS))
    shown = _mean_interval(sample, _for_proof(sample))
    padded = UNKNOWN if unknown else _mean_interval(worst, _for_proof(worst))
    mean = float(sample.values.mean())
    reach, distance = (shown.high - mean if shown.known else math.nan), abs(objective.limit - mean)
    enough = math.ceil(n * (reach / distance) ** 2) + 1 if distance and math.isfinite(reach) else None
    proof, disproof = (padded.high, best.low) if less else (padded.low, best.high)
    ends = _ends(Interval(best.low, shown.high) if less else Interval(shown.low, best.high))
    return Evidence(n, _for_proof(sample), mean, ends, proof, disproof, unknown=unknown, enough=enough)


def _for_proof(sample: Sample) -> float:
    return sample.mean_size_for_proof


def _mean_interval(sample: Sample, size: float) -> Interval:
    values = sample.values
    stddev = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return sample.mean_interval(float(values.mean()), stddev, size)


def _of_quantile(
    objective: Objective, q: float, sample: Sample, worst: Sample, *, failed: int, unknown: int
) -> Evidence:
    """The bounds of a quantile.

    The disproof takes the dependence of being over the limit. The proof takes that of being over the quantile itself:
    where a limit holds, fewer values are over it than over the quantile, often none, and they say little or nothing
    about how values over the limit follow each other.
    """
    n, less = len(sample.values), objective.kind.less_is_better
    broken = _broken(sample.values, objective)
    for_proof = sample.size_about(q, proof=True)
    of_limit = dependence(broken.astype(np.float64))
    if worst is not sample:
        for_proof = min(for_proof, worst.size_about(q, proof=True))
    best = sample.quantile_interval(q, of_limit.size(OF_DISPROOFS))
    padding = np.full(unknown, math.inf if less else -math.inf)
    padded = Sample.of(np.append(worst.values, padding)) if unknown else worst
    pessimistic = padded.quantile_interval(q, for_proof * (n + unknown) / n if for_proof >= LEAST_EFFECTIVE else 0.0)
    shown = sample.quantile_interval(q, for_proof)
    proof, disproof = (pessimistic.high, best.low) if less else (pessimistic.low, best.high)
    ends = Interval(best.low, shown.high) if less else Interval(shown.low, best.high)
    share = float(_within(sample.values, objective).mean())
    enough = _scaled(requests_to_tell(share, q if less else 1 - q), n, for_proof)
    estimate = quantile(cast("Any", sample.ordered), q)
    far = not unknown and n >= least_requests(objective) and _is_far(worst.values, objective)
    return Evidence(n, for_proof, estimate, _ends(ends), proof, disproof, failed, unknown, enough, far)


def _is_far(values: Floats, objective: Objective) -> bool:
    if objective.kind.less_is_better:
        return bool(values.max() * _FAR <= objective.limit)
    return bool(values.min() >= _FAR * objective.limit)


def _ends(interval: Interval) -> Interval:
    """An interval of which at least one end is known, and no end is NaN while the other is known."""
    low, high = interval.low, interval.high
    if math.isnan(low) and math.isnan(high):
        return UNKNOWN
    return Interval(-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)


def _broken(values: Floats, objective: Objective) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which values are on the wrong side of the limit."""
    if objective.kind.less_is_better:
        return values > objective.limit if objective.inclusive else values >= objective.limit
    return values < objective.limit if objective.inclusive else values <= objective.limit


def _within(values: Floats, objective: Objective) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return ~_broken(values, objective)


def _buffered(group: Group, objective: Objective) -> int:
    """Successful requests whose first token arrived at an unknown time."""
    return int(buffered(group.ok["error_code"]).sum()) if objective.name in _NEEDS_STREAMING else 0


def _scaled(independent: int | None, n: int, size: float) -> int | None:
    """How many dependent requests are worth this many independent ones."""
    return None if independent is None else math.ceil(independent * n / size - 1e-9)
