"""Time per output token of real streams against the simulator's log: (last token - first token) / (N - 1).

The right answer is vLLM's ``vllm:request_time_per_output_token_seconds``: the stop token is the last token. One run of
the ``locust`` command asks several endpoints, each in a process of its own; answers are matched by their ids.
"""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from llm_users.simulator.launch import import_path, launch
from llm_users.simulator.spec import Spec
from tests.system.truth.line import TruthLine, at_least, at_most, within

ASKED = 110
"""Requests of each case: at least 100 answers whose first chunk was read alone."""

_BOUND_S = 120.0
_PACE = "ttft=10ms,itl=10ms,jitter=0.15"
_HIDDEN = 50


@dataclass(frozen=True)
class Case:
    """What one kind of request asks of which endpoint."""

    name: str
    spec: str
    tokens: int
    api: str = "chat"
    choices: int = 1

    @property
    def body(self) -> dict[str, Any]:
        cap = "max_output_tokens" if self.api == "respond" else "max_tokens"
        return {cap: self.tokens} | ({"n": self.choices} if self.choices > 1 else {})


STOP, CUT = f"{_PACE},dialect=vllm,finish=stop", f"{_PACE},dialect=vllm,finish=length"
HIDDEN = f"{STOP},reasoning={_HIDDEN},reasoning_shown=none,role=early"
BUFFERED = f"{_PACE},buffered=on"
CASES = [
    *(Case(f"stop, {tokens} tokens", STOP, tokens) for tokens in (3, 8, 25, 150)),
    *(Case(f"length, {tokens} tokens", CUT, tokens) for tokens in (3, 8, 25, 150)),
    Case("hidden reasoning, 30 of 80 tokens visible", HIDDEN, _HIDDEN + 30),
    Case("the same without a reasoning figure", f"{HIDDEN},reasoning_counted=off", _HIDDEN + 30),
    Case("a summary of the reasoning (responses)", HIDDEN.replace("none", "summary"), _HIDDEN + 30, "respond"),
    Case("3 choices of 20 to 36 tokens (n), stop", STOP, 36, choices=3),
    Case("3 choices, usage per choice", f"{STOP},usage=every", 36, choices=3),
    Case("5 tokens in each chunk, usage in every chunk", f"{STOP},usage=every,tokens_per_chunk=5", 41),
]
STREAMED = [
    Case("fast model, 8 tokens in 4 ms", "ttft=60ms,itl=570us", 8),
    Case("4 tokens at once (speculative decoding)", "ttft=60ms,itl=500us,tokens_per_chunk=4", 40),
    Case("7 chunks at once", "ttft=300ms,itl=0", 7),
]
"""Streams that a rule for buffered answers could take for such ones."""

_LOCUSTFILE = """
import itertools, json, os
from locust import task
from llm_users import OpenAIUser

CASES = json.loads(os.environ["TPOT_CASES"])
turns = itertools.count()


class Asks(OpenAIUser):
    @task
    def ask(self):
        case = CASES[next(turns) % len(CASES)]
        self.host, self.request_name = case["url"], case["name"]
        getattr(self, case["api"])("Why is the sky blue?", **case["body"])
"""


@dataclass(frozen=True)
class Asked:
    """One answer: our row, and when the server sent its tokens."""

    row: dict[str, str]
    sent_ns: Sequence[int]

    @property
    def tpot_s(self) -> float:
        return float(self.row["tpot_s"] or "nan")


