"""A sweep of lengths: every stage sends prompts of exactly its length, and all outputs name the lengths."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

import llm_reports
from llm_users.prompts import load_tokenizer
from llm_users.simulator.launch import launch
from tests.ports import master_ports
from tests.system.locust_runs import Locust
from tests.unit.prompts.recorder import Recorder

PAIRS = [(120, 5), (60, 20), (400, 10)]
SWEEP = ",".join(f"{inputs}/{outputs}" for inputs, outputs in PAIRS)


@pytest.mark.parametrize("processes", [1, 2])
def test_each_stage_sends_prompts_of_its_length(processes: int, locust: Locust) -> None:
    distributed = ["--processes", "2", *master_ports()] if processes > 1 else []
    with Recorder() as recorder:
        run = locust.run("--host", recorder.url, "--llm-model", "m", "--llm-length-sweep", SWEEP, "--llm-sweep", "2,4",
                         "--llm-requests", "12", "--llm-warmup", "0", *distributed)  # fmt: skip
        bodies = list(recorder.bodies)
    assert run.code == 0, run.err
    stages = [
        (int(line["stage_input_tokens"]), int(line["stage_output_tokens"]), int(line["concurrency"]))
        for line in run.rows("stages")
    ]
    assert stages == [(*pair, users) for pair in PAIRS for users in (2, 4)]
    count = load_tokenizer(None).count
    sent: defaultdict[tuple[int, int], int] = defaultdict(int)
    for body in bodies:
        sent[count(body["messages"][0]["content"]), body["max_tokens"]] += 1
    assert sent == dict.fromkeys(PAIRS, 24)
    indices = [row["prompt_index"] for row in run.rows()]
    assert len(set(indices)) == len(indices)
    texts = [body["messages"][0]["content"] for body in bodies]
    assert len(set(texts)) == len(texts)


def test_the_tables_and_the_curves_have_the_lengths(locust: Locust, tmp_path: Path) -> None:
    with launch("ttft=50ms,itl=10ms", max_seconds=60) as simulator:
        run = locust.run("--host", simulator.url, "--llm-length-sweep", "60/5,60/20", "--llm-sweep", "1,2",
                         "--llm-requests", "10", "--llm-report")  # fmt: skip
    assert run.code == 0, run.err
    assert "60/5 tokens (ISL/OSL)" in run.out
    assert "| ISL | OSL | Concurrency |" in run.out
    # The latency of an answer of n tokens is known: 50 ms and n - 1 gaps.
    with Path(f"{run.prefix}_report/summary.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["metric"] == "end_to_end_latency_s"]
    found = {(line["stage_output_tokens"], line["concurrency"]): float(line["median"]) for line in lines}
    expected = {(str(tokens), users): 0.05 + 0.01 * (tokens - 1) for tokens in (5, 20) for users in ("1", "2")}
    assert found == pytest.approx(expected, abs=0.02)
    page = Path(f"{run.prefix}_report/report.html").read_text()
    assert "60/5 tokens" in page
    assert "60/20 tokens" in page
    loaded = llm_reports.load(run.prefix)
    frame = llm_reports.summary([loaded])
    assert set(frame["stage_output_tokens"].dropna()) == {5, 20}
