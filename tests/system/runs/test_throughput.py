"""The rates of real stages: all users run in the window, and every figure is over the same window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.ports import master_ports
from tests.system.locust_runs import Finished, Locust

ANSWERS = ("--llm-output-tokens", "fixed:20")  # some 120 ms at the simulator of the fixture
# Some 600 ms: the few milliseconds between two requests of a user hardly count, also on a busy machine.
LONG_ANSWERS = ("--llm-output-tokens", "fixed:100")


def starts(run: Finished, phase: str) -> list[float]:
    return sorted(float(row["started_at"]) for row in run.rows() if row["phase"] == phase)


def sums_up(run: Finished, *, tokens: int = 20) -> None:
    """The rates of each stage are those of its rows."""
    for stage in run.rows("stages"):
        ok = [row for row in run.rows() if row["stage"] == stage["stage"] and row["error_code"] in ("", "buffered")]
        shares = sum(float(row["window_share"] or 0) for row in ok)
        rate, seconds = float(stage["request_throughput_per_s"]), float(stage["measure_s"])
        assert rate == pytest.approx(shares / seconds, rel=1e-6)
        assert float(stage["output_throughput_token_per_s"]) == pytest.approx(tokens * rate, rel=1e-6)


def test_without_a_warm_up_all_users_start_together_and_every_request_is_measured(
    locust: Locust, simulator: Simulator
) -> None:
    run = locust.run("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "24", "--llm-warmup", "0",
                     *LONG_ANSWERS)  # fmt: skip
    assert {row["phase"] for row in run.rows()} == {"measure"}
    first = starts(run, "measure")[:4]
    assert first[-1] - first[0] < 0.1
    (stage,) = run.rows("stages")
    assert float(stage["concurrency_actual"]) == pytest.approx(4, abs=0.1)
    sums_up(run, tokens=100)


def test_a_ramp_that_was_asked_for_is_warm_up(locust: Locust, simulator: Simulator) -> None:
    run = locust.run("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "24", "--llm-warmup", "0",
                     "--llm-ramp", "3s", *LONG_ANSWERS)  # fmt: skip
    warm, measured = starts(run, "warmup"), starts(run, "measure")
    assert len(measured) == 24
    assert len(warm) >= 6, "some 600 ms each, two users on average, 3 s"
    assert measured[0] - warm[0] > 2.5
    (stage,) = run.rows("stages")
    assert float(stage["concurrency_actual"]) == pytest.approx(4, abs=0.1)


def test_two_processes_share_one_window(locust: Locust, simulator: Simulator) -> None:
    run = locust.run("--host", simulator.url, "--llm-sweep", "6", "--llm-requests", "60", "--processes", "2",
                     *master_ports(), *ANSWERS, timeout_s=90)  # fmt: skip
    (stage,) = run.rows("stages")
    measured = [row for row in run.rows() if row["measured"] == "1"]
    assert {row["worker"] for row in measured} == {"0", "1"}
    begun = starts(run, "measure")
    assert float(stage["measure_started_at"]) == pytest.approx(begun[0], abs=0.1)
    assert float(stage["measure_s"]) == pytest.approx(begun[-1] - begun[0], abs=0.2)
    latency_s = sum(float(row["end_to_end_latency_s"]) for row in measured) / len(measured)
    law = float(stage["request_throughput_per_s"]) * latency_s
    assert law == pytest.approx(float(stage["load_actual"]), rel=0.1)
    sums_up(run)


def test_fewer_requests_than_users_widen_the_window_and_the_manifest_says_so(
    locust: Locust, simulator: Simulator
) -> None:
    run = locust.run("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "3", *ANSWERS)
    (stage,) = run.rows("stages")
    assert stage["window_widened"] == "1"
    measured = [row for row in run.rows() if row["measured"] == "1"]
    ends = [float(row["started_at"]) + float(row["end_to_end_latency_s"]) for row in measured]
    assert float(stage["measure_s"]) == pytest.approx(max(ends) - starts(run, "measure")[0], abs=0.05)
    assert any("the window was widened" in note for note in run.manifest["notes"])


def test_an_overloaded_open_loop_reports_what_the_server_finishes(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=50ms,itl=10ms,capacity=8", log=log, max_seconds=60) as simulator:  # at most 40 answers per second
        run = locust.run("--host", simulator.url, "--llm-rate", "90", "--llm-requests", "360", "--llm-warmup", "0",
                         "--llm-arrivals", "constant", *ANSWERS)  # fmt: skip
        simulator.stop()
    (stage,) = run.rows("stages")
    assert float(stage["started_rate_per_s"]) == pytest.approx(90, rel=0.03)
    assert float(stage["request_throughput_per_s"]) < 42
    entries: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    first = min(entry["received_ns"] for entry in entries)
    until = first + float(stage["measure_s"]) * 1e9
    left = sum(sum(stamp <= until for stamp in entry["sent_ns"]) / len(entry["sent_ns"]) for entry in entries)
    logged = left / float(stage["measure_s"])
    assert float(stage["request_throughput_per_s"]) == pytest.approx(logged, rel=0.03)
