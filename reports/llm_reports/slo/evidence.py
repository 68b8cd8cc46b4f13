"""Evidence from the requests of a stage for one objective: the figure, its interval, and the bounds that decide.

An objective holds if even the bad end of the interval is within the limit (``proof``), and is broken if even the good
end is not (``disproof``). Unknown values of a request count at their worst for the proof and at their best for the
disproof.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from llm_reports.metrics.correctness import mismatches
from llm_reports.metrics.groups import OPEN_LOOP_METRICS, OUTPUT_THROUGHPUT, REQUEST_METRICS, Group, Metric, unstreamed
from llm_reports.metrics.outcomes import buffered
from llm_reports.metrics.outcomes import failed as failed_rows
from llm_reports.slo.objectives import ERRORS, Objective
from llm_reports.stats.effective_size import (
    LEAST_EFFECTIVE,
    OF_DISPROOFS,
    OF_PROOFS,
    Dependence,
    Sample,
    dependence,
    share_interval,
)
from llm_reports.stats.intervals import UNKNOWN, Interval, requests_needed_below, requests_to_tell, values_needed
from llm_users.quantile import quantile
from llm_users.record import COL

Floats = np.ndarray[Any, np.dtype[np.float64]]
_METRICS = {metric.name: metric for metric in (*REQUEST_METRICS, *OPEN_LOOP_METRICS)}
_FAR = 4.0
"""If all values are better than the limit by this factor, being within the limit counts as constant, which has the
effective size N. In M/M/1 queues with the limit at the true P95 or P99, at loads up to 0.9, this happens in at most
1.8 % of runs of 400 requests (with a factor of 3: 11.5 %)."""

_NEAREST = 0.6
_RANGES, _RANGES_OF_SHORT, _SHORT_LATENCIES = 8.0, 16.0, 20.0
"""The rule for values that hardly vary, such as a TPOT below the capacity of a server: all of them are at most 0.6 of
the limit, and the distance of the largest one from the limit is 8 times the range of all values (16 times in a stage
shorter than 20 mean latencies). Such values are too correlated for an interval, but a queue that could reach the limit
would spread them. ``tests/system/truth/far_from_limit.py`` prints the false passes and the power: with the limit at the
true P95, up to 96 % of a server's capacity, it passes at most 4 % of the stages of 60 s and 100 s.
"""


@dataclass(frozen=True)
class Evidence:
    """The requests of one stage compared with one objective. NaN and infinite bounds mean unknown.

    ``n`` values are equivalent to ``effective`` independent ones. ``failed`` of them are failed requests: infinitely
    slow, or a throughput of 0. ``unknown`` requests are not among the values.
    """

    n: int
    effective: float = math.nan
    estimate: float = math.nan
    interval: Interval = UNKNOWN
    proof: float = math.nan
    disproof: float = math.nan
    failed: int = 0
    unknown: int = 0
    enough: int | None = None
    """The number of requests that decides the objective if the figures do not change; ``None`` when unknown."""
    worst: float = math.nan
    """The worst value, if all values are so far from the limit that the objective holds regardless of their dependence;
    NaN otherwise."""

    @property
    def far_from_limit(self) -> bool:
        """Whether all values are so far from the limit that the objective holds regardless of their dependence."""
        return not math.isnan(self.worst)


def evidence(group: Group, objective: Objective, delay_s: float = 0.0) -> Evidence:
    """Return the evidence of a group for an objective.

    ``delay_s`` is how late the client may have read. This can make a time per output token look shorter, so the proof
    adds delay / (N - 1) for each request.
    """
    if objective.name == ERRORS:
        counts = group.counts
        # This objective counts failures, so they are not reported separately as `failed`.
        return _of_share(objective, counts.failed, counts.ended, counts.aborted, dependence(group.failures))
    if objective.is_share:
        share = mismatches(group, objective.kind.column)
        return _of_share(objective, share.wrong, share.checked, share.unknown, share.dependence)
    return _of_values(group, objective, delay_s if objective.name == "tpot" else 0.0)


def failures_disprove(group: Group, objective: Objective) -> bool:
    """Return whether the failed requests alone disprove a percentile of a time.

    A failed request counts as infinitely slow, so the times of the other requests, and with them the client, do not
    matter. The wait in the client is also known for failed requests.
    """
    failed, ended = group.counts.failed, group.counts.ended
    if objective.q is None or not objective.kind.less_is_better or objective.name == "queue" or not ended:
        return False
    size = dependence(group.failures).size(OF_DISPROOFS)
    return share_interval(failed, ended, size).low > 1 - objective.q


def metric_of(objective: Objective) -> Metric:
    """Return the metric of an objective."""
    return OUTPUT_THROUGHPUT if objective.name == "throughput" else _METRICS[objective.kind.column]


def least_requests(objective: Objective) -> int:
    """Return the smallest number of independent requests that can prove an objective."""
    if objective.is_share:
        return max(LEAST_EFFECTIVE, requests_needed_below(objective.limit))
    return LEAST_EFFECTIVE if objective.q is None else max(LEAST_EFFECTIVE, values_needed(objective.q))


def _of_share(objective: Objective, hits: int, n: int, unknown: int, share_dependence: Dependence) -> Evidence:
    if not n:
        return Evidence(0)
    size, for_proof = share_dependence.size(OF_DISPROOFS), share_dependence.size(OF_PROOFS)
    worst = share_interval(hits, n, for_proof, unknown=unknown)
    best, shown = share_interval(hits, n, size), share_interval(hits, n, for_proof)
    ends = _ends(Interval(best.low, shown.high))
    enough = _scaled(requests_to_tell(hits / n, objective.limit), n, for_proof)
    return Evidence(n, for_proof, hits / n, ends, worst.high, best.low, unknown=unknown, enough=enough)


def _of_values(group: Group, objective: Objective, delay_s: float) -> Evidence:
    rows, order = group.measured, group.ended_order
    values = group.values(metric_of(objective), rows).to_numpy(np.float64, na_value=math.nan)[order]
    failures = failed_rows(rows[COL.error_code]).to_numpy(bool)[order]
    less = objective.kind.less_is_better
    bad = math.inf if less else 0.0
    # The wait in the client is also known for failed requests; only requests that were not sent do not have it.
    missing = failures & np.isnan(values) if objective.name == "queue" else failures
    if objective.kind.needs_stream:  # requests without a stream, also failed ones, do not have the metric
        missing = missing & ~unstreamed(rows).to_numpy(bool)[order]
    values = np.where(missing, bad, values)
    late = values
    if delay_s > 0:
        tokens = rows[COL.output_tokens].to_numpy(np.float64, na_value=math.nan)[order]
        late = values + delay_s / np.maximum(1.0, np.nan_to_num(tokens, nan=2.0) - 1)
    known = ~np.isnan(values)
    failed, n = int(missing.sum()), int(known.sum())
    unknown = group.counts.aborted
    if objective.kind.needs_stream:  # the first token of a buffered answer arrived at an unknown time
        unknown += int(buffered(group.ok[COL.error_code]).sum())
    if not n:
        return Evidence(0, unknown=unknown)
    sample = Sample.of(values[known])
    worst = sample if late is values else Sample.of(late[known])
    if objective.q is None:
        return _of_mean(objective, sample, worst, failed=failed, unknown=unknown)
    result = _of_quantile(objective, objective.q, sample, worst, failed=failed, unknown=unknown)
    far = not unknown and n >= least_requests(objective) and _far(objective, worst.values, length_in_latencies(group))
    return replace(result, worst=float(worst.ordered[-1 if less else 0])) if far else result


def length_in_latencies(group: Group) -> float:
    """Return the length of the stage in mean latencies of its requests; NaN when unknown."""
    latencies = group.measured[COL.end_to_end_latency_s].dropna()
    mean = float(latencies.mean()) if len(latencies) else math.nan
    return measured_s(group) / mean if mean > 0 else math.nan


def measured_s(group: Group) -> float:
    """Return the length of the MEASURE window (s), or else from the first start to the last; NaN when unknown."""
    window_s = group.stage_figure(COL.measure_s)
    starts = group.measured[COL.started_at].dropna()
    return window_s if window_s > 0 else float(starts.max() - starts.min()) if len(starts) else math.nan


def _far(objective: Objective, values: Floats, latencies: float) -> bool:
    """Return whether all values are far from the limit: by a factor alone, or also in relation to their range."""
    if not objective.limit > 0 or not values.min() > 0:
        return bool(values.max() * _FAR <= objective.limit) if objective.kind.less_is_better else False
    if objective.kind.less_is_better:
        largest, least, limit = values.max(), values.min(), objective.limit
    else:  # the reciprocal of a throughput is a time
        largest, least, limit = 1 / values.min(), 1 / values.max(), 1 / objective.limit
    if largest * _FAR <= limit:
        return True
    ranges = _RANGES if latencies >= _SHORT_LATENCIES else _RANGES_OF_SHORT
    return bool(largest <= _NEAREST * limit and limit - largest >= ranges * (largest - least))


def _of_mean(objective: Objective, sample: Sample, worst: Sample, *, failed: int, unknown: int) -> Evidence:
    less, n = objective.kind.less_is_better, len(sample.values)
    if failed:
        estimate = math.inf if less else float(sample.values.mean())
        return Evidence(n, float(n), estimate, UNKNOWN, math.nan, estimate, failed=failed, unknown=unknown)
    best = _mean_interval(sample, sample.dependence.size(OF_DISPROOFS))
    shown = _mean_interval(sample, sample.mean_size_for_proof)
    padded = UNKNOWN if unknown else _mean_interval(worst, worst.mean_size_for_proof)
    mean = float(sample.values.mean())
    reach, distance = (shown.high - mean if shown.known else math.nan), abs(objective.limit - mean)
    enough = math.ceil(n * (reach / distance) ** 2) + 1 if distance and math.isfinite(reach) else None
    proof, disproof = (padded.high, best.low) if less else (padded.low, best.high)
    ends = _ends(Interval(best.low, shown.high) if less else Interval(shown.low, best.high))
    return Evidence(n, sample.mean_size_for_proof, mean, ends, proof, disproof, unknown=unknown, enough=enough)


def _mean_interval(sample: Sample, size: float) -> Interval:
    values = sample.values
    stddev = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return sample.mean_interval(float(values.mean()), stddev, size)


def _of_quantile(
    objective: Objective, q: float, sample: Sample, worst: Sample, *, failed: int, unknown: int
) -> Evidence:
    """Return the evidence for an objective on a quantile.

    The disproof uses the dependence of values above the limit. The proof uses the dependence of values above the
    quantile itself: if a limit holds, fewer values are above it than above the quantile, often none, so they show
    little or nothing about the dependence of values above the limit.
    """
    n, less = len(sample.values), objective.kind.less_is_better
    values, limit = sample.values, objective.limit
    if objective.inclusive:
        broken = values > limit if less else values < limit
    else:
        broken = values >= limit if less else values <= limit
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
    share = float((~broken).mean())
    enough = _scaled(requests_to_tell(share, q if less else 1 - q), n, for_proof)
    estimate = quantile(cast("Any", sample.ordered), q)
    return Evidence(n, for_proof, estimate, _ends(ends), proof, disproof, failed, unknown, enough)


def _ends(interval: Interval) -> Interval:
    """Replace an unknown end by an infinite one if the other end is known."""
    low, high = interval.low, interval.high
    if math.isnan(low) and math.isnan(high):
        return UNKNOWN
    return Interval(-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)


def _scaled(independent: int | None, n: int, size: float) -> int | None:
    """Return the number of dependent requests that is equivalent to this number of independent ones."""
    return None if independent is None else math.ceil(independent * n / size - 1e-9)
