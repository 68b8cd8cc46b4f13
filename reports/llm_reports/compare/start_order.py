"""The order of rows by start time, and the number of requests in flight."""

from __future__ import annotations

from pandas import DataFrame

from llm_reports.llmperf.results import duration_s
from llm_reports.metrics.groups import Group, start_times
from llm_reports.metrics.outcomes import dropped
from llm_users.record import COL


def in_order(rows: DataFrame) -> DataFrame:
    """Return the rows in the order of their starts.

    Dropped requests do not have a start time; they take the position that their prompt has among the other prompts.
    """
    if dropped(rows[COL.error_code]).any():
        rows = rows.assign(started_at=start_times(rows))
    return rows.sort_values([COL.started_at, COL.request_id], kind="stable")


def at_once(group: Group) -> int:
    """Return the number of requests in flight: the users, or the average in an open loop (Little's law)."""
    if not group.load.is_open:
        return max(group.concurrency or 1, 1)
    took_s, lasted_s = float(group.measured[COL.end_to_end_latency_s].sum()), duration_s(group)
    return max(1, round(took_s / lasted_s)) if lasted_s > 0 else 1
