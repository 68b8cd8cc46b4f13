"""Runs of OpenAI's responses and Anthropic's messages: rows against the log of the endpoint."""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_users.simulator.launch import launch

STREAMS = 32
SPEC = "ttft=150ms,itl=10ms,reasoning=4,tool=4,cached=7"
Rows = list[dict[str, str]]


def run_locust(folder: Path, url: str, api: str, *arguments: str) -> Callable[[str], Rows]:
    """A run by `llm-bench`; the result reads its files."""
    command = [
        str(Path(sys.executable).with_name("llm-bench")), "--headless", "--only-summary", "--host", url,
        "--csv", str(folder / "run"), "--llm-api", api, "--llm-warmup", "0", "--llm-input-tokens", "50,10",
        *arguments,
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "ANTHROPIC_"))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, env=environment, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode in (0, 1), done.stderr

    def read(suffix: str) -> Rows:
        with (folder / f"run_llm_{suffix}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.mark.parametrize(
    ("api", "names"),
    [("responses", ("openai-responses", "openai")), ("messages", ("anthropic-messages", "anthropic"))],
)
def test_rows_of_many_streams_agree_with_the_log(tmp_path: Path, api: str, names: tuple[str, str]) -> None:
    """Counts exactly; times to what a machine that is busy with other tests allows."""
    log = tmp_path / "log.jsonl"
    with launch(SPEC, log=log) as simulator:
        lengths = ("--llm-output-tokens", "40,8", "--llm-sweep", str(STREAMS), "--llm-requests", str(3 * STREAMS))
        read = run_locust(tmp_path, simulator.url, api, *lengths)
        simulator.stop()
    sent = {entry["response_id"]: entry for entry in map(json.loads, log.read_text().splitlines())}
    rows = read("requests")
    assert len(rows) == len(sent) == 3 * STREAMS
    assert {row["error_code"] for row in rows} == {""}
    assert {(row["api"], row["framework"], row["model"]) for row in rows} == {(*names, "simulated")}
    ttft_errors_s, answer_errors_s, span_errors_s = [], [], []
    for row in rows:
        entry = sent[row["response_id"]]
        tokens = int(row["requested_output_tokens"])
        assert (int(row["output_tokens"]), int(row["chunks"]), entry["tokens"]) == (tokens, tokens, tokens)
        assert (row["output_tokens_source"], row["input_tokens"]) == ("usage", str(entry["prompt_tokens"]))
        assert (row["cached_tokens"], row["stamp_source"]) == ("7", "kernel")
        stamps_s = [stamp_ns / 1e9 for stamp_ns in entry["sent_ns"]]
        received_s = entry["received_ns"] / 1e9
        ttft_errors_s.append(abs(float(row["ttft_s"]) - (stamps_s[0] - received_s)))
        answer_errors_s.append(abs(float(row["ttfat_s"]) - (stamps_s[4] - received_s)))  # after the reasoning
        measured_s = float(row["last_token_s"]) - float(row["ttft_s"])
        span_errors_s.append(abs(measured_s - (stamps_s[-1] - stamps_s[0])))
    for errors_s in (ttft_errors_s, answer_errors_s, span_errors_s):
        assert statistics.median(errors_s) < 1e-3


@pytest.mark.parametrize(("api", "code"), [("responses", "rate_limit_exceeded"), ("messages", "rate_limit_error")])
def test_an_account_s_limit_is_throttling_and_an_overloaded_service_is_not(tmp_path: Path, api: str, code: str) -> None:
    errors = "error=429:0.2+529:0.2,stream_error=throttlingException@2:0.3+serviceUnavailableException@2:0.2"
    with launch(f"ttft=5ms,itl=1ms,{errors}") as simulator:
        read = run_locust(tmp_path, simulator.url, api, "--llm-sweep", "4", "--llm-requests", "60")
    rows, (stage,) = read("requests"), read("stages")
    codes = [row["error_code"] for row in rows]
    assert {"429", "529", code} <= set(codes)
    assert int(stage["requests_throttled"]) == codes.count("429") + codes.count(code)
    assert int(stage["requests_failed"]) == 60 - codes.count("")
