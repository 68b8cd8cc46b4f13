"""The latency model latency = TTFT + TPOT x tokens, fitted per stage, which separates prefill from decode.

Tokens are counted after the first, so that the constant is the time to the first token itself. The fit is Huber's:
least squares for most requests, absolute deviations for outliers, so that a few stalled requests do not tilt the line.
Slopes have 95 % intervals from the sandwich estimate of the fit's variance (Huber 1967) with jackknife residuals (HC3,
MacKinnon and White 1985) and Bell and McCaffrey's degrees of freedom. They are valid when the spread of the latencies
changes with the length, and when few requests are much longer than the others. A slope whose interval contains 0 does
not differ significantly from 0; then there is no line, and the interval shows how large the slope could be.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_reports.metrics.groups import LATENCY, OUTPUT_TOKENS, Group
from llm_reports.stats.intervals import LEVEL, UNKNOWN, Interval, student_t
from llm_users.quantile import quantile

_HUBER = 1.345  # 95 % as efficient as least squares on normal residuals (Huber 1981)
_MAD_TO_SIGMA = 1.4826
_ITERATIONS = 50
NOT_TOLD_FROM_0 = "the 95 % interval of the slope contains 0, so the length has no significant effect"
_MOST_LEVERAGE = 0.99
_FEWEST = 8  # requests; with fewer, a line reflects chance more than the server

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A robust straight line through points; ``problem`` states why there is no line.

    ``slope_interval`` is the 95 % interval of the slope; it is also known if it contains 0 and there is no line.
    """

    constant: float = math.nan
    slope: float = math.nan
    problem: str = ""
    slope_interval: Interval = UNKNOWN


@dataclass(frozen=True)
class LatencyModel:
    """The fit of one stage. ``explained`` is the share of the median deviation that the line explains.

    ``tpot_interval`` is the 95 % interval of ``tpot_s``.
    """

    n: int
    ttft_s: float = math.nan
    tpot_s: float = math.nan
    residual_p50_s: float = math.nan
    residual_p95_s: float = math.nan
    explained: float = math.nan
    problem: str = ""
    tpot_interval: Interval = UNKNOWN

    def residuals(self, tokens: Floats, latency_s: Floats) -> Floats:
        """Return measured minus modelled latency (s)."""
        return latency_s - (self.ttft_s + self.tpot_s * (tokens - 1.0))


def latency_model(group: Group) -> LatencyModel:
    """Return the model of the successful requests of a group."""
    tokens, latency_s = tokens_and_latency(group)
    line = robust_line(tokens - 1.0, latency_s)
    if line.problem:
        return LatencyModel(len(tokens), problem=line.problem, tpot_interval=line.slope_interval)
    fitted = LatencyModel(len(tokens), line.constant, line.slope)
    sizes = np.sort(np.abs(fitted.residuals(tokens, latency_s))).tolist()
    # Medians of absolute deviations, not squares: otherwise one stalled request could determine the share.
    spread = quantile(np.sort(np.abs(latency_s - np.median(latency_s))).tolist(), 0.5)
    median = quantile(sizes, 0.5)
    explained = 1.0 - median / spread if spread > 0 else math.nan
    return dataclasses.replace(
        fitted,
        residual_p50_s=median,
        residual_p95_s=quantile(sizes, 0.95),
        explained=max(0.0, explained),
        tpot_interval=line.slope_interval,
    )


def latency_models(groups: Iterable[Group]) -> list[LatencyModel]:
    """Return the model of every group."""
    return [latency_model(group) for group in groups]


def tokens_and_latency(group: Group) -> tuple[Floats, Floats]:
    """Return output tokens and latency of the successful requests that have both values, sorted."""
    return paired(group.values(OUTPUT_TOKENS, group.ok), group.values(LATENCY, group.ok))


def paired(first: Iterable[float], second: Iterable[float]) -> tuple[Floats, Floats]:
    """Return two columns as sorted arrays without rows that lack a value; the result must not depend on row order."""
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    order = np.lexsort((y, x))
    return x[order], y[order]


def robust_line(x: Floats, y: Floats) -> Line:
    """Return Huber's fit by reweighted least squares; the scale is the median absolute residual.

    The result does not contain a line if its slope does not differ significantly from 0.
    """
    if len(x) < _FEWEST:
        return Line(problem=f"{len(x)} requests are too few for a line, which requires {_FEWEST}")
    if float(x[0]) == float(x[-1]):
        return Line(problem=f"every request has the same length ({x[0]:g}), so the slope is unknown")
    weights = np.ones_like(x)
    constant = slope = math.nan
    scale = 0.0
    for _ in range(_ITERATIONS):
        total = weights.sum()
        mean_x, mean_y = (weights * x).sum() / total, (weights * y).sum() / total
        spread = (weights * (x - mean_x) ** 2).sum()
        if not spread > 0:
            return Line(problem="too few different lengths for a slope")
        before = slope
        slope = float((weights * (x - mean_x) * (y - mean_y)).sum() / spread)
        constant = float(mean_y - slope * mean_x)
        residuals = np.abs(y - constant - slope * x)
        scale = _MAD_TO_SIGMA * float(np.median(residuals))
        if scale <= 0 or abs(slope - before) <= 1e-9 * abs(slope):
            break
        weights = np.minimum(1.0, _HUBER * scale / np.maximum(residuals, 1e-300))
    reach = _slope_reach(x, y - constant - slope * x, scale)
    interval = Interval(slope - reach, slope + reach)
    if not reach < abs(slope):
        return Line(problem=NOT_TOLD_FROM_0, slope_interval=interval)
    return Line(constant, slope, "", interval)


def _slope_reach(x: Floats, residuals: Floats, scale: float) -> float:
    """Return half the width of the 95 % interval of the slope."""
    limit = _HUBER * scale if scale > 0 else math.inf  # without a scale the fit was least squares
    inside = np.abs(residuals) <= limit
    weight = inside.astype(np.float64)
    total = weight.sum()
    if total < 3:
        return math.inf
    centred = x - (weight * x).sum() / total
    spread = (weight * centred**2).sum()
    if not spread > 0:
        return math.inf
    leverage = 1 / total + centred**2 / spread
    if leverage.max() > _MOST_LEVERAGE:
        return math.inf  # a single request determines the slope
    influence = np.clip(residuals, -limit, limit) / (1 - leverage)
    deviation = math.sqrt(float(((centred * influence) ** 2).sum())) / float(spread)
    # Bell and McCaffrey's degrees of freedom (2002): few if few requests far from the mean length determine the slope.
    share = centred**2 / (1 - leverage)
    mean = float((share * (1 - leverage)).sum())
    # The sum over all pairs of share_i share_j M_ij^2 with M = 1 - H, in closed form.
    pairs = (share.sum() / total) ** 2 + 2 * (share * centred).sum() ** 2 / (total * spread)
    pairs += ((share * centred**2).sum() / spread) ** 2
    square = float((share**2 * (1 - 2 * leverage)).sum() + pairs)
    freedom = max(1, math.floor(mean**2 / square)) if square > 0 else 1
    return student_t(freedom, LEVEL) * deviation
