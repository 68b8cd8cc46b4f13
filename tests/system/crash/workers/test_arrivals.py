"""An open loop over workers that leave, die or have a wrong clock: the asked rate goes on, by the server's own log."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.system.crash.workers.nodes import Nodes, accounts
from tests.system.locust_runs import Finished

RATE = 40
CONSTANT = ("--llm-arrivals", "constant", "--llm-output-tokens", "4,0", "--llm-warmup", "0")

SLOW_CLOCK = """
import pathlib, time
_time = time.time
time.time = lambda: _time() - {behind_s}
pathlib.Path(__file__).with_name("behind").touch()
"""
"""For ``sitecustomize``: ``time.time`` of one process is behind, as the wall clock of another machine may be.

The clocks that requests are sent and timed by are the real ones.
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


@pytest.fixture
def endpoint(log: Path) -> Iterator[Simulator]:
    with launch("ttft=20ms,itl=5ms", max_seconds=120, log=log) as running:
        yield running


def arrivals(log: Path, done: Finished) -> list[tuple[float, str]]:
    """(when the server had read it, the worker that sent it; "" where its row is lost) of each request, in order."""
    workers = {row["response_id"]: row["worker"] for row in done.rows()}
    entries = map(json.loads, log.read_text().splitlines())
    return sorted((e["received_ns"] / 1e9, workers.get(e["response_id"], "")) for e in entries)


def per_second(came: list[tuple[float, str]], from_s: float) -> list[int]:
    """Requests in each whole second after ``from_s`` seconds."""
    begin_s = came[0][0] + from_s
    counts = Counter(int(at_s - begin_s) for at_s, _ in came if at_s >= begin_s)
    return [counts[second] for second in range(int(came[-1][0] - begin_s))]


def check_accounts(done: Finished, came: list[tuple[float, str]]) -> None:
    """What came in has a row or is a counted loss; no request and no prompt twice."""
    rows = done.rows()
    sent = [row for row in rows if row["response_id"]]
    assert len({row["request_id"] for row in rows}) == len(rows)
    prompts = [row["prompt_index"] for row in rows if row["prompt_index"]]
    assert len(set(prompts)) == len(prompts)
    lost = sum(account["lost"] for account in accounts(done).values())
    aborted = sum(row["error_code"] == "aborted" for row in rows)
    assert len(sent) <= len(came) <= len(sent) + lost + aborted


def test_the_others_take_over_the_arrivals_of_workers_that_leave_and_die(nodes: Nodes, log: Path) -> None:
    nodes.start(3, "--llm-rate", str(RATE), "--llm-requests", "600", *CONSTANT).await_rows(20, timeout_s=60)
    nodes.send(0, signal.SIGTERM)
    nodes.send(1, signal.SIGKILL)
    done = nodes.finish(60)
    nodes.simulator.stop()
    came = arrivals(log, done)
    check_accounts(done, came)
    lost = sum(account["lost"] for account in accounts(done).values())
    (stage,) = done.rows("stages")
    assert int(stage["requests_measured"]) + lost == 600
    assert done.code == (3 if lost else 0), done.err
    notes = " ".join(done.manifest["notes"])
    said = re.findall(r"(\d+) arrivals of worker \d were not sent between its loss and the takeover", notes)
    # The schedule is constant, so the server's log says how many arrivals were due from its first to its last request.
    due = 1 + (came[-1][0] - came[0][0]) * RATE
    assert said
    assert sum(map(int, said)) == pytest.approx(due - 600, abs=2), "600 were started, of which the server saw most"
    rates = per_second(came, 11.0)  # rows come after 3 s, and a dead worker is known to be so 6 s later at most
    assert len(rates) >= 3
    assert all(abs(count - RATE) <= 2 for count in rates), rates
    assert len({worker for at_s, worker in came if at_s > came[0][0] + 11}) == 1


@pytest.mark.slow
def test_a_stage_of_a_given_time_keeps_its_rate_when_a_worker_leaves(nodes: Nodes, log: Path) -> None:
    nodes.start(2, "--llm-rate", str(RATE), "--llm-stage-time", "6s", *CONSTANT).await_rows(20, timeout_s=60)
    nodes.send(0, signal.SIGTERM)
    done = nodes.finish(40)
    nodes.simulator.stop()
    came = arrivals(log, done)
    check_accounts(done, came)
    assert not any(account["lost"] for account in accounts(done).values())
    rates = per_second(came, 4.0)
    assert all(abs(count - RATE) <= 2 for count in rates), rates
    assert done.code == 0, done.err


def test_a_worker_whose_clock_is_behind_sends_its_arrivals_in_time(nodes: Nodes, log: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLOW_CLOCK.format(behind_s=3))
    more = ("--llm-rate", str(RATE), "--llm-requests", "160", *CONSTANT)
    nodes.start(1, "--expect-workers", "2", *more)
    nodes.join(env={"PYTHONPATH": str(folder)})
    done = nodes.finish(40)
    nodes.simulator.stop()
    came = arrivals(log, done)
    check_accounts(done, came)
    assert (done.code, len(came)) == (0, 160), done.err
    assert (folder / "behind").exists()
    turns = sum(before != after for (_, before), (_, after) in pairwise(came))
    assert turns > 110, "the arrivals of both workers alternate from the first on"
    assert 3.7 < came[-1][0] - came[0][0] < 6
