"""Rows by the time at which they were started, and how many of them go on at a time."""

from __future__ import annotations

import numpy as np
from pandas import DataFrame

from reports.grouping import OVERFLOW, Group
from reports.llmperf_results import duration_s


def in_order(rows: DataFrame) -> DataFrame:
    """By start. What was dropped has none and takes the place that its prompt has among the others."""
    never, known = rows["error_code"] == OVERFLOW, rows["started_at"].notna() & rows["prompt_index"].notna()
    if never.any() and known.any():
        at = rows[known].sort_values("prompt_index")
        wanted, places = (each["prompt_index"].to_numpy(np.float64, na_value=0.0) for each in (rows, at))
        guessed = np.interp(wanted, places, at["started_at"].to_numpy(np.float64))
        rows = rows.assign(started_at=rows["started_at"].where(~never, guessed))
    return rows.sort_values(["started_at", "request_id"], kind="stable")


def at_once(group: Group) -> int:
    """How many requests go on at a time: the users; in an open loop what was in flight on average (Little)."""
    if not group.load.is_open:
        return max(group.concurrency or 1, 1)
    took_s, lasted_s = float(group.measured["end_to_end_latency_s"].sum()), duration_s(group)
    return max(1, round(took_s / lasted_s)) if lasted_s > 0 else 1
