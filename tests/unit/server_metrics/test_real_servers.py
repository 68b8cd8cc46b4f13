"""The metrics of real servers as received, trimmed: every value that the reader returns equals the one in the text."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from llm_users.server_metrics.exposition import engine_of, read

REAL = Path(__file__).with_name("real")
CLASSIC = "text/plain; version=0.0.4"

VALUES = {
    "llama_cpp.txt": {
        "requests_running": "llamacpp:requests_processing",
        "requests_waiting": "llamacpp:requests_deferred",
        "cached_prompt_tokens": "llamacpp:prompt_tokens_cached_total",
        "generation_tokens": "llamacpp:tokens_predicted_total",
    },
    "vllm_0_32.txt": {
        "requests_running": "vllm:num_requests_running",
        "requests_waiting": "vllm:num_requests_waiting",
        "kv_cache_usage": "vllm:kv_cache_usage_perc",
        "prompt_tokens": "vllm:prompt_tokens_total",
        "generation_tokens": "vllm:generation_tokens_total",
    },
}
"""Our names and the names of the servers."""

HISTOGRAMS = {
    "ttft_s": "vllm:time_to_first_token_seconds",
    "tpot_s": "vllm:request_time_per_output_token_seconds",
    "e2e_s": "vllm:e2e_request_latency_seconds",
}


def value_in(text: bytes, name: str) -> float:
    """The sum of all lines of a sample."""
    lines = [line.split() for line in text.decode().splitlines() if not line.startswith("#")]
    values = [float(line[-1]) for line in lines if line[0].partition("{")[0] == name]
    assert values, name
    return math.fsum(values)


@pytest.mark.parametrize("file", VALUES)
def test_values_of_real_servers_are_read(file: str) -> None:
    text = (REAL / file).read_bytes()
    engine = engine_of(text)
    assert engine == {"llama_cpp.txt": "llamacpp", "vllm_0_32.txt": "vllm"}[file]
    reading = read(text, CLASSIC, engine=engine, histograms=True)
    for ours, theirs in VALUES[file].items():
        assert reading.values[ours] == value_in(text, theirs), ours
    assert reading.values["generation_tokens"] > 0


def test_prompt_tokens_of_llama_cpp_include_the_cached_ones() -> None:
    """Its counter has only the computed ones; the rest of the project counts all."""
    text = (REAL / "llama_cpp.txt").read_bytes()
    computed, cached = (value_in(text, f"llamacpp:prompt_tokens{part}_total") for part in ("", "_cached"))
    assert cached > 0
    assert read(text, CLASSIC, engine="llamacpp", histograms=True).values["prompt_tokens"] == computed + cached


def test_histograms_of_a_real_vllm_are_read() -> None:
    text = (REAL / "vllm_0_32.txt").read_bytes()
    histograms = read(text, CLASSIC, engine="vllm", histograms=True).histograms
    for ours, theirs in HISTOGRAMS.items():
        histogram = histograms[ours]
        assert histogram.count == value_in(text, f"{theirs}_count") > 0
        assert histogram.total == value_in(text, f"{theirs}_sum")
        assert max(histogram.buckets) == math.inf
        assert dict(histogram.buckets)[math.inf] == histogram.count
