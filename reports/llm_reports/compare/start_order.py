"""Rows by the time at which they were started, and how many of them go on at a time."""

from __future__ import annotations

from pandas import DataFrame

from llm_reports.llmperf.results import duration_s
from llm_reports.metrics.groups import Group, start_times
from llm_reports.metrics.outcomes import dropped


def in_order(rows: DataFrame) -> DataFrame:
    """By start. What was dropped has none and takes the place that its prompt has among the others."""
    if dropped(rows["error_code"]).any():
        rows = rows.assign(started_at=start_times(rows))
    return rows.sort_values(["started_at", "request_id"], kind="stable")


def at_once(group: Group) -> int:
    """How many requests go on at a time: the users; in an open loop what was in flight on average (Little)."""
    if not group.load.is_open:
        return max(group.concurrency or 1, 1)
    took_s, lasted_s = float(group.measured["end_to_end_latency_s"].sum()), duration_s(group)
    return max(1, round(took_s / lasted_s)) if lasted_s > 0 else 1
