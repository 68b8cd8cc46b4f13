"""The table of engines: the names under which each engine publishes the metrics of ``llm_users.server_metric``.

Sources of the names: vLLM 0.32 and llama.cpp as their servers print them; SGLang, TGI, Triton with TensorRT-LLM and the
DCGM exporter from their documentation and sources. An older name follows the current one. "triton" is Triton with
TensorRT-LLM (``nv_...``) and trtllm-serve (``trtllm_...``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llm_users.server_metric import E2E, ITL, TPOT, TTFT


@dataclass(frozen=True, slots=True)
class Source:
    """Where an engine publishes a metric.

    ``sample`` is the name of the sample (of a histogram: without ``_bucket``), ``scale`` the factor from its unit to
    ours, and ``labels`` the labels that it must have.
    """

    sample: str
    scale: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)


def _names(*samples: str) -> tuple[Source, ...]:
    return tuple(map(Source, samples))


ENGINES: Mapping[str, Mapping[str, tuple[Source, ...]]] = {
    "vllm": {
        "requests_running": _names("vllm:num_requests_running"),
        "requests_waiting": _names("vllm:num_requests_waiting"),
        "kv_cache_usage": _names("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        "preemptions": _names("vllm:num_preemptions_total", "vllm:num_preemptions"),
        "prefix_cache_queries": _names("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
        "prefix_cache_hits": _names("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
        "prompt_tokens": _names("vllm:prompt_tokens_total"),
        "cached_prompt_tokens": _names("vllm:prompt_tokens_cached_total"),
        "generation_tokens": _names("vllm:generation_tokens_total"),
        "draft_tokens": _names("vllm:spec_decode_num_draft_tokens_total"),
        "accepted_tokens": _names("vllm:spec_decode_num_accepted_tokens_total"),
        "requests_finished": _names("vllm:request_success_total"),
        TTFT: _names("vllm:time_to_first_token_seconds"),
        ITL: _names("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
        TPOT: _names("vllm:request_time_per_output_token_seconds"),
        E2E: _names("vllm:e2e_request_latency_seconds"),
        "queue_time_s": _names("vllm:request_queue_time_seconds"),
        "prefill_time_s": _names("vllm:request_prefill_time_seconds"),
        "decode_time_s": _names("vllm:request_decode_time_seconds"),
    },
    "sglang": {
        "requests_running": _names("sglang:num_running_reqs"),
        "requests_waiting": _names("sglang:num_queue_reqs"),
        "kv_cache_usage": _names("sglang:token_usage"),
        "preemptions": _names("sglang:num_retracted_requests_total"),
        "speculative_acceptance": _names("sglang:spec_accept_rate"),
        "prompt_tokens": _names("sglang:prompt_tokens_total"),
        "cached_prompt_tokens": _names("sglang:cached_tokens_total"),
        "generation_tokens": _names("sglang:generation_tokens_total"),
        "requests_finished": _names("sglang:num_requests_total"),
        TTFT: _names("sglang:time_to_first_token_seconds"),
        ITL: _names("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"),
        E2E: _names("sglang:e2e_request_latency_seconds"),
        "queue_time_s": _names("sglang:queue_time_seconds"),
    },
    "llamacpp": {
        "requests_running": _names("llamacpp:requests_processing"),
        "requests_waiting": _names("llamacpp:requests_deferred"),
        "kv_cache_usage": _names("llamacpp:kv_cache_usage_ratio"),
        "prompt_tokens": _names("llamacpp:prompt_tokens_total"),
        "cached_prompt_tokens": _names("llamacpp:prompt_tokens_cached_total"),
        "generation_tokens": _names("llamacpp:tokens_predicted_total"),
        "draft_tokens": _names("llamacpp:spec_decode_num_draft_tokens_total"),
        "accepted_tokens": _names("llamacpp:spec_decode_num_accepted_tokens_total"),
    },
    "tgi": {
        "requests_running": _names("tgi_batch_current_size"),
        "requests_waiting": _names("tgi_queue_size"),
        "prompt_tokens": _names("tgi_request_input_length_sum"),
        "generation_tokens": _names("tgi_request_generated_tokens_sum"),
        "requests_finished": _names("tgi_request_success"),
        # tgi_request_mean_time_per_token_duration includes the prefill, so it is not a time per output token.
        E2E: _names("tgi_request_duration"),
        "queue_time_s": _names("tgi_request_queue_duration"),
    },
    "triton": {
        "requests_running": (
            Source("nv_trt_llm_request_metrics", labels={"request_type": "scheduled"}),
            Source("trtllm_num_requests_running"),
        ),
        "requests_waiting": (
            Source("nv_trt_llm_request_metrics", labels={"request_type": "waiting"}),
            Source("trtllm_num_requests_waiting"),
            Source("nv_inference_pending_request_count"),
        ),
        "kv_cache_usage": (
            Source("nv_trt_llm_kv_cache_block_metrics", labels={"kv_cache_block_type": "fraction"}),
            Source("trtllm_kv_cache_utilization"),
        ),
        "prefix_cache_hit_rate": _names("trtllm_kv_cache_hit_rate"),
        "prompt_tokens": _names("trtllm_prompt_tokens_total"),
        "cached_prompt_tokens": _names("trtllm_prompt_cached_tokens_total"),
        "draft_tokens": _names("trtllm_spec_decode_drafted_tokens_total"),
        "accepted_tokens": _names("trtllm_spec_decode_accepted_tokens_total"),
        "requests_finished": _names("trtllm_request_success_total"),
        TTFT: (
            Source("nv_inference_first_response_histogram_ms", 1e-3),
            Source("trtllm_time_to_first_token_seconds"),
        ),
        TPOT: _names("trtllm_time_per_output_token_seconds"),
        E2E: _names("trtllm_e2e_request_latency_seconds"),
        "queue_time_s": _names("trtllm_request_queue_time_seconds"),
        "gpu_utilization": _names("nv_gpu_utilization"),
        "gpu_memory_bytes": _names("nv_gpu_memory_used_bytes"),
        "gpu_power_w": _names("nv_gpu_power_usage"),
    },
    "dcgm": {
        "gpu_utilization": (Source("DCGM_FI_DEV_GPU_UTIL", 1e-2),),
        "gpu_memory_bytes": (Source("DCGM_FI_DEV_FB_USED", 1024.0 * 1024.0),),
        "gpu_power_w": _names("DCGM_FI_DEV_POWER_USAGE"),
    },
}
"""The metrics of each engine. The first source that a server publishes is used."""

ADDED: Mapping[str, Mapping[str, str]] = {"llamacpp": {"prompt_tokens": "cached_prompt_tokens"}}
"""Counters of an engine that leave out a part, which is another counter: llama.cpp's prompt tokens are the computed
ones."""
