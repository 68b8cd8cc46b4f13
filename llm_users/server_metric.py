"""The metrics that inference servers publish about themselves, under the names of this project.

Both the load side, which reads the servers, and the report use the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"


TTFT, TPOT, ITL, E2E = "ttft_s", "tpot_s", "itl_s", "e2e_s"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric under our name.

    ``averaged``: the label sets of one server (engines, models, GPUs) are averaged; otherwise they are added up.
    """

    kind: str
    unit: str
    meaning: str
    averaged: bool = False


METRICS: Mapping[str, Metric] = {
    "requests_running": Metric(GAUGE, "requests", "requests that the server computes"),
    "requests_waiting": Metric(GAUGE, "requests", "requests in the server's queue"),
    "kv_cache_usage": Metric(GAUGE, "share", "used share of the KV cache", averaged=True),
    "preemptions": Metric(COUNTER, "count", "requests that lost their place in the KV cache and are computed again"),
    "prefix_cache_queries": Metric(COUNTER, "tokens", "prompt tokens that were looked up in the prefix cache"),
    "prefix_cache_hits": Metric(COUNTER, "tokens", "prompt tokens that were found there"),
    "prefix_cache_hit_rate": Metric(
        GAUGE,
        "share",
        "prefix_cache_hits / prefix_cache_queries, or cached_prompt_tokens / prompt_tokens",
        averaged=True,
    ),
    "prompt_tokens": Metric(COUNTER, "tokens", "prompt tokens"),
    "cached_prompt_tokens": Metric(COUNTER, "tokens", "prompt tokens that were read from a cache"),
    "generation_tokens": Metric(COUNTER, "tokens", "generated tokens"),
    "draft_tokens": Metric(COUNTER, "tokens", "tokens that speculative decoding proposed"),
    "accepted_tokens": Metric(COUNTER, "tokens", "proposed tokens that the model accepted"),
    "speculative_acceptance": Metric(GAUGE, "share", "accepted_tokens / draft_tokens", averaged=True),
    "requests_finished": Metric(COUNTER, "requests", "requests that ended"),
    TTFT: Metric(HISTOGRAM, "s", "time from the arrival of a request to its first token"),
    ITL: Metric(HISTOGRAM, "s", "time from one output to the next, one value for each"),
    TPOT: Metric(HISTOGRAM, "s", "time per output token after the first, one value for each request"),
    E2E: Metric(HISTOGRAM, "s", "time from the arrival of a request to its end"),
    "queue_time_s": Metric(HISTOGRAM, "s", "time of a request in the server's queue"),
    "prefill_time_s": Metric(HISTOGRAM, "s", "time of the computation before the first token"),
    "decode_time_s": Metric(HISTOGRAM, "s", "time from the first to the last token"),
    "gpu_utilization": Metric(GAUGE, "share", "share of the time in which the GPU computes", averaged=True),
    "gpu_memory_bytes": Metric(GAUGE, "bytes", "used memory of all GPUs"),
    "gpu_power_w": Metric(GAUGE, "W", "power of all GPUs"),
}
"""All metrics, in the order of the file and of the tables."""

RATIOS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "prefix_cache_hit_rate": (("prefix_cache_hits", "prefix_cache_queries"), ("cached_prompt_tokens", "prompt_tokens")),
    "speculative_acceptance": (("accepted_tokens", "draft_tokens"),),
}
"""Shares that follow from the increases of two counters over a stage, unless the server publishes the share itself. The
first pair that the server publishes is used."""
