"""Workers that come late, leave, die, freeze and return: the run goes on and every request is accounted for.

The endpoint counts what really came in; rows, accounts and that count have to agree.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.system.crash.workers.conftest import Crew, accounts
from tests.system.runs.conftest import Finished

ANSWERS = ("--llm-output-tokens", "15,0", "--llm-warmup", "0")  # 0.2 s each


def agree(crew: Crew, done: Finished, *, ready: int = 0) -> None:
    """Each request that came in has a row or is a counted loss; no row twice, no prompt twice.

    ``ready``: how many a dead worker may have built, and counted as started, but not yet sent.
    """
    rows = done.rows()
    came_in = crew.simulator.stop()["requests"]
    lost = sum(account["lost"] for account in accounts(done).values())
    assert 0 <= len(rows) + lost - came_in <= ready, (len(rows), lost, came_in)
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert len({row["prompt_index"] for row in rows}) == len(rows)
    by_worker = Counter(int(row["worker"]) for row in rows)
    for rank, account in accounts(done).items():
        assert account["started"] == account["received"] + account["recovered"] + account["lost"]
        assert account["received"] + account["recovered"] == by_worker[rank]
    for stage in done.rows("stages"):
        measured = [row for row in rows if row["stage"] == stage["stage"] and row["measured"] == "1"]
        assert len(measured) == int(stage["requests_measured"])


@pytest.mark.slow
def test_a_worker_that_joins_late_takes_part_from_the_next_stage_on(crew: Crew) -> None:
    crew.start(1, "--llm-sweep", "2,9", "--llm-requests", "90", *ANSWERS).await_rows(4)
    crew.join()
    done = crew.finish(30)
    assert done.code == 0, done.err
    workers = {stage: {row["worker"] for row in done.rows() if row["stage"] == stage} for stage in "12"}
    assert workers == {"1": {"0"}, "2": {"0", "1"}}
    assert [stage["requests_measured"] for stage in done.rows("stages")] == ["90", "90"]
    assert "worker 1 joined in stage 1" in done.manifest["notes"]
    agree(crew, done)


def test_a_worker_that_is_killed_loses_only_what_was_in_flight(crew: Crew) -> None:
    crew.start(2, "--llm-sweep", "4,12", "--llm-requests", "120", *ANSWERS).await_rows(8)
    crew.send(1, signal.SIGKILL)
    done = crew.finish(40)
    assert done.code == 3, done.err
    (dead,) = (account for account in accounts(done).values() if account["state"] == "missing")
    assert dead["started_is_exact"]
    assert 0 < dead["lost"] <= 2 + 8, "its users' requests, and rows of the last half second"
    assert dead["spool"], "the manifest says where the spool is"
    started = {stage["stage"]: int(stage["requests_measured"]) for stage in done.rows("stages")}
    assert started == {"1": 120 - dead["lost"], "2": 120}
    assert "rows are missing" in done.err
    agree(crew, done)


def freeze_and_return(crew: Crew, frozen_s: float, stages: int, requests: int) -> Finished:
    """A worker that stands still for a while in the first stage; all requests are started all the same."""
    crew.start(2, "--llm-sweep", ",".join(["4"] * stages), "--llm-requests", str(requests), *ANSWERS).await_rows(8)
    crew.send(1, signal.SIGSTOP)
    time.sleep(frozen_s)
    crew.send(1, signal.SIGCONT)
    done = crew.finish(60)
    assert done.code == 0, done.err
    assert [stage["requests_measured"] for stage in done.rows("stages")] == [str(requests)] * stages
    assert not any(account["lost"] for account in accounts(done).values())
    assert {row["worker"] for row in done.rows() if row["stage"] == str(stages)} == {"0", "1"}
    agree(crew, done)
    return done


@pytest.mark.slow
def test_a_worker_that_stands_still_for_a_moment_goes_on(crew: Crew) -> None:
    freeze_and_return(crew, 2.6, 1, 120)


@pytest.mark.slow  # tests/system/crash/workers/test_arrivals.py loses workers of an open loop too
def test_the_entries_of_a_trace_are_taken_over_when_a_worker_dies(crew: Crew, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    entries = [{"timestamp": 100 * number, "input_length": 20, "output_length": 10} for number in range(140)]
    trace.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    crew.start(2, "--llm-trace", str(trace)).await_rows(8, timeout_s=60)
    crew.send(1, signal.SIGKILL)
    done = crew.finish(60)
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
    agree(crew, done, ready=1)  # one every 200 ms, built 25 ms before it is due
