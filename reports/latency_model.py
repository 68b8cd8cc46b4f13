"""Latency taken apart: latency = TTFT + TPOT x tokens, fitted per stage, so that prefill and decode are seen apart.

Tokens are counted after the first, so that the constant is the time to the first token itself. The fit is Huber's:
least squares for the bulk, absolute deviations for outliers, so that a few stalled requests do not tilt the line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_users.quantile import quantile
from reports.grouping import LATENCY, OUTPUT_TOKENS, Group

_HUBER = 1.345  # 95 % as efficient as least squares on normal residuals (Huber 1981)
_MAD_TO_SIGMA = 1.4826
_ITERATIONS = 50
_FEWEST = 8  # requests; below it a line says more about chance than about the server

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A robust straight line through points; ``problem`` says why there is none."""

    constant: float = math.nan
    slope: float = math.nan
    problem: str = ""


@dataclass(frozen=True)
class LatencyModel:
    """The fit of one stage. Residuals are what the line does not explain; ``explained`` is the share that it does."""

    n: int
    ttft_s: float
    tpot_s: float
    residual_p50_s: float
    residual_p95_s: float
    explained: float
    problem: str

    def residuals(self, tokens: Floats, latency_s: Floats) -> Floats:
        """Measured minus modelled latency."""
        return latency_s - (self.ttft_s + self.tpot_s * (tokens - 1.0))


def latency_model(group: Group) -> LatencyModel:
    """The model of the successful requests of a group."""
    tokens, latency_s = tokens_and_latency(group)
    line = robust_line(tokens - 1.0, latency_s)
    if line.problem:
        nan = math.nan
        return LatencyModel(len(tokens), nan, nan, nan, nan, nan, line.problem)
    fitted = LatencyModel(len(tokens), line.constant, line.slope, math.nan, math.nan, math.nan, "")
    sizes = np.sort(np.abs(fitted.residuals(tokens, latency_s))).tolist()
    # Medians of absolute deviations, not squares: one stalled request would otherwise decide the share alone.
    spread = quantile(np.sort(np.abs(latency_s - np.median(latency_s))).tolist(), 0.5)
    median = quantile(sizes, 0.5)
    explained = 1.0 - median / spread if spread > 0 else math.nan
    return LatencyModel(fitted.n, fitted.ttft_s, fitted.tpot_s, median, quantile(sizes, 0.95), max(0.0, explained), "")


def latency_models(groups: Iterable[Group]) -> list[LatencyModel]:
    """The model of every group."""
    return [latency_model(group) for group in groups]


def tokens_and_latency(group: Group) -> tuple[Floats, Floats]:
    """Output tokens and latency of the successful requests that have both, in an order of their own."""
    return paired(group.values(OUTPUT_TOKENS, group.ok), group.values(LATENCY, group.ok))


def paired(first: Iterable[float], second: Iterable[float]) -> tuple[Floats, Floats]:
    """Two columns as arrays, rows that lack one of the values left out, sorted: the rows' order must not show."""
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    order = np.lexsort((y, x))
    return x[order], y[order]


def robust_line(x: Floats, y: Floats) -> Line:
    """Huber's fit by reweighted least squares; the scale is the median absolute residual."""
    if len(x) < _FEWEST:
        return Line(problem=f"{len(x)} requests are too few for a line (it takes {_FEWEST})")
    if float(x[0]) == float(x[-1]):
        return Line(problem=f"every request has the same length ({x[0]:g}), so a slope cannot be told")
    weights = np.ones_like(x)
    constant = slope = math.nan
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
    return Line(constant, slope)
