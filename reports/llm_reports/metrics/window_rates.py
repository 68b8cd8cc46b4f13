"""Rates inside the MEASURE window. All rates that a report computes from rows come from this module.

A successful request counts with its ``window_share``, the fraction of its output that arrived inside the window,
regardless of the phase in which it started. Therefore requests/s times mean tokens is tokens/s, and throughput times
mean latency is the number of users (Little's law). Files of older versions do not have this column; then the share is
estimated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, Series

from llm_reports.llmperf.results import duration_s
from llm_reports.metrics.groups import Group
from llm_reports.metrics.outcomes import succeeded
from llm_users.record import COL


@dataclass(frozen=True)
class WindowRows:
    """The successful requests of a group with their output inside the window.

    ``shares`` (0 to 1) and ``tokens`` have one value per row of ``rows``. ``window_s`` is NaN when the files do not
    contain the duration. ``estimated``: the window or the shares do not come from the run's own files.
    """

    rows: DataFrame
    shares: Series
    tokens: Series
    window_s: float
    estimated: bool

    def requests_per_s(self, wanted: Series | None = None) -> float:
        """Return requests per second, of all rows or of the wanted ones."""
        return self._rate(self.shares, wanted)

    def tokens_per_s(self, wanted: Series | None = None) -> float:
        """Return output tokens per second, of all rows or of the wanted ones."""
        return self._rate(self.tokens, wanted)

    def _rate(self, amounts: Series, wanted: Series | None) -> float:
        return math.fsum(amounts if wanted is None else amounts[wanted]) / self.window_s


def window_rows(group: Group) -> WindowRows:
    """Return the output of a group inside the window of its stage; without a stage, all output over its duration."""
    window_s = group.stage_figure(COL.measure_s)
    if not window_s > 0:
        rows, by_rows_s = group.ok, duration_s(group)
        window_s = by_rows_s if by_rows_s > 0 else math.nan
        ones = Series(1.0, index=rows.index)
        return WindowRows(rows, ones, rows[COL.output_tokens].astype("float64").fillna(0.0), window_s, estimated=True)
    start_s = group.stage_figure(COL.measure_started_at)
    # The successful rows of the stage include rows that do not count in its statistics.
    rows = group.run.requests
    own = (rows[COL.stage] == group.stage) & (rows[COL.model] == group.model) & (rows[COL.framework] == group.framework)
    rows = rows[own.fillna(value=False).astype(bool) & succeeded(rows[COL.error_code])]
    shares = rows[COL.window_share].astype("float64")
    unknown = shares.isna() & rows[COL.window_tokens].notna() & (rows[COL.output_tokens] > 0).fillna(value=False)
    if unknown.any():
        shares = shares.where(~unknown, (rows[COL.window_tokens] / rows[COL.output_tokens]).astype("float64"))
    estimated = bool(shares.isna().any())
    if estimated:
        if math.isnan(start_s):
            start_s = float(group.measured[COL.started_at].min())
        # Count requests that ended inside the window as 1, others as 0; without times, the measured ones as 1.
        ends_s = rows[COL.started_at] + rows[COL.end_to_end_latency_s]
        inside = ((ends_s >= start_s) & (ends_s <= start_s + window_s)).astype("float64")
        measured = (rows[COL.measured] == 1).fillna(value=False).astype("float64")
        shares = shares.fillna(inside.where(ends_s.notna(), measured).astype(np.float64))
    tokens = rows[COL.window_tokens].astype("float64")
    tokens = tokens.fillna(shares * rows[COL.output_tokens].astype("float64")).fillna(0.0)
    return WindowRows(rows, shares, tokens, window_s, estimated)
