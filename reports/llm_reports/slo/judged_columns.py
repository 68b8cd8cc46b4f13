"""The columns of a row that a judgement reads: groups, objectives, dependence, client delay, steadiness.

The load search keeps only these columns of every row. tests/unit/wiring/test_load_search.py compares judgements from
these columns with judgements from complete rows.
"""

from __future__ import annotations

from llm_reports.slo.objectives import KINDS
from llm_users.record import COL, REQUEST_COLUMNS

_LOAD = {COL.stage, COL.concurrency, COL.rate_per_s, COL.measured, COL.phase, COL.turn}
_GROUPS = {COL.framework, COL.model, COL.user_class}
_OUTCOMES = {COL.error_code, COL.http_status, COL.expected_answer, COL.retries}
_TIMES = {COL.started_at, COL.queue_s, COL.held_s, COL.connect_s, COL.end_to_end_latency_s, COL.last_token_s}
_TOKENS = {COL.output_tokens, COL.input_tokens, COL.cached_tokens, COL.reasoning_tokens}
_WINDOW = {COL.window_tokens, COL.window_share, COL.worker}
_CHUNKS = {COL.chunks, COL.coalesced, COL.first_coalesced, COL.gap_max_s, COL.prompt_index}
_KINDS = {kind.column for kind in KINDS.values()}
_NAMES = _KINDS | _LOAD | _GROUPS | _OUTCOMES | _TIMES | _TOKENS | _WINDOW | _CHUNKS

JUDGED_COLUMNS = tuple(column.name for column in REQUEST_COLUMNS if column.name in _NAMES)
