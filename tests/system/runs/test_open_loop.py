"""The open loop: requests start when their time has come, whatever the server does; against the server's own log."""

from __future__ import annotations

import json
import statistics
from itertools import islice, pairwise
from pathlib import Path

import pytest
from scipy import stats

from llm_users.distributions import ARRIVAL_GAPS, Distribution
from llm_users.load.protocol.arrivals import arrival_times_s
from llm_users.simulator.launch import launch
from tests.ports import master_ports
from tests.system.locust_runs import Finished, Locust

SHORT = ("--llm-output-tokens", "4,0", "--llm-warmup", "2")


def measured(run: Finished, stage: int = 1) -> list[dict[str, str]]:
    return [row for row in run.rows() if row["measured"] == "1" and row["stage"] == str(stage)]


def received_s(log: Path, rows: list[dict[str, str]]) -> list[float]:
    """When the server had read the requests of these rows, in order."""
    entries = {e["response_id"]: e for e in map(json.loads, log.read_text().splitlines())}
    return sorted(entries[row["response_id"]]["received_ns"] / 1e9 for row in rows)


def schedule_s(arrivals: str, rate: float, count: int, stage: int = 1, skipped: int = 2) -> list[float]:
    """Arrivals of the measured requests: those after the warm-up."""
    times = arrival_times_s(Distribution.parse(arrivals, ARRIVAL_GAPS), rate, f"11111:{stage}:arrivals")
    return list(islice(times, skipped, skipped + count))


