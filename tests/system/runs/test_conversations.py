"""Conversations, clients that hang up and several targets in whole runs: rows against the simulator's own log."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.ports import master_ports
from tests.project import ROOT
from tests.system.locust_runs import Finished, Locust

pytestmark = pytest.mark.slow

TALK = str(ROOT / "locustfiles" / "conversations.py")
Rows = list[dict[str, str]]


def by_conversation(rows: Rows) -> dict[str, Rows]:
    held: dict[str, Rows] = defaultdict(list)
    for row in sorted(rows, key=lambda row: float(row["started_at"])):
        held[row["conversation_id"]].append(row)
    return held


def entries_of(log: Path) -> dict[str, dict[str, Any]]:
    """The simulator's log by response id."""
    return {entry["response_id"]: entry for entry in map(json.loads, log.read_text().splitlines())}


def check_turns(done: Finished, entries: dict[str, dict[str, Any]], think_s: float) -> int:
    """Every conversation against the server's log; returns how many follow-up turns there were."""
    follow_ups = 0
    for turns in by_conversation(done.rows()).values():
        assert [int(row["turn"]) for row in turns] == list(range(1, len(turns) + 1))
        assert len({row["user_id"] for row in turns}) == 1
        for before, after in pairwise(turns):
            follow_ups += 1
            first, second = entries[before["response_id"]], entries[after["response_id"]]
            # The simulator's tokens are words: the history is what was asked, what was answered, and the new question.
            assert second["prompt_tokens"] > first["prompt_tokens"] + first["tokens"]
            assert second["prompt_tokens"] == int(after["input_tokens"])
            assert float(after["think_s"]) == pytest.approx(think_s)
            assert (second["received_ns"] - first["last_ns"]) / 1e9 >= think_s - 0.001
    return follow_ups


def check_conversations(done: Finished) -> None:
    """The file of conversations against the rows."""
    rows, held = done.rows("conversations"), by_conversation(done.rows())
    assert {row["conversation_id"] for row in rows} == set(held)
    assert len(rows) == len(held)
    for row in rows:
        turns = held[row["conversation_id"]]
        assert (row["user_id"], row["model"]) == (turns[0]["user_id"], turns[0]["model"])
        assert row["turns_planned"] == turns[0]["turns"]
        ok = [turn for turn in turns if not turn["error_code"]]
        assert int(row["turns_done"]) == len(ok)
        assert row["completed"] == str(int(row["turns_done"] == row["turns_planned"]))
        assert row["error_code"] == turns[-1]["error_code"]
        assert (row["ttft_first_s"], row["ttft_last_s"]) == (turns[0]["ttft_s"], turns[-1]["ttft_s"])
        assert int(row["output_tokens"] or 0) == sum(int(turn["output_tokens"] or 0) for turn in turns)
        lasted = float(turns[-1]["started_at"]) + float(turns[-1]["end_to_end_latency_s"])
        assert float(row["duration_s"]) == pytest.approx(lasted - float(turns[0]["started_at"]), abs=1e-3)


def test_a_sweep_of_conversations_is_exact_and_in_order(locust: Locust, tmp_path: Path) -> None:
    with launch("ttft=20ms,itl=2ms", log=tmp_path / "log.jsonl", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-sweep", "2,4", "--llm-requests", "17", "--llm-turns",
                          "uniform:2,4", "--llm-think-time", "80ms", locustfile=TALK)  # fmt: skip
    assert done.code == 0, done.err
    rows, entries = done.rows(), entries_of(tmp_path / "log.jsonl")
    assert Counter((row["stage"], row["measured"]) for row in rows)[("1", "1")] == 17
    assert [row["requests_measured"] for row in done.rows("stages")] == ["17", "17"]
    assert {row["response_id"] for row in rows} == set(entries)
    assert check_turns(done, entries, 0.08) >= 10
    check_conversations(done)
    assert any(row["completed"] == "1" for row in done.rows("conversations"))
    across = [turns for turns in by_conversation(rows).values() if len({turn["stage"] for turn in turns}) > 1]
    assert across, "whoever stands in a conversation at the end of a stage goes on with it in the next"


def test_conversations_over_processes_are_each_held_once(locust: Locust, tmp_path: Path) -> None:
    with launch("ttft=10ms,itl=2ms", log=tmp_path / "log.jsonl", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-sweep", "4", "--llm-requests", "24", "--llm-turns", "fixed:3",
                          "--llm-think-time", "50ms", "--processes", "2", *master_ports(), locustfile=TALK)  # fmt: skip
    assert done.code == 0, done.err
    assert sum(row["measured"] == "1" for row in done.rows()) == 24
    check_turns(done, entries_of(tmp_path / "log.jsonl"), 0.05)
    check_conversations(done)
    for name, turns in by_conversation(done.rows()).items():
        assert {int(row["worker"]) for row in turns} == {int(name) % 2}


