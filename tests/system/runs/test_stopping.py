"""Ends of every kind: each leaves complete, parseable files, and a row for every request that was started."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from llm_users.simulator.launch import launch
from tests.ports import master_ports
from tests.system.locust_runs import Finished, Locust

ONE_PROCESS, TWO_PROCESSES = 0, 2


def _over(processes: int) -> tuple[str, ...]:
    return ("--processes", str(processes), *master_ports()) if processes else ()


def _assert_complete(done: Finished) -> Counter[str]:
    """Files are complete; returns how the requests ended."""
    rows = done.rows()
    counts = done.manifest["counts"]
    assert counts["sent"] == counts["received"], done.err
    assert sum(counts["received"].values()) == len(rows)
    assert done.manifest["finished_at"]
    assert len({row["request_id"] for row in rows}) == len(rows)
    stages = done.rows("stages")
    assert sum(int(stage["requests_started"]) for stage in stages) == len(rows)
    assert "Time to First Token" in done.out, done.err
    return Counter(row["error_code"] for row in rows)


@pytest.mark.parametrize("processes", [ONE_PROCESS, TWO_PROCESSES])
def test_ctrl_c_once_lets_answers_in_flight_end(locust: Locust, processes: int) -> None:
    with launch("ttft=20ms,itl=20ms", max_seconds=90) as simulator:
        running = locust.start("--host", simulator.url, "--llm-sweep", "4,8", "--llm-requests", "1000",
                               "--llm-output-tokens", "60,0", "--llm-report", *_over(processes))  # fmt: skip
        running.await_rows(6)
        running.interrupt()
        done = running.finish(40)
        served = simulator.stop()
    endings = _assert_complete(done)
    assert set(endings) == {""}, done.err
    assert served["aborted"] == 0
    assert len(done.rows("stages")) == 1
    assert done.code == 3, "less was measured than was asked for"
    assert "before everything requested was measured" in done.err


@pytest.mark.parametrize("processes", [ONE_PROCESS, TWO_PROCESSES])
def test_ctrl_c_cuts_what_does_not_end_within_the_stop_timeout(locust: Locust, processes: int) -> None:
    with launch("ttft=20ms,itl=20ms", max_seconds=90) as simulator:
        log = locust.folder / "log.txt"
        running = locust.start("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "8", "--llm-report",
                               "--llm-output-tokens", "3000,0", "--stop-timeout", "1", "--logfile", str(log),
                               *_over(processes))  # fmt: skip
        limit = time.monotonic() + 60
        while time.monotonic() < limit and not (log.exists() and "stage 1 of 1" in log.read_text()):
            time.sleep(0.1)
        time.sleep(4)  # the users' ramp, and then answers of a minute
        running.interrupt()
        began = time.monotonic()
        done = running.finish(40)
    assert time.monotonic() - began < 15
    rows = done.rows()
    assert [row["error_code"] for row in rows] == ["aborted"] * 4, done.err
    assert all(int(row["chunks"]) > 10 and row["ttft_s"] and row["tpot_s"] for row in rows)  # what was measured is kept
    assert "Time to First Token" in done.out, done.err
    assert done.manifest["counts"]["sent"] == done.manifest["counts"]["received"]


@pytest.mark.parametrize("processes", [ONE_PROCESS, TWO_PROCESSES])
def test_ctrl_c_twice_stops_at_once(locust: Locust, processes: int) -> None:
    with launch("ttft=20ms,itl=20ms", max_seconds=90) as simulator:
        running = locust.start("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "1000", "--llm-report",
                               "--llm-output-tokens", "60,0", "--llm-warmup", "0", "--llm-ramp", "1s",
                               *_over(processes))  # fmt: skip
        running.await_rows(4)  # users are spread over their answers' 1.2 s, so that some are always in flight
        running.interrupt()
        time.sleep(0.3)
        running.interrupt()
        began = time.monotonic()
        done = running.finish(40)
    assert time.monotonic() - began < 8
    endings = _assert_complete(done)
    assert 1 <= endings["aborted"] <= 4, done.err


def test_sigterm_does_what_ctrl_c_does(locust: Locust) -> None:
    with launch("ttft=20ms,itl=20ms", max_seconds=90) as simulator:
        running = locust.start("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "100000",
                               "--llm-output-tokens", "40,0", "--llm-report")  # fmt: skip
        running.await_rows(4)
        running.process.send_signal(signal.SIGTERM)
        done = running.finish(30)
    assert set(_assert_complete(done)) == {""}, done.err
    assert done.code == 3, "less was measured than was asked for"
    assert "before everything requested was measured" in done.err


@pytest.mark.parametrize("processes", [ONE_PROCESS, TWO_PROCESSES])
def test_the_run_time_of_a_run_without_a_sweep_lets_answers_end(locust: Locust, processes: int) -> None:
    with launch("ttft=20ms,itl=20ms", max_seconds=90) as simulator:
        done = locust.run("--host", simulator.url, "-u", "4", "-r", "4", "-t", "5s", "--llm-report",
                          "--llm-output-tokens", "60,0", *_over(processes))  # fmt: skip
        served = simulator.stop()
    assert set(_assert_complete(done)) == {""}, done.err
    assert served["aborted"] == 0
    assert done.code == 0


def test_users_above_the_next_stage_leave_after_their_request(locust: Locust) -> None:
    with launch("ttft=20ms,itl=5ms", max_seconds=90) as simulator:
        done = locust.run("--host", simulator.url, "--llm-sweep", "6,1", "--llm-requests", "8", "--llm-report")
        served = simulator.stop()
    assert _assert_complete(done) == {"": 6 + 8 + 1 + 8}
    assert served["aborted"] == 0
    assert len({row["user_id"] for row in done.rows() if row["stage"] == "2"}) == 1