def spread_s(came: list[float], meant: list[float]) -> float:
    """How far arrivals are from the schedule (median), wherever its origin lay. Its gaps are tens of ms."""
    late = [a - b for a, b in zip(came, meant, strict=True)]
    origin = statistics.median(late)
    return statistics.median(abs(each - origin) for each in late)


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def test_requests_reach_the_server_on_schedule(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=20ms,itl=5ms", max_seconds=60, log=log) as simulator:
        run = locust.run("--host", simulator.url, "--llm-rate", "100", "--llm-requests", "400", *SHORT)
    assert run.code == 0, run.err
    rows = measured(run)
    assert len(rows) == 400
    came, meant = received_s(log, rows), schedule_s("poisson", 100, 400)
    assert spread_s(came, meant) < 0.003
    assert (came[-1] - came[0]) / (meant[-1] - meant[0]) == pytest.approx(1, abs=0.005)
    assert stats.kstest(gaps(came), stats.expon(scale=0.01).cdf).pvalue > 0.01
    stage = run.rows("stages")[0]
    assert (stage["concurrency"], stage["rate_per_s"], stage["requests_measured"]) == ("0", "100", "400")
    assert float(stage["measure_s"]) == pytest.approx(meant[-1] - meant[0], rel=0.01)
    assert float(stage["request_throughput_per_s"]) == pytest.approx(399 / (meant[-1] - meant[0]), rel=0.01)
    # Little's law: what is in flight is the rate times the latency.
    e2e_s = statistics.mean(float(row["end_to_end_latency_s"]) for row in rows)
    assert float(stage["concurrency_actual"]) == pytest.approx(399 / float(stage["measure_s"]) * e2e_s, rel=0.1)


def test_two_processes_share_one_schedule(locust: Locust, tmp_path: Path) -> None:
    arrivals = "gamma:2"
    log = tmp_path / "log.jsonl"
    with launch("ttft=20ms,itl=5ms", max_seconds=60, log=log) as simulator:
        run = locust.run(
            "--host", simulator.url, "--llm-rate", "50,100", "--llm-requests", "121", "--llm-arrivals", arrivals,
            "--processes", "2", *master_ports(), "--llm-output-tokens", "4,0", "--llm-warmup", "1",
        )  # fmt: skip
    assert run.code == 0, run.err
    for stage, rate in ((1, 50), (2, 100)):
        rows = measured(run, stage)
        assert len(rows) == 121
        assert {row["worker"] for row in rows} == {"0", "1"}
        came, meant = received_s(log, rows), schedule_s(arrivals, rate, 121, stage)
        assert spread_s(came, meant) < 0.003
    prompts = [row["prompt_index"] for row in run.rows()]
    assert len(set(prompts)) == len(prompts)


def test_no_answer_holds_up_an_arrival(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=1500ms,itl=5ms", max_seconds=60, log=log) as simulator:
        run = locust.run("--host", simulator.url, "--llm-rate", "30", "--llm-stage-time", "2s", "--llm-arrivals",
                         "constant", "--llm-output-tokens", "4,0", "--llm-warmup", "0")  # fmt: skip
        totals = simulator.stop()
    rows = measured(run)
    assert 58 <= len(rows) <= 61
    assert totals["peak_active"] >= 40
    came = received_s(log, rows)
    assert statistics.median(gaps(came)) == pytest.approx(1 / 30, rel=0.05)
    for row in rows:
        assert float(row["corrected_ttft_s"]) == pytest.approx(float(row["ttft_s"]) + float(row["queue_s"]), abs=1e-6)
    assert float(run.rows("stages")[0]["measure_s"]) == pytest.approx(2, rel=0.02)


def test_above_the_limit_requests_wait_and_the_wait_counts(locust: Locust) -> None:
    with launch("ttft=200ms,itl=5ms", max_seconds=60) as simulator:
        run = locust.run("--host", simulator.url, "--llm-rate", "40", "--llm-requests", "60", "--llm-arrivals",
                         "constant", "--llm-max-in-flight", "4", "--llm-output-tokens", "4,0",
                         "--llm-warmup", "0")  # fmt: skip
        totals = simulator.stop()
    rows = measured(run)
    assert (run.code, len(rows), totals["peak_active"]) == (0, 60, 4)
    stage = run.rows("stages")[0]
    # Four at a time, 215 ms each: 18.6 per second are served, and 60 have come after 1.5 s.
    held = [float(row["held_s"]) for row in rows]
    assert held[:4] == [0, 0, 0, 0]
    assert max(held) == pytest.approx(60 / 18.6 - 60 / 40, rel=0.2)
    assert int(stage["requests_held"]) == sum(value > 0 for value in held) >= 50
    assert max(float(row["corrected_ttft_s"]) for row in rows) == pytest.approx(max(held) + 0.2, abs=0.1)
    assert max(float(row["ttft_s"]) for row in rows) < 0.3
    assert float(stage["queue_p99_s"]) < 0.1  # the wait for a place is not the client's fault
    assert float(stage["concurrency_actual"]) <= 4.05


def test_above_the_limit_requests_can_be_dropped(locust: Locust) -> None:
    with launch("ttft=200ms,itl=5ms", max_seconds=60) as simulator:
        run = locust.run("--host", simulator.url, "--llm-rate", "40", "--llm-requests", "60", "--llm-arrivals",
                         "constant", "--llm-max-in-flight", "4", "--llm-overflow", "drop", "--llm-output-tokens",
                         "4,0", "--llm-warmup", "0")  # fmt: skip
        totals = simulator.stop()
    rows = measured(run)
    dropped = [row for row in rows if row["error_code"] == "overflow"]
    assert (run.code, len(rows), totals["peak_active"]) == (1, 60, 4)
    assert len(rows) - len(dropped) == totals["completed"] == pytest.approx(60 / 40 * 18.6, rel=0.2)
    assert {row["ttft_s"] for row in dropped} == {""}
    assert all(row["started_at"] and row["rate_per_s"] == "40" for row in dropped)
    stage = run.rows("stages")[0]
    assert int(stage["requests_dropped"]) == int(stage["requests_failed"]) == len(dropped)


def test_what_never_came_to_be_sent_has_its_row(locust: Locust) -> None:
    with launch("ttft=300ms", max_seconds=60) as simulator:
        running = locust.start("--host", simulator.url, "--llm-rate", "50", "--llm-requests", "1000",
                               "--llm-max-in-flight", "3", "--llm-warmup", "0", "--stop-timeout", "1")  # fmt: skip
        running.await_rows(6)
        running.interrupt()
        run = running.finish()
        totals = simulator.stop()
    rows = run.rows()
    sent = [row for row in rows if row["queue_s"]]
    assert len(sent) == totals["requests"]
    never = [row for row in rows if not row["queue_s"]]
    assert len(never) > 10
    assert {row["error_code"] for row in never} == {"aborted"}
    assert sum(run.manifest["counts"]["sent"].values()) == len(rows)
    assert "lost" not in run.err


TWO_CLASSES = """
from locust import task
from llm_users import OpenAIUser

class Often(OpenAIUser):
    weight = 3
    @task
    def ask(self):
        self.chat()

class Seldom(OpenAIUser):
    weight = 1
    @task
    def ask(self):
        self.chat()
"""


def test_classes_take_their_turns_by_weight(locust: Locust, tmp_path: Path) -> None:
    path = tmp_path / "two_locustfile.py"
    path.write_text(TWO_CLASSES)
    with launch("ttft=20ms,itl=5ms", max_seconds=60) as simulator:
        run = locust.run("--host", simulator.url, "--llm-rate", "80", "--llm-requests", "80", "--llm-warmup", "0",
                         locustfile=str(path))  # fmt: skip
    classes = [row["user_class"] for row in measured(run)]
    assert (run.code, classes.count("Often"), classes.count("Seldom")) == (0, 60, 20)


def test_users_that_are_no_llm_users_are_refused(locust: Locust, tmp_path: Path) -> None:
    path = tmp_path / "mixed_locustfile.py"
    path.write_text(TWO_CLASSES + "\nfrom locust import User\nclass Other(User):\n    @task\n    def work(self): ...\n")
    run = locust.run("--host", "http://127.0.0.1:9/v1", "--llm-rate", "8", locustfile=str(path))
    assert run.code == 2
    assert "not Other" in run.err
