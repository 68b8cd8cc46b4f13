"""What a real Prometheus stores of a run equals the summary of the run; `pytest -s` prints the figures."""

from __future__ import annotations

import csv
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.dashboard import expressions
from tests.system.runs.live.conftest import Starter
from tests.system.runs.live.prometheus_server import CONFIG, Prometheus, program
from tests.system.runs.live.test_live_run import is_over

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program("prometheus") is None, reason="needs the program prometheus"),
]

SWEEP, STAGE_S = (2, 4), 12
BUCKET = 1.6  # a bound is at most 1.6 times the one before
HISTOGRAMS = {
    "ttft_s": "locust_llm_time_to_first_token_seconds",
    "tpot_s": "locust_llm_time_per_output_token_seconds",
    "end_to_end_latency_s": "locust_llm_request_duration_seconds",
}


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with launch("ttft=50ms,itl=5ms,jitter=0.5,error=503:0.05", max_seconds=120) as running:
        yield running


def test_prometheus_has_the_counts_the_percentiles_and_the_rates_of_the_summary(
    web: Starter, simulator: Simulator, tmp_path: Path
) -> None:
    page = web("--llm-output-tokens", "20,1")
    server = Prometheus(tmp_path, page.base.removeprefix("http://"))
    try:
        server.until(lambda: server.query("locust_llm_stage") != [], "the first scrape")
        form = {"host": simulator.url, "llm_sweep": ",".join(map(str, SWEEP)), "llm_stage_time": f"{STAGE_S}s"}
        assert page.swarm(**form)["success"]
        page.until(is_over, "the end of the run", timeout_s=60)
        rows = page.running.finished_rows("requests")
        server.until(lambda: server.one("sum(locust_llm_requests_total)") == len(rows), "the scrape of the last rows")
        text = page.ask("/llm/metrics")[1].decode()
        stages = {int(row["stage"]): row for row in page.running.finished_rows("stages")}
        lines = list(csv.DictReader(page.ask("/llm/download/summary.csv")[1].decode().splitlines()))
        for stage, users in enumerate(SWEEP, 1):
            summary = {line["metric"]: line for line in lines if int(line["stage"] or 0) == stage}
            agrees(server, summary, stage, float(stages[stage]["measure_started_at"]), users)
        runs_every_expression(server, float(stages[2]["measure_started_at"]) + STAGE_S - 1)
        page.end()
    finally:
        server.stop()
    checked_by_promtool(text)


def agrees(server: Prometheus, summary: dict[str, dict[str, str]], stage: int, began_s: float, users: int) -> None:
    labels = f'stage="{stage}", measured="true"'
    counted = {
        metric["outcome"]: value
        for metric, value in server.query(f"sum by (outcome) (locust_llm_requests_total{{{labels}}})")
    }
    counts = {outcome: int(float(summary[f"requests_{outcome}"]["mean"])) for outcome in ("ok", "failed", "aborted")}
    print(f"\nstage {stage}, Prometheus / summary.csv")
    for outcome, count in counts.items():
        print(f"  requests {outcome}: {counted[outcome]:g} / {count}")
        assert counted[outcome] == count
    assert counts["ok"] > 100
    for metric, name in HISTOGRAMS.items():
        selected = f"{name}_bucket{{{labels}}}"
        line = summary[metric]
        assert server.one(f"{name}_count{{{labels}}}") == int(line["n"])
        mean_s = server.one(f"{name}_sum{{{labels}}} / {name}_count{{{labels}}}")
        print(f"  {metric} mean: {mean_s:.6f} / {float(line['mean']):.6f}")
        assert mean_s == pytest.approx(float(line["mean"]), rel=1e-4)
        for figure, q in (("median", 0.5), ("p95", 0.95), ("p99", 0.99)):
            estimate_s, exact_s = server.one(f"histogram_quantile({q}, sum by (le) ({selected}))"), float(line[figure])
            print(f"  {metric} {figure}: {estimate_s:.4f} / {exact_s:.4f}")
            assert exact_s / BUCKET <= estimate_s <= exact_s * BUCKET
    # The last seconds of a stage, in which nothing begins or ends.
    at_s = began_s + STAGE_S - 1
    rate = server.one(f'sum(rate(locust_llm_requests_total{{{labels}, outcome="ok"}}[8s]))', at_s)
    whole = float(summary["request_throughput_per_s"]["mean"])
    print(f"  successful requests/s: {rate:.2f} over 8 s / {whole:.2f} over {STAGE_S} s")
    assert rate == pytest.approx(whole, rel=0.15)
    tokens = server.one("rate(locust_llm_arrived_tokens_total[8s])", at_s)
    throughput = float(summary["output_throughput_token_per_s"]["mean"])
    print(f"  output tokens/s: {tokens:.1f} over 8 s / {throughput:.1f} over {STAGE_S} s")
    assert tokens == pytest.approx(throughput, rel=0.15)
    assert server.one("locust_llm_stage", at_s) == stage
    assert server.one("locust_llm_target_users", at_s) == users
    assert server.one("max_over_time(locust_llm_requests_in_flight[8s])", at_s) == users
    assert server.one('locust_llm_phase{phase="measure"}', at_s) == 1


def runs_every_expression(server: Prometheus, at_s: float) -> None:
    """Each expression of the dashboard has a value in the middle of a stage."""
    for title, expression in expressions():
        result = server.query(expression, at_s)
        has_value = any(math.isfinite(value) for _, value in result)
        assert has_value or "target_requests_per_second" in expression or title == "Stages", (title, expression)


def checked_by_promtool(text: str) -> None:
    promtool = program("promtool")
    assert promtool is not None
    for arguments, given in ((["check", "metrics"], text), (["check", "config", str(CONFIG)], "")):
        done = subprocess.run([promtool, *arguments], input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
