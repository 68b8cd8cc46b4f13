"""What an inference server counts about itself, and its text for Prometheus (``metrics=vllm``).

The values come from the log entries of the requests, so the log and ``/metrics`` agree exactly. The names and the
buckets are those of vLLM 0.32. The simulator serves all requests at once: ``num_requests_waiting`` is always 0, and
``kv_cache_usage_perc`` is the used share of ``capacity``.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from llm_users.simulator.log import Entry
from llm_users.simulator.spec import Spec

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TTFT_S = (
    .001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0,
    2560.0,
)  # fmt: skip
_TOKEN_S = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)  # fmt: skip
_REQUEST_S = (
    .3, .5, .8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0,
    7680.0,
)  # fmt: skip
_REASONS = {"completed": "length", "aborted": "abort"}
"""The finished_reason by the outcome in the log. All other outcomes are errors."""


class _Histogram:
    def __init__(self, name: str, bounds: Sequence[float]) -> None:
        self.name = name
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, labels: str) -> Iterator[str]:
        yield f"# TYPE {self.name} histogram"
        total = 0
        for bound, count in zip([*map(repr, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            yield f'{self.name}_bucket{{{labels},le="{bound}"}} {total:.1f}'
        yield f"{self.name}_count{{{labels}}} {total:.1f}"
        yield f"{self.name}_sum{{{labels}}} {self._sum!r}"


class ServerMetrics:
    """The counters, gauges and histograms of one endpoint since it began to listen."""

    def __init__(self, spec: Spec) -> None:
        self._capacity = spec.capacity
        self._started_s = time.time()
        model = spec.model.replace("\\", r"\\").replace('"', r"\"")
        self._labels = f'engine="0",model_name="{model}"'
        self._prompt_tokens = 0
        self._finished = dict.fromkeys(("stop", "length", "abort", "error"), 0)
        self._ttft_s = _Histogram("vllm:time_to_first_token_seconds", _TTFT_S)
        self._gaps_s = _Histogram("vllm:inter_token_latency_seconds", _TOKEN_S)
        self._tpot_s = _Histogram("vllm:request_time_per_output_token_seconds", _TOKEN_S)
        self._latency_s = _Histogram("vllm:e2e_request_latency_seconds", _REQUEST_S)
        self._queue_s = _Histogram("vllm:request_queue_time_seconds", _REQUEST_S)
        self._prefill_s = _Histogram("vllm:request_prefill_time_seconds", _REQUEST_S)
        self._decode_s = _Histogram("vllm:request_decode_time_seconds", _REQUEST_S)

    def started(self, prompt_tokens: int) -> None:
        """Count the prompt of a request that is served."""
        self._prompt_tokens += prompt_tokens

    def ended(self, entry: Entry) -> None:
        """Count a served request from its log entry.

        As in vLLM, a request of a client that hung up counts for the time to its first token and in no other
        histogram.
        """
        self._finished[_REASONS.get(entry.outcome, "error")] += 1
        if entry.first_ns is None or entry.last_ns is None:
            return
        ttft_s, decode_s = (entry.first_ns - entry.received_ns) / 1e9, (entry.last_ns - entry.first_ns) / 1e9
        self._ttft_s.observe(ttft_s)
        if entry.outcome == "aborted":
            return
        for earlier_ns, later_ns in zip(entry.sent_ns, entry.sent_ns[1:], strict=False):
            self._gaps_s.observe((later_ns - earlier_ns) / 1e9)
        if entry.tokens > 1:
            self._tpot_s.observe(decode_s / (entry.tokens - 1))
        self._latency_s.observe(ttft_s + decode_s)
        self._queue_s.observe(0.0)
        self._prefill_s.observe(ttft_s)
        self._decode_s.observe(decode_s)

    def text(self, *, running: int, generation_tokens: int) -> bytes:
        """Return the metrics in Prometheus' text format."""
        usage = min(1.0, running / self._capacity) if self._capacity else 0.0
        lines = [
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self._started_s!r}",
            *self._lines("vllm:num_requests_running", "gauge", running),
            *self._lines("vllm:num_requests_waiting", "gauge", 0),
            *self._lines("vllm:kv_cache_usage_perc", "gauge", usage),
            *self._lines("vllm:num_preemptions_total", "counter", 0),
            *self._lines("vllm:prompt_tokens_total", "counter", self._prompt_tokens),
            *self._lines("vllm:generation_tokens_total", "counter", generation_tokens),
            "# TYPE vllm:request_success_total counter",
        ]
        for reason, count in self._finished.items():
            lines.append(f'vllm:request_success_total{{{self._labels},finished_reason="{reason}"}} {count:.1f}')
        for histogram in (
            self._ttft_s,
            self._gaps_s,
            self._tpot_s,
            self._latency_s,
            self._queue_s,
            self._prefill_s,
            self._decode_s,
        ):
            lines += histogram.lines(self._labels)
        return "\n".join([*lines, ""]).encode()

    def _lines(self, name: str, kind: str, value: float) -> Iterator[str]:
        yield f"# TYPE {name} {kind}"
        yield f"{name}{{{self._labels}}} {float(value)!r}"