def run_cases(cases: Sequence[Case], asked: int, users: int = 24) -> dict[str, list[Asked]]:
    """Ask each case so many times, in turns; the answers by the name of their case."""
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder = Path(text)
        specs = list(dict.fromkeys(case.spec for case in cases))
        logs = {spec: folder / f"{number}.jsonl" for number, spec in enumerate(specs)}
        urls = {
            spec: stack.enter_context(launch(f"{spec},model=m{number}", log=logs[spec], max_seconds=_BOUND_S)).url
            for number, spec in enumerate(specs)
        }
        locustfile = folder / "locustfile.py"
        locustfile.write_text(_LOCUSTFILE)
        asks = [{"name": case.name, "url": urls[case.spec], "api": case.api, "body": case.body} for case in cases]
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "OPENAI_"))}
        done = subprocess.run(
            [
                sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "--only-summary",
                "--host", next(iter(urls.values())), "--csv", str(folder / "run"), "--llm-model", "m",
                "--llm-sweep", str(users), "--llm-requests", str(asked * len(cases)), "--llm-warmup", "0",
            ],
            cwd=folder, env={**plain, **import_path(), "TPOT_CASES": json.dumps(asks)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_BOUND_S, check=False,
        )  # fmt: skip
        stack.close()  # the logs are complete when the endpoints have ended
        assert done.returncode == 0, done.stderr[-3000:]
        sent: dict[tuple[str, str], Sequence[int]] = {}
        for spec, log in logs.items():
            for line in log.read_text().splitlines():
                entry = json.loads(line)
                sent[(spec, entry["response_id"])] = entry["sent_ns"]
        with (folder / "run_llm_requests.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    spec_of = {case.name: case.spec for case in cases}
    found: dict[str, list[Asked]] = {case.name: [] for case in cases}
    for row in rows:
        assert row["error_code"] in ("", "buffered"), row
        found[row["name"]].append(Asked(row, sent[(spec_of[row["name"]], row["response_id"])]))
    return found


def right_tpot_s(case: Case, sent_ns: Sequence[int]) -> float:
    """What the log says: the time from the first to the last token of each choice, by the tokens after the first."""
    if case.choices > 1:
        lengths = [case.tokens - choice * (case.tokens // (2 * case.choices)) for choice in range(case.choices)]
        return fmean((sent_ns[length - 1] - sent_ns[0]) / 1e9 / (length - 1) for length in lengths)
    first = 5 if "tokens_per_chunk=5" in case.spec else 1
    visible = case.tokens
    if "reasoning" in case.spec:
        visible -= _HIDDEN
        if "summary" in case.spec:  # the first answer token is the one after the summary's words
            sent_ns = sent_ns[_HIDDEN // 10 :]
    return (sent_ns[-1] - sent_ns[0]) / 1e9 / (visible - first)


def lines(full: bool) -> Iterable[TruthLine]:
    """Means over at least 100 answers within 1 % of the log's; with hidden tokens that nobody counts, within 10 %."""
    cases = CASES if full else [case for case in CASES if "150" not in case.name]
    found = run_cases(cases, ASKED if full else 25)
    for case in cases:
        # Where the client read several chunks first, c1 is known to be late: `first_coalesced` says so.
        answers = [each for each in found[case.name] if each.row["first_coalesced"] == "0"]
        right, ours = (
            fmean(right_tpot_s(case, each.sent_ns) for each in answers),
            fmean(each.tpot_s for each in answers),
        )
        # A local count is that of another vocabulary; the words of the simulator are about one token each.
        tolerance = 0.35 if "without" in case.name else 0.01 if full else 0.03
        yield within(f"TPOT, {case.name} ({len(answers)} answers)", right * 1e3, ours * 1e3, tolerance, "ms")
    yield at_most("answers without TPOT", 0.0, fmean(math.isnan(a.tpot_s) for c in cases for a in found[c.name]))
    yield from _buffered_lines(full)


def _was_late(case: Case, sent_ns: Sequence[int]) -> bool:
    """True when the endpoint sent the chunks in less than two thirds of the time that its spec says."""
    spec = Spec.parse(case.spec)
    due_s = spec.itl_s * (case.tokens - spec.tokens_per_chunk)
    return (sent_ns[-1] - sent_ns[0]) / 1e9 < due_s * 2 / 3


def _buffered_lines(full: bool) -> Iterable[TruthLine]:
    """Which answers are marked as buffered."""
    buffered = Case("buffered by a proxy, 150 tokens", BUFFERED, 150)
    cases = [*STREAMED, buffered]
    found = run_cases(cases, ASKED if full else 10, users=4)
    for case in cases:
        # A server that was itself late, and then sent all that was due, is no fast model.
        answers = [each for each in found[case.name] if case is buffered or not _was_late(case, each.sent_ns)]
        share = fmean(each.row["error_code"] == "buffered" for each in answers)
        figure = f"marked as buffered: {case.name} ({len(answers)})"
        # Beside busy neighbours the client is late itself, and then cannot tell.
        yield at_least(figure, 0.9 if full else 0.0, share, "all") if case is buffered else at_most(figure, 0.0, share)
    empty = ("ttft_s", "ttfat_s", "tpot_s", "gap_p50_s", "gap_max_s")
    marked = [each.row for each in found[buffered.name] if each.row["error_code"] == "buffered"]
    yield at_most("buffered answers with a time to first token, TPOT or gap", 0.0,
                  fmean(any(row[name] for name in empty) for row in marked) if marked else 0.0)  # fmt: skip
