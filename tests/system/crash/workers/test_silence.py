"""Links that stall or are cut, processes that stand still: no request is started twice, and every stage has its number.

``agree`` compares the rows with what the endpoint has seen.
"""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from tests.system.crash.workers.nodes import ANSWERS, Nodes, accounts, agree
from tests.system.locust_runs import Finished


def exact(nodes: Nodes, done: Finished, requests: int, stages: int) -> None:
    """Every stage has its number of measured requests, and nothing is lost."""
    assert done.code == 0, done.err
    assert [stage["requests_measured"] for stage in done.rows("stages")] == [str(requests)] * stages
    assert not any(account["lost"] for account in accounts(done).values())
    agree(nodes, done)


def with_a_link(nodes: Nodes, sweep: str, requests: int, disturb: str, seconds: float) -> Finished:
    """Two workers, one of them by way of a link that is disturbed in the first stage."""
    master = nodes.start(1, "--llm-sweep", sweep, "--llm-requests", str(requests), *ANSWERS, expected=2)
    link = nodes.join_by_link()
    master.await_rows(8, timeout_s=60)
    getattr(link, disturb)(seconds)
    return nodes.finish(90)


@pytest.mark.slow
def test_what_was_started_beyond_a_share_is_not_measured(nodes: Nodes) -> None:
    """The master cannot read the counts of the worker, as on another machine: it gives away too much."""
    master = nodes.start(1, "--llm-sweep", "4", "--llm-requests", "200", *ANSWERS, expected=2)
    link = nodes.join_by_link()
    master.await_rows(8, timeout_s=60)
    run_id = master.finished_rows("requests")[0]["run_id"]
    for path in Path("/dev/shm").glob(f"locust-llm-{run_id}-*"):
        path.unlink()
    link.stall(8)
    done = nodes.finish(90)
    exact(nodes, done, 200, 1)
    beyond = [row for row in done.rows() if row["measured"] == "0"]
    assert beyond
    assert {row["phase"] for row in beyond} == {"measure"}
    (worker,) = {row["worker"] for row in beyond}
    notes = " ".join(done.manifest["notes"])
    assert f"worker {worker}: {len(beyond)} requests of stage 1 were started beyond its share while it was cut" in notes
    assert "was lost in stage 1; " in notes


@pytest.mark.slow
def test_a_link_that_stalls_costs_nothing_but_time(nodes: Nodes) -> None:
    done = with_a_link(nodes, "4,4", 240, "stall", 8)
    exact(nodes, done, 240, 2)
    assert not [row for row in done.rows() if row["measured"] == "0"]
    assert any("was lost in stage 1; " in note for note in done.manifest["notes"])


def test_a_link_that_is_cut_for_a_moment_changes_nothing(nodes: Nodes) -> None:
    done = with_a_link(nodes, "4", 100, "cut", 0.5)
    exact(nodes, done, 100, 1)
    assert not any("was lost" in note for note in done.manifest["notes"])


@pytest.mark.slow
@pytest.mark.parametrize(("disturb", "seconds"), [("stall", 12), ("cut", 1), ("cut", 12)])
def test_links_over_several_stages(nodes: Nodes, disturb: str, seconds: float) -> None:
    exact(nodes, with_a_link(nodes, "4,6,4", 250, disturb, seconds), 250, 3)


@pytest.mark.slow
def test_a_link_that_fails_again_and_again(nodes: Nodes) -> None:
    master = nodes.start(1, "--llm-sweep", ",".join(["4"] * 12), "--llm-requests", "40", *ANSWERS, expected=2)
    link = nodes.join_by_link()
    master.await_rows(4, timeout_s=60)
    over = threading.Event()

    def disturb() -> None:
        while not over.is_set():
            link.cut(0.3)
            over.wait(1.2)

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    time.sleep(15)
    over.set()
    disturbing.join()
    exact(nodes, nodes.finish(120), 40, 12)


@pytest.mark.slow
def test_a_master_that_stands_still_keeps_its_workers(nodes: Nodes) -> None:
    nodes.start(2, "--llm-sweep", "4,4", "--llm-requests", "150", *ANSWERS).await_rows(8, timeout_s=60)
    nodes.master.process.send_signal(signal.SIGSTOP)
    time.sleep(9)
    seen_at = time.monotonic()
    nodes.master.process.send_signal(signal.SIGCONT)
    done = nodes.finish(60)
    exact(nodes, done, 150, 2)
    assert time.monotonic() - seen_at < 45
    assert not any("was lost" in note for note in done.manifest["notes"])


@pytest.mark.slow
def test_workers_that_all_stand_still_are_waited_for(nodes: Nodes) -> None:
    nodes.start(2, "--llm-sweep", "4,4", "--llm-requests", "150", *ANSWERS).await_rows(8, timeout_s=60)
    for worker in (0, 1):
        nodes.send(worker, signal.SIGSTOP)
    time.sleep(15)
    for worker in (0, 1):
        nodes.send(worker, signal.SIGCONT)
    exact(nodes, nodes.finish(60), 150, 2)


@pytest.mark.slow
def test_a_run_whose_workers_are_all_dead_ends_with_a_reason(nodes: Nodes) -> None:
    nodes.start(2, "--llm-sweep", "4,4", "--llm-requests", "150", *ANSWERS).await_rows(8, timeout_s=60)
    for worker in (0, 1):
        nodes.send(worker, signal.SIGKILL)
    killed_at = time.monotonic()
    done = nodes.finish(120)
    assert done.code == 3, done.err
    assert time.monotonic() - killed_at < 100
    assert "waits 60 s for one to come back" in done.err
    assert any("all workers were lost" in note for note in done.manifest["notes"])
    agree(nodes, done)


def test_a_run_whose_workers_all_leave_ends_with_a_reason(nodes: Nodes) -> None:
    nodes.start(1, "--llm-sweep", "4,4", "--llm-requests", "150", *ANSWERS).await_rows(8, timeout_s=60)
    nodes.send(0, signal.SIGTERM)
    done = nodes.finish(30)
    assert done.code == 3, done.err
    assert "all workers left in stage 1" in done.err
    agree(nodes, done)
