"""Whole runs without streams: rows against the log of the endpoint, tables, verdicts and conversations."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import launch
from tests.project import ROOT
from tests.system.locust_runs import Finished, Locust

TALK = str(ROOT / "locustfiles" / "conversations.py")
OF_A_STREAM = (
    "ttft_s", "ttfat_s", "tpot_s", "last_token_s", "gap_p50_s", "gap_p95_s", "gap_p99_s", "gap_max_s",
    "corrected_ttft_s", "events_per_token",
)  # fmt: skip


def rows_against_the_log(done: Finished, log: Path) -> list[dict[str, str]]:
    """The rows of a run without streams, each compared with the log of the endpoint."""
    entries: dict[str, dict[str, Any]] = {
        entry["response_id"]: entry for entry in map(json.loads, log.read_text().splitlines())
    }
    rows = done.rows()
    assert {row["response_id"] for row in rows} == set(entries)
    for row in rows:
        entry = entries[row["response_id"]]
        assert (row["error_code"], row["streamed"], row["chunks"]) == ("", "0", "0")
        assert [row[name] for name in OF_A_STREAM] == [""] * len(OF_A_STREAM)
        assert (int(row["output_tokens"]), row["output_tokens_source"]) == (entry["tokens"], "usage")
        sent_s = (entry["last_ns"] - entry["received_ns"]) / 1e9
        assert float(row["end_to_end_latency_s"]) == pytest.approx(sent_s, abs=0.02)
        throughput = float(row["request_output_throughput_token_per_s"])
        assert throughput == pytest.approx(entry["tokens"] / float(row["end_to_end_latency_s"]), rel=1e-6)
    return rows


def tokens_ended(rows: list[dict[str, str]], start_s: float, end_s: float) -> int:
    """The tokens of the answers that ended in this time."""
    ends = [(float(row["started_at"]) + float(row["end_to_end_latency_s"]), int(row["output_tokens"])) for row in rows]
    return sum(tokens for ended_s, tokens in ends if start_s < ended_s <= end_s)


def test_a_sweep_without_streams_counts_answers_at_their_ends(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=40ms,itl=2ms", log=log) as simulator:
        done = locust.run(
            "--host", simulator.url, "--llm-no-stream", "--llm-sweep", "2,4", "--llm-requests", "40",
            "--llm-output-tokens", "20,5", "--llm-input-tokens", "50,5",
        )  # fmt: skip
    assert done.code == 0, done.err
    rows = rows_against_the_log(done, log)
    assert {row["window_share"] for row in rows if row["measured"] == "1"} <= {"0", "1"}
    for stage in done.rows("stages"):
        of_stage = [row for row in rows if row["stage"] == stage["stage"]]
        start_s = float(stage["measure_started_at"])
        end_s = start_s + float(stage["measure_s"])
        certain, possible = (
            tokens_ended(of_stage, start_s + 0.005, end_s - 0.005),
            tokens_ended(of_stage, start_s - 0.005, end_s + 0.005),
        )
        assert certain <= float(stage["window_tokens"]) <= possible
        assert certain >= 0.8 * possible
        assert float(stage["output_throughput_token_per_s"]) == pytest.approx(
            float(stage["window_tokens"]) / float(stage["measure_s"]), rel=1e-6
        )
    text = " ".join(done.out.split())
    assert "The answers were not streamed, so there are no TTFT, TPOT and gaps." in text
    assert "buffered" not in done.out + done.err


def test_objectives_that_need_a_stream_are_refused_before_the_run(locust: Locust) -> None:
    for flag in ("--llm-slo", "--llm-find"):
        done = locust.run("--llm-simulator", "--llm-no-stream", flag, "ttft_p95<0.5", "--llm-sweep", "1,2")
        assert done.code == 2
        assert f"{flag}: ttft_p95<0.5 requires streamed answers, and the run has none (--llm-no-stream" in done.err


def test_conversations_without_streams_have_their_history(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=10ms,itl=1ms", log=log) as simulator:
        done = locust.run(
            "--host", simulator.url, "--llm-no-stream", "--llm-sweep", "2", "--llm-requests", "12",
            "--llm-turns", "fixed:3", "--llm-think-time", "0.01s", "--llm-output-tokens", "10,0",
            "--llm-input-tokens", "20,0", locustfile=TALK,
        )  # fmt: skip
    assert done.code == 0, done.err
    rows = rows_against_the_log(done, log)
    turns = sorted(rows, key=lambda row: (row["conversation_id"], int(row["turn"])))
    for before, after in pairwise(turns):
        if before["conversation_id"] == after["conversation_id"]:
            assert int(after["input_tokens"]) > int(before["input_tokens"]) + int(before["output_tokens"])
    assert {row["ttft_first_s"] for row in done.rows("conversations")} == {""}