def test_nobody_waits_for_users_who_think(locust: Locust, simulator: Simulator) -> None:
    done = locust.run("--host", simulator.url, "--llm-sweep", "2,3", "--llm-stage-time", "700ms", "--llm-warmup", "0",
                      "--llm-turns", "fixed:9", "--llm-think-time", "uniform:50s,60s", locustfile=TALK,
                      timeout_s=40)  # fmt: skip
    assert done.code == 0, done.err
    assert Counter(row["stage"] for row in done.rows()) == {"1": 2, "2": 1}  # the two of the first stage still think
    assert [row["completed"] for row in done.rows("conversations")] == ["0"] * 3


def test_clients_hang_up_and_the_others_are_served(locust: Locust, tmp_path: Path) -> None:
    with launch("ttft=30ms,itl=10ms", log=tmp_path / "log.jsonl", max_seconds=60) as simulator:
        done = locust.run("--host", simulator.url, "--llm-sweep", "6", "--llm-requests", "60", "--llm-warmup", "0",
                          "--llm-output-tokens", "20,0", "--llm-cancel", "0.3:100ms", "--llm-report")  # fmt: skip
        totals = simulator.stop()
    assert done.code == 0, done.err
    rows = done.rows()
    codes = Counter(row["error_code"] for row in rows)
    assert set(codes) == {"", "cancelled"}
    assert sum(codes.values()) == 60
    assert 8 <= codes["cancelled"] <= 30
    assert (totals["aborted"], totals["completed"]) == (codes["cancelled"], codes[""])
    entries = entries_of(tmp_path / "log.jsonl")
    for row in rows:
        if row["error_code"]:
            assert float(row["end_to_end_latency_s"]) == pytest.approx(0.1, abs=0.03)
            assert float(row["ttft_s"]) == pytest.approx(0.03, abs=0.02)
            assert 1 <= int(row["chunks"]) < 20
        else:
            assert int(row["output_tokens"]) == entries[row["response_id"]]["tokens"] == 20
    (stage,) = done.rows("stages")
    counted = [int(stage[f"requests_{name}"]) for name in ("measured", "ok", "failed", "aborted", "cancelled")]
    assert counted == [60, codes[""], 0, 0, codes["cancelled"]]
    assert "Cancelled requests (ended by the client, --llm-cancel) are excluded" in " ".join(done.out.split())
    again = locust.run("--llm-simulator", "ttft=30ms,itl=10ms", "--llm-sweep", "6", "--llm-requests", "60",
                       "--llm-warmup", "0", "--llm-output-tokens", "20,0", "--llm-cancel", "0.3:100ms",
                       prefix="again")  # fmt: skip
    numbers = [
        {row["request_id"].rpartition("-")[2] for row in each if row["error_code"]} for each in (rows, again.rows())
    ]
    assert numbers[0] == numbers[1], "the seed and the request's number choose"


def test_targets_get_their_exact_shares_and_tables_of_their_own(locust: Locust, tmp_path: Path) -> None:
    specs = ("ttft=10ms,itl=2ms", "ttft=60ms,itl=2ms")
    with (
        launch(specs[0], log=tmp_path / "a.jsonl", max_seconds=60) as near,
        launch(specs[1], log=tmp_path / "b.jsonl", max_seconds=60) as far,
    ):
        targets = f"small=3,large=1.5,small@{far.url}/=1.5"
        done = locust.run("--host", near.url, "--llm-sweep", "3", "--llm-requests", "40", "--llm-warmup", "0",
                          "--llm-targets", targets, "--llm-report")  # fmt: skip
    assert done.code == 0, done.err
    rows = done.rows()
    assert Counter((row["model"], row["endpoint"]) for row in rows) == {
        ("small", near.url): 20, ("large", near.url): 10, ("small", far.url): 10,
    }  # fmt: skip
    in_order = [row["model"] for row in sorted(rows, key=lambda row: int(row["request_id"].rpartition("-")[2]))]
    assert in_order[:4].count("small") == 3, "they come interleaved"
    far_name = far.url.removeprefix("http://")
    assert {row["name"] for row in rows} == {"small @ host", "large", f"small @ {far_name}"}
    assert (len(entries_of(tmp_path / "a.jsonl")), len(entries_of(tmp_path / "b.jsonl"))) == (30, 10)
    for name in ("large", f"small @ {near.url}", f"small @ {far.url}"):
        assert f"| {name} " in done.out


def test_a_conversation_stays_with_its_target(locust: Locust) -> None:
    with launch("ttft=5ms,itl=1ms", max_seconds=60) as near, launch("ttft=5ms,itl=1ms", max_seconds=60) as far:
        done = locust.run("--llm-sweep", "3", "--llm-requests", "30", "--llm-warmup", "0", "--llm-turns", "fixed:3",
                          "--llm-think-time", "0", "--llm-targets", f"m@{near.url},m@{far.url}",
                          locustfile=TALK)  # fmt: skip
    assert done.code == 0, done.err
    held = by_conversation(done.rows())
    assert all(len({row["endpoint"] for row in turns}) == 1 for turns in held.values())
    counts = Counter(turns[0]["endpoint"] for turns in held.values())
    assert abs(counts[near.url] - counts[far.url]) <= 1
