"""Workers that join late, leave, die, freeze and return: the run goes on and every request is accounted for.

The endpoint counts what really came in; rows, accounts and that count have to agree.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.system.crash.workers.nodes import ANSWERS, Nodes, accounts, agree, freeze_and_return


@pytest.mark.slow
def test_a_worker_that_joins_late_takes_part_from_the_next_stage_on(nodes: Nodes) -> None:
    nodes.start(1, "--llm-sweep", "2,9", "--llm-requests", "90", *ANSWERS).await_rows(4)
    nodes.join()
    done = nodes.finish(30)
    assert done.code == 0, done.err
    workers = {stage: {row["worker"] for row in done.rows() if row["stage"] == stage} for stage in "12"}
    assert workers == {"1": {"0"}, "2": {"0", "1"}}
    assert [stage["requests_measured"] for stage in done.rows("stages")] == ["90", "90"]
    assert "worker 1 joined in stage 1" in done.manifest["notes"]
    agree(nodes, done)


def test_a_worker_that_is_killed_loses_only_what_was_in_flight(nodes: Nodes) -> None:
    nodes.start(2, "--llm-sweep", "4,12", "--llm-requests", "120", *ANSWERS).await_rows(8)
    nodes.send(1, signal.SIGKILL)
    done = nodes.finish(40)
    assert done.code == 3, done.err
    (dead,) = (account for account in accounts(done).values() if account["state"] == "missing")
    assert dead["started_is_exact"]
    assert 0 < dead["lost"] <= 2 + 8, "its users' requests, and rows of the last half second"
    assert dead["spool"], "the manifest says where the spool is"
    started = {stage["stage"]: int(stage["requests_measured"]) for stage in done.rows("stages")}
    assert started == {"1": 120 - dead["lost"], "2": 120}
    assert "rows are missing" in done.err
    agree(nodes, done)


@pytest.mark.slow
def test_a_worker_that_stands_still_for_a_moment_goes_on(nodes: Nodes) -> None:
    freeze_and_return(nodes, 2.6, 1, 120)


@pytest.mark.slow  # tests/system/crash/workers/test_arrivals.py loses workers of an open loop too
def test_the_entries_of_a_trace_are_taken_over_when_a_worker_dies(nodes: Nodes, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    entries = [{"timestamp": 100 * number, "input_length": 20, "output_length": 10} for number in range(140)]
    trace.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    nodes.start(2, "--llm-trace", str(trace)).await_rows(8, timeout_s=60)
    nodes.send(1, signal.SIGKILL)
    done = nodes.finish(60)
    assert done.code == 3, done.err
    (dead,) = (account for account in accounts(done).values() if account["state"] == "missing")
    first = dead["worker"]
    taken: dict[bool, list[int]] = {True: [], False: []}
    for row in sorted(done.rows(), key=lambda row: int(row["prompt_index"])):
        taken[row["worker"] == str(first)].append(int(row["prompt_index"]))
    assert taken[True] == list(range(first, first + 2 * len(taken[True]), 2)), "all of the dead one's up to its death"
    own = [index for index in taken[False] if index % 2 != first]
    assert own == list(range(1 - first, 140, 2)), "every entry of the other worker"
    more = [index for index in taken[False] if index % 2 == first]
    assert len(more) >= 10
    assert more == list(range(more[0], 140, 2)), "and every one of the dead worker's from the takeover on"
    missed = 70 - dead["started"] - len(more)
    assert f"stage 1: {missed} of 140 requests were not started" in done.manifest["notes"]
    note = f"stage 1: {missed} arrivals of worker {first} were not sent between its loss and the takeover"
    assert any(text.startswith(note) for text in done.manifest["notes"])
    agree(nodes, done, ready=1)  # one every 200 ms, built 25 ms before it is due
