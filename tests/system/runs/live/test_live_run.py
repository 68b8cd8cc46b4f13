"""What the LLM tab is told while a run goes on and after it, by a real Locust over real HTTP."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.metrics.groups import LATENCY, OUTPUT_THROUGHPUT, TPOT, TTFT
from llm_users.record import StageLoad
from llm_users.simulator.launch import Simulator, launch
from tests.system.runs.live.conftest import Started, Starter

pytestmark = pytest.mark.slow

FIGURES = ("median", "mean", "min", "max", "p25", "p75", "p95", "p99")
SAMPLES = {
    "t", "ttft_p50", "ttft_p95", "ttft_p99", "gap_p50", "gap_p95", "gap_p99", "tpot_p50", "tpot_p95", "tpot_p99",
    "tokens_per_s", "requests_per_s", "in_flight", "users", "rate_per_s", "errors_per_s", "throttled_per_s", "lag_p99",
    "cpu_max", "cpu_mean", "stage", "server_running", "server_waiting", "server_tokens_per_s", "server_kv_cache",
    "server_gpu",
}  # fmt: skip


def equals_the_report(state: dict[str, Any], prefix: Path) -> None:
    """The finished stages are what ``llm-report`` says of the files."""
    groups = llm_reports.groups([llm_reports.load(prefix)])
    assert len(state["stages"]) == len(groups) > 0
    for shown, group in zip(state["stages"], groups, strict=True):
        assert shown["finished"], shown
        load = StageLoad(shown["concurrency"], shown["rate_per_s"])
        assert (shown["stage"], load) == (group.stage, group.load)
        assert (shown["requests"], shown["ok"]) == (group.counts.measured, group.counts.ok)
        assert (shown["health"] or "") == group.health  # a short stage has none
        for name, metric in (("ttft", TTFT), ("throughput", OUTPUT_THROUGHPUT), ("tpot", TPOT), ("e2e", LATENCY)):
            summary = group.summary(metric)
            assert shown[name] == {figure: getattr(summary, figure) for figure in FIGURES}
        rate = group.run.stages.set_index("stage")["output_throughput_token_per_s"][group.stage]
        assert shown["output_throughput_token_per_s"] == rate


def is_over(state: dict[str, Any]) -> bool:
    return state["progress"] is None and bool(state["stages"]) and all(stage["finished"] for stage in state["stages"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sweep_from_the_form_and_another_one(web: Starter, simulator: Simulator, workers: int) -> None:
    page = web("--llm-slo", "ttft_p95<0.5,errors<1%", "--llm-output-tokens", "40,1", workers=workers)
    before = page.state()
    assert (before["run"], before["now_s"], before["progress"], before["stages"]) == (None, None, None, [])
    assert before["state"] == "ready"
    assert page.ask("/llm/download/rows.csv")[0] == 404
    assert page.swarm(host=simulator.url, llm_sweep="2,4", llm_requests="60")["success"]

    running = page.until(
        lambda s: bool(s["stages"]) and s["stages"][0]["ok"] > 5 and len(s["samples"]["t"]) > 3, "a running stage"
    )
    says_how_a_running_stage_stands(running, max(1, workers))
    downloads_of_a_running_test(page)
    only_news_for_who_knows_the_rest(page, running)

    over = page.until(is_over, "the end of the sweep")
    equals_the_report(over, page.running.prefix)
    samples_tell_the_run(over, page)
    downloads_of_a_finished_test(page, over)

    # The form shows what was edited, and the next start uses it.
    shown = form_values(page.ask("/")[1])
    assert (shown["llm_requests"], shown["llm_sweep"]) == ("60", "2,4")
    page.ask("/stats/reset", {})
    assert page.state(run=over["run"], since=over["seq"])["reset"]
    limit = time.monotonic() + 30
    while page.state()["run"] == over["run"] and time.monotonic() < limit:
        page.swarm(host=simulator.url, llm_sweep="3", llm_requests="60")
        time.sleep(1)
    again = page.state(run=over["run"], since=over["seq"])
    assert again["run"] not in (None, over["run"])
    assert again["reset"]
    assert max(again["samples"]["t"], default=0) < 5
    equals_the_report(page.until(is_over, "the end of the second sweep"), page.running.prefix)
    page.end()


def says_how_a_running_stage_stands(state: dict[str, Any], processes: int) -> None:
    assert set(state["samples"]) == SAMPLES
    busiest, means = (state["samples"][name] for name in ("cpu_max", "cpu_mean"))
    assert max(filter(None, busiest)) > 0
    both = [(high, mean) for high, mean in zip(busiest, means, strict=True) if mean is not None]
    assert bool(both) == (processes > 1)
    assert all(0 < mean <= high for high, mean in both)
    assert state["reset"]
    stage, progress = state["stages"][0], state["progress"]
    assert (stage["stage"], stage["concurrency"], stage["finished"]) == (1, 2, False)
    assert (progress["stage"], progress["stages"], progress["concurrency"], progress["of"]) == (1, 2, 2, 60)
    assert progress["phase"] in ("MEASURE", "DRAIN")
    assert progress["done"] >= 5
    assert stage["ttft"]["median"] == pytest.approx(0.020, rel=0.5)
    assert len(state["workers"]) == processes
    assert state["objectives"][0] == {"text": "ttft_p95<0.5", "metric": "ttft", "percentile": 95, "limit": 0.5}
    assert state["about"]["model"] == "simulated"


def downloads_of_a_running_test(page: Started) -> None:
    said = b"The report is available when the test is over; the test is still running."

    assert page.ask("/llm/download/report.md") == (404, said)
    rows_so_far = page.ask("/llm/download/rows.csv")[1].decode()
    assert rows_so_far.endswith("\n")
    assert len(list(csv.DictReader(io.StringIO(rows_so_far)))) > 5


def only_news_for_who_knows_the_rest(page: Started, known: dict[str, Any]) -> None:
    time.sleep(1.5)
    news = page.state(run=known["run"], since=known["seq"])
    assert not news["reset"]
    assert 1 <= len(news["samples"]["t"]) < len(known["samples"]["t"])
    assert min(news["samples"]["t"]) > max(known["samples"]["t"])
    assert page.state(run="another", since=known["seq"])["reset"]
    assert page.state(run=known["run"], since=10**9)["reset"]


def samples_tell_the_run(state: dict[str, Any], page: Started) -> None:
    t, tokens_per_s = state["samples"]["t"], state["samples"]["tokens_per_s"]
    assert t == sorted(t)
    total = sum(int(row["output_tokens"]) for row in page.running.finished_rows("requests"))
    assert sum(tokens_per_s) == pytest.approx(total, rel=0.15)  # a sample a second: the area under the curve
    assert max(state["samples"]["in_flight"]) == 4


def downloads_of_a_finished_test(page: Started, state: dict[str, Any]) -> None:
    kinds = [each["kind"] for each in state["downloads"]]
    assert kinds == ["rows.csv", "stages.csv", "summary.csv", "report.md", "report.html"]
    content = {kind: page.ask(f"/llm/download/{kind}") for kind in kinds}
    assert {status for status, _ in content.values()} == {200}
    assert b"Time to First Token" in content["report.md"][1]
    assert content["rows.csv"][1] == Path(f"{page.running.prefix}_llm_requests.csv").read_bytes()
    assert page.ask("/llm/download/..%2Fetc")[0] == 404
    assert page.ask("/llm/download/passwd")[0] == 404
    assert b'id="llm-section"' in page.ask("/stats/report")[1]


def form_values(page: bytes) -> dict[str, Any]:
    found = re.search(r"window\.templateArgs = (\{.*?\})\s*(?:;|\n|</script>)", page.decode(), re.DOTALL)
    assert found, page.decode()[-2000:]
    options = json.loads(found[1])["extra_options"]
    return {name: option["default_value"] for name, option in options.items()}


def test_stopping_and_autostart_without_a_sweep(web: Starter, simulator: Simulator) -> None:
    page = web("--host", simulator.url, "--autostart", "-u", "3", "-r", "10", "--llm-output-tokens", "30,1")
    page.until(lambda s: bool(s["stages"]) and s["stages"][0]["ok"] > 10, "rows")
    state = page.state()
    assert state["progress"]["of"] is None
    assert state["samples"]["users"][-1] == 3
    page.ask("/stop", {})
    over = page.until(is_over, "the end")
    equals_the_report(over, page.running.prefix)
    seq = over["seq"]
    time.sleep(2.5)
    assert page.state()["seq"] == seq, "a run that is over has no more samples"
    page.end()


def test_what_a_person_must_know_is_said(web: Starter) -> None:
    with launch("ttft=10ms,itl=2ms,usage=off,error=503:0.2", max_seconds=100) as simulator:
        page = web("--host", simulator.url, "--autostart", "--llm-sweep", "2", "--llm-requests", "40")
        over = page.until(is_over, "the end")
        said = " ".join(banner["text"] for banner in over["banners"])
        assert "local tokenizer" in said
        assert over["stages"][0]["failed"] > 0
        assert max(over["samples"]["errors_per_s"]) > 0
        page.end()
