"""Texts of real servers, of older versions, and of hostile ones."""

from __future__ import annotations

import statistics
import time

import pytest

from llm_users.server_metric import METRICS, RATIOS
from llm_users.server_metrics.engines import ENGINES
from llm_users.server_metrics.exposition import NotMetrics, engine_of, read

CLASSIC, OPEN = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0; charset=utf-8"

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a \\"b\\" # {c}"} 3.0
vllm:num_requests_running{engine="1",model_name="other"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 0.25
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{reason="capacity"} 9.0
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0"} 1000.0
vllm:generation_tokens_total{engine="1"} 24.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 3.0
vllm:time_to_first_token_seconds_count{engine="0"} 3.0
vllm:time_to_first_token_seconds_sum{engine="0"} 0.75
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf"} 1.0
vllm:time_to_first_token_seconds_count{engine="1"} 1.0
vllm:time_to_first_token_seconds_sum{engine="1"} 0.05
"""


@pytest.mark.parametrize("content_type", [CLASSIC, OPEN, ""])
def test_label_sets_are_added_up_and_shares_averaged(content_type: str) -> None:
    assert engine_of(VLLM) == "vllm"
    reading = read(VLLM, content_type, engine="vllm", histograms=True)
    assert reading.values == {"requests_running": 7.0, "kv_cache_usage": 0.375, "generation_tokens": 1024.0}
    histogram = reading.histograms["ttft_s"]
    assert (histogram.count, histogram.total) == (4.0, 0.8)
    assert dict(histogram.buckets) == {0.1: 3.0, float("inf"): 4.0}


def test_without_histograms_their_lines_are_not_read() -> None:
    assert read(VLLM, CLASSIC, engine="vllm", histograms=False).histograms == {}


def test_exemplars_of_openmetrics_are_left_out() -> None:
    text = VLLM.replace(b'le="0.1"} 2.0', b'le="0.1"} 2.0 # {trace_id="x"} 0.05 1.0')
    assert read(text, OPEN, engine="vllm", histograms=True).histograms["ttft_s"].count == 4.0


def test_older_names_are_used_if_the_newer_are_missing() -> None:
    old = (
        b"vllm:gpu_cache_usage_perc 0.5\n"
        b"vllm:time_per_output_token_seconds_count 2\nvllm:time_per_output_token_seconds_sum 1\n"
    )
    reading = read(old, CLASSIC, engine="vllm", histograms=True)
    assert reading.values["kv_cache_usage"] == 0.5
    assert reading.histograms["itl_s"].total == 1.0
    both = old + b"vllm:kv_cache_usage_perc 0.75\n"
    assert read(both, CLASSIC, engine="vllm", histograms=True).values["kv_cache_usage"] == 0.75


@pytest.mark.parametrize(
    ("text", "engine", "values"),
    [
        (
            b"sglang:num_running_reqs 2\nsglang:token_usage 0.25\n",
            "sglang",
            {"requests_running": 2, "kv_cache_usage": 0.25},
        ),
        # llama.cpp counts only the computed prompt tokens in prompt_tokens_total.
        (
            b"llamacpp:prompt_tokens_total 10\nllamacpp:prompt_tokens_cached_total 30\n"
            b"llamacpp:requests_processing 1\n",
            "llamacpp",
            {"prompt_tokens": 40, "cached_prompt_tokens": 30, "requests_running": 1},
        ),
        (b"tgi_queue_size 4\ntgi_request_input_length_sum 99\n", "tgi", {"requests_waiting": 4, "prompt_tokens": 99}),
        (
            b'nv_trt_llm_request_metrics{request_type="waiting"} 5\n'
            b'nv_trt_llm_request_metrics{request_type="active"} 9\n'
            b'nv_trt_llm_request_metrics{request_type="scheduled"} 6\n',
            "triton",
            {"requests_waiting": 5, "requests_running": 6},
        ),
        (
            b'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 50\nDCGM_FI_DEV_GPU_UTIL{gpu="1"} 100\nDCGM_FI_DEV_FB_USED{gpu="0"} 2\n'
            b'DCGM_FI_DEV_POWER_USAGE{gpu="0"} 200\nDCGM_FI_DEV_POWER_USAGE{gpu="1"} 250.5\n',
            "dcgm",
            {"gpu_utilization": 0.75, "gpu_memory_bytes": 2 * 1024**2, "gpu_power_w": 450.5},
        ),
    ],
)
def test_engines(text: bytes, engine: str, values: dict[str, float]) -> None:
    assert engine_of(text) == engine
    assert read(text, CLASSIC, engine=engine, histograms=True).values == pytest.approx(values)


@pytest.mark.parametrize("body", [b"", b"<html>vllm:num_requests_running 3</html>", b"\x00\xff" * 1000, b"go_gc 1\n"])
def test_text_without_known_samples_has_no_engine(body: bytes) -> None:
    assert engine_of(body) is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e400"])
def test_values_that_are_not_finite_are_left_out(value: str) -> None:
    text = f"vllm:num_requests_running {value}\nvllm:num_requests_waiting 2\n".encode()
    assert read(text, CLASSIC, engine="vllm", histograms=True).values == {"requests_waiting": 2}


@pytest.mark.parametrize(
    "line",
    [
        b"vllm:num_requests_running three",
        b"vllm:num_requests_running{model=unquoted} 3",
        b'vllm:num_requests_running{model="open',
        b'vllm:time_to_first_token_seconds_bucket{le="x"} 3\nvllm:time_to_first_token_seconds_count 1',
    ],
)
def test_broken_lines_are_one_error(line: bytes) -> None:
    with pytest.raises(NotMetrics, match="answers with"):
        read(line + b"\n", CLASSIC, engine="vllm", histograms=True)


@pytest.mark.parametrize(
    "text",
    [
        'vllm:num_requests_running{e="1"} 1e308\nvllm:num_requests_running{e="2"} 1e308\n',
        "vllm:num_requests_running -5\n",
        "vllm:kv_cache_usage_perc 42\n",
        "vllm:generation_tokens_total -1\n",
    ],
)
def test_impossible_values_are_left_out(text: str) -> None:
    assert read(text.encode(), CLASSIC, engine="vllm", histograms=True).values == {}


def test_values_that_are_too_large_after_scaling_are_left_out() -> None:
    assert read(b"DCGM_FI_DEV_FB_USED 1e308\n", CLASSIC, engine="dcgm", histograms=True).values == {}


def test_a_histogram_that_is_not_finite_is_left_out() -> None:
    text = VLLM.replace(b'_sum{engine="0"} 0.75', b'_bucket{engine="0",le="1"} NaN')
    assert read(text, CLASSIC, engine="vllm", histograms=True).histograms == {}


def test_a_long_line_is_refused_before_it_is_parsed() -> None:
    line = b'vllm:num_requests_running{m="' + b'\\"' * 400_000 + b'"} 1\n'
    began_s = time.perf_counter()
    with pytest.raises(NotMetrics, match="a line of more than 4096 bytes"):
        read(line, CLASSIC, engine="vllm", histograms=False)
    assert time.perf_counter() - began_s < 0.5


def test_a_flood_of_label_sets_is_refused_before_it_is_parsed() -> None:
    flood = b"".join(b'vllm:num_requests_running{m="%d"} 1\n' % number for number in range(90_000))
    assert len(flood) < 4 * 2**20
    began_s = time.perf_counter()
    with pytest.raises(NotMetrics, match="90000 lines"):
        read(flood, CLASSIC, engine="vllm", histograms=False)
    assert time.perf_counter() - began_s < 0.5


def test_a_sample_of_50_kb_takes_at_most_a_millisecond() -> None:
    other = b"".join(
        b'# HELP other_%d text\n# TYPE other_%d gauge\nother_%d{a="b"} 1\n' % (number, number, number)
        for number in range(700)
    )
    text = VLLM + other
    assert 45_000 < len(text) < 60_000
    took_s = []
    for _ in range(21):
        began_s = time.process_time()
        read(text, CLASSIC, engine="vllm", histograms=False)
        took_s.append(time.process_time() - began_s)
    assert statistics.median(took_s) < 0.001


def test_the_tables_agree() -> None:
    used = {name for sources in ENGINES.values() for name in sources}
    assert used | set(RATIOS) == set(METRICS)
    for name, pairs in RATIOS.items():
        assert {name, *(part for pair in pairs for part in pair)} <= set(METRICS)
