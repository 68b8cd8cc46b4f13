"""The columns of a row that a judgement reads: groups, objectives, dependence, client delay, steadiness.

The load search keeps only these columns of every row. tests/unit/wiring/test_load_search.py compares judgements from
these columns with judgements from complete rows.
"""

from __future__ import annotations

from llm_reports.slo.objectives import KINDS
from llm_users.record import REQUEST_COLUMNS

_GROUPS = {"stage", "concurrency", "rate_per_s", "framework", "model", "user_class", "measured", "phase", "turn"}
_OUTCOMES = {"error_code", "http_status", "expected_answer", "retries"}
_TIMES = {"started_at", "queue_s", "held_s", "connect_s", "end_to_end_latency_s", "last_token_s", "worker"}
_TOKENS = {"output_tokens", "input_tokens", "cached_tokens", "reasoning_tokens", "window_tokens", "window_share"}
_CHUNKS = {"chunks", "coalesced", "first_coalesced", "gap_max_s", "prompt_index"}
_NAMES = {kind.column for kind in KINDS.values()} | _GROUPS | _OUTCOMES | _TIMES | _TOKENS | _CHUNKS

JUDGED_COLUMNS = tuple(column.name for column in REQUEST_COLUMNS if column.name in _NAMES)
