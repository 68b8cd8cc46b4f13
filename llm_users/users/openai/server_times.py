"""Read the server's own times for one answer, in the forms of llama.cpp, Groq, Cerebras and TGI.

The times are in the last event of a stream, in the body of a whole answer, or in its headers. The module does not
depend on the transport or on Locust.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_users.record import RequestRecord
from llm_users.users.token_counts import count

MOST_S = 1e6
"""Limit on a time of the server, in seconds (eleven days). A larger value, such as infinity, is not a time."""

_MS = 1e-3
_TGI_TOTAL, _TGI_INFERENCE = "x-total-time", "x-inference-time"


def fill_llama_timings(record: RequestRecord, timings: Any) -> None:
    """Fill the columns from ``timings`` of llama.cpp's server.

    ``prompt_ms`` is the time from the start of the prompt's processing to the first token, and ``predicted_ms`` the
    time from the first token to the last. The time in the server's queue is in neither.
    """
    if not isinstance(timings, dict):
        return
    prompt_s, predicted_s = _time(timings.get("prompt_ms"), _MS), _time(timings.get("predicted_ms"), _MS)
    if prompt_s is None or predicted_s is None:
        return
    record.server_ttft_s, record.server_latency_s = prompt_s, prompt_s + predicted_s
    if record.cached_tokens is None:
        record.cached_tokens = count(timings.get("cache_n"))


def fill_phase_times(record: RequestRecord, times: Any) -> None:
    """Fill the columns from the times of the phases of a request in seconds: Groq's usage, Cerebras' ``time_info``.

    The time to first token is ``queue_time`` + ``prompt_time``. Groq's ``total_time`` does not contain
    ``queue_time``, and Cerebras' does, so the latency is the larger value of ``total_time`` and the sum of the phases.
    """
    if not isinstance(times, dict):
        return
    prompt_s, completion_s = _time(times.get("prompt_time")), _time(times.get("completion_time"))
    if prompt_s is None or completion_s is None:
        return
    first_s = (_time(times.get("queue_time")) or 0.0) + prompt_s
    record.server_ttft_s = first_s
    record.server_latency_s = max(first_s + completion_s, _time(times.get("total_time")) or 0.0)


def fill_tgi_headers(record: RequestRecord, headers: Mapping[str, str]) -> None:
    """Fill ``server_latency_s`` from the headers of TGI, which only whole answers have. Their values are in ms."""
    if _TGI_INFERENCE not in headers:  # other servers use the name x-total-time in other units
        return
    try:
        total_s = _time(float(headers.get(_TGI_TOTAL, "")), _MS)
    except ValueError:
        return
    if total_s is not None:
        record.server_latency_s = total_s


def _time(value: Any, unit_s: float = 1.0) -> float | None:
    """Return the value in seconds; None if it is not a time. Some servers send -1 for an unknown time."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value * unit_s < MOST_S:
        return None
    return float(value) * unit_s
