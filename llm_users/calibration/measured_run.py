"""Compares the rows of a run with the server's log: the client's errors, its CPU cost, and the run conditions."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from llm_users.calibration.load import Load, Rows, RunError, run_load
from llm_users.calibration.other_programs import OtherPrograms
from llm_users.calibration.truth import Endpoint, Sent, SimulatorEndpoint, Timing, Truth
from llm_users.outcome import BUFFERED, Outcome, outcome_of
from llm_users.quantile import quantile
from llm_users.record import COL


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run: errors relative to the server's own send times, CPU cost, and the run conditions."""

    server: str
    requests: int
    failed: int
    miscounted: int
    ttft_p50_s: float
    ttft_p99_s: float
    span_p99_s: float
    cpu_per_token_s: float
    cpu_share: float
    tokens_per_s: float
    rate: float
    health: str
    stamp_source: str
    late_p99_s: float
    server_cpu_per_token_s: float
    other_cores: float


def measure(load: Load, start: Callable[[Timing, Path], Endpoint] = SimulatorEndpoint) -> MeasuredRun:
    """Run the load once against a new server and compare its rows with the server's log. Raises ``RunError``."""
    with tempfile.TemporaryDirectory(prefix="llm-bench-") as name:
        folder = Path(name)
        other_cores = OtherPrograms()
        endpoint = start(load.timing, folder)
        try:
            rows = run_load(load, endpoint.url, folder)
            truth = endpoint.truth()
        finally:
            endpoint.stop()
        return _outcome(load, endpoint.kind, rows, truth, other_cores.cores())


def _outcome(load: Load, server: str, rows: Rows, truth: Truth, other_cores: float) -> MeasuredRun:
    measured = [row for row in rows.requests if row["measured"] == "1"]
    if len(measured) != load.requests:
        raise RunError(f"the run has {len(measured)} measured rows instead of {load.requests}")
    good = [
        row for row in measured if outcome_of(row[COL.error_code]) is Outcome.OK and row[COL.error_code] != BUFFERED
    ]
    if not good:
        raise RunError(f"every request failed, the first with: {measured[0][COL.error_message]}")
    pairs = [(row, _sent(truth, row[COL.response_id])) for row in good]
    ttft_errors_s = _ordered(_ttft_error_s(row, sent) for row, sent in pairs)
    span_errors_s = _ordered(_span_error_s(row, sent) for row, sent in pairs)
    tokens, stage = str(load.timing.tokens), rows.stage
    latencies_s = [float(row[COL.queue_s]) + float(row[COL.end_to_end_latency_s]) for row in good]
    window_tokens = float(stage[COL.window_tokens])
    return MeasuredRun(
        server=server,
        requests=load.requests,
        failed=len(measured) - len(good),
        miscounted=sum(row[COL.output_tokens] != tokens or row["chunks"] != tokens for row in good),
        ttft_p50_s=quantile(ttft_errors_s, 0.5),
        ttft_p99_s=quantile(ttft_errors_s, 0.99),
        span_p99_s=quantile(span_errors_s, 0.99),
        cpu_per_token_s=float(stage["client_cpu_s"]) / window_tokens if window_tokens else math.nan,
        cpu_share=float(stage[COL.client_cpu_share_max] or math.nan),
        tokens_per_s=float(stage[COL.output_throughput_token_per_s] or math.nan),
        rate=load.timing.answer_s / (sum(latencies_s) / len(latencies_s)),
        health=stage["health"],
        stamp_source=stage[COL.stamp_source],
        late_p99_s=truth.late_p99_s,
        server_cpu_per_token_s=truth.cpu_per_token_s,
        other_cores=other_cores,
    )


def _sent(truth: Truth, response_id: str) -> Sent:
    try:
        return truth.sent[response_id]
    except KeyError:
        raise RunError(f"the server's log has no answer {response_id!r}, but the worker has its row") from None


def _ttft_error_s(row: dict[str, str], sent: Sent) -> float:
    """Return the absolute difference between the client's TTFT and the server's time from request to first token."""
    return abs(float(row[COL.ttft_s]) - (sent.first_ns - sent.received_ns) / 1e9)


def _span_error_s(row: dict[str, str], sent: Sent) -> float:
    """Return the absolute difference between the client's and the server's time from first to last token."""
    return abs(float(row[COL.last_token_s]) - float(row[COL.ttft_s]) - (sent.last_ns - sent.first_ns) / 1e9)


def _ordered(values: Iterable[float]) -> list[float]:
    return sorted(values)
