"""A trace replayed: arrivals, lengths and shared prefixes as the file has them, against what the server saw."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from llm_users.prompts import load_tokenizer, read_trace
from llm_users.simulator.launch import launch
from tests.ports import master_ports
from tests.system.locust_runs import Finished, Locust
from tests.system.runs.test_open_loop import received_s
from tests.unit.prompts.recorder import Recorder
from tests.unit.prompts.tokenizers import shared_tokens

pytestmark = pytest.mark.slow


def bursts(folder: Path, count: int = 41) -> str:
    """Uneven gaps, two requests at a time now and then, rows out of order; an odd number of them."""
    rows, at_ms = [], 500
    for number in range(count):
        at_ms += (0, 40, 130, 90, 260)[number % 5]
        tokens = 30 + 7 * number
        rows.append({"timestamp": at_ms, "input_length": tokens, "output_length": 2 + number % 4, "hash_ids": [number]})
    path = folder / "bursts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows[1::2], *rows[::2]]))
    return str(path)


def by_entry(run: Finished) -> list[dict[str, str]]:
    """The rows in the order of the trace: every prompt once, and all of them measured."""
    rows = sorted(run.rows(), key=lambda row: int(row["prompt_index"]))
    assert [int(row["prompt_index"]) for row in rows] == list(range(len(rows)))
    assert {row["measured"] for row in rows} == {"1"}
    return rows


def test_arrivals_and_lengths_are_those_of_the_trace(locust: Locust, tmp_path: Path) -> None:
    path, log = bursts(tmp_path), tmp_path / "log.jsonl"
    entries = read_trace(path, speed=2).entries
    with launch("ttft=20ms,itl=5ms", max_seconds=60, log=log) as simulator:
        run = locust.run("--host", simulator.url, "--llm-trace", path, "--llm-trace-speed", "2")
    assert run.code == 0, run.err
    rows = by_entry(run)
    assert len(rows) == len(entries) == 41
    assert [int(row["requested_output_tokens"]) for row in rows] == [entry.output_tokens for entry in entries]
    assert [int(row["output_tokens"]) for row in rows] == [entry.output_tokens for entry in entries]
    came = received_s(log, rows)
    late = [at_s - came[0] - entry.at_s for at_s, entry in zip(came, entries, strict=True)]
    assert statistics.median(map(abs, late)) < 0.01
    stage = run.rows("stages")[0]
    assert (stage["requests_measured"], stage["concurrency"], stage["rate_per_s"]) == ("41", "0", "19.2308")
    assert "41 requests in 2.08 s" in run.manifest["trace"]


def test_two_processes_take_every_entry_once(locust: Locust, tmp_path: Path) -> None:
    path, log = bursts(tmp_path), tmp_path / "log.jsonl"
    entries = read_trace(path, window=(1, 3)).entries
    with launch("ttft=20ms,itl=5ms", max_seconds=60, log=log) as simulator:
        run = locust.run("--host", simulator.url, "--llm-trace", path, "--llm-trace-window", "1-3", "--llm-requests",
                         "15", "--processes", "2", *master_ports())  # fmt: skip
    assert run.code == 0, run.err
    rows = by_entry(run)
    assert len(rows) == 15 < len(entries)
    assert [int(row["worker"]) for row in rows] == [index % 2 for index in range(15)]
    assert [int(row["requested_output_tokens"]) for row in rows] == [entry.output_tokens for entry in entries[:15]]
    # Row by row: each entry came at its own time, whichever process sent it.
    came = [received_s(log, [row])[0] for row in rows]
    late = [(b - a) - (y.at_s - x.at_s) for (a, b), (x, y) in zip(pairwise(came), pairwise(entries[:15]), strict=True)]
    assert statistics.median(map(abs, late)) < 0.01


def test_prefixes_arrive_as_the_hashes_say(locust: Locust, tmp_path: Path) -> None:
    rows = [
        {"timestamp": 0, "input_length": 1600, "output_length": 2, "hash_ids": [1, 2, 3, 4]},
        {"timestamp": 150, "input_length": 1100, "output_length": 2, "hash_ids": [1, 2, 9]},
        {"timestamp": 300, "input_length": 700, "output_length": 2, "hash_ids": [8, 2]},
    ]
    path = tmp_path / "prefixes"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Recorder() as endpoint:
        run = locust.run("--host", endpoint.url, "--llm-model", "m", "--llm-trace", str(path))
    assert run.code == 0, run.err
    tokenizer = load_tokenizer(None)
    texts = sorted(endpoint.texts, key=len, reverse=True)
    assert [tokenizer.count(text) for text in texts] == [1600, 1100, 700]
    shared = [shared_tokens(tokenizer, texts[0], text) for text in texts[1:]]
    assert 1000 <= shared[0] <= 1030
    assert shared[1] <= 3
    assert sorted(body["max_tokens"] for body in endpoint.bodies) == [2, 2, 2]


def test_what_is_dropped_takes_its_entry_along(locust: Locust, tmp_path: Path) -> None:
    path = bursts(tmp_path, 21)
    with launch("ttft=200ms,itl=5ms", max_seconds=60) as simulator:
        run = locust.run("--host", simulator.url, "--llm-trace", path, "--llm-trace-speed", "4",
                         "--llm-max-in-flight", "2", "--llm-overflow", "drop")  # fmt: skip
    rows, entries = by_entry(run), read_trace(path).entries
    assert len(rows) == 21
    assert 5 < sum(row["error_code"] == "overflow" for row in rows) < 19
    assert [int(row["requested_output_tokens"]) for row in rows] == [entry.output_tokens for entry in entries]


def test_a_trace_that_cannot_be_ends_the_run_before_it_begins(locust: Locust, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,5,5\nnoon,5,5\n")
    run = locust.run("--host", "http://127.0.0.1:9/v1", "--llm-trace", str(path))
    assert run.code == 2
    assert "--llm-trace: trace" in run.err
    assert "line 3: TIMESTAMP 'noon'" in run.err
    warm = locust.run("--host", "http://127.0.0.1:9/v1", "--llm-trace", str(path), "--llm-warmup", "3")
    assert warm.code == 2
    assert "exclude each other: warm-up requests would be missing" in warm.err
