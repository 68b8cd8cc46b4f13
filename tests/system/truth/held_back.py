"""Which answers are taken for held back by a gateway, or buffered: false alarms and power, by how the chunks were sent.

``python -m tests.system.truth.main held_back`` prints the table. The settings are scripted servers, whose bursts and
pauses are known because this module makes them, and the simulator. Each answer of a model passes through a gateway:
none, a buffer of a given size, or a timer. A client that is late itself runs a locustfile that blocks its event loop.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from llm_users.simulator.launch import import_path, launch
from tests.stream_bytes import DONE, LAST_CHUNK, chunk, event, head, usage
from tests.system.truth.line import TruthLine, at_least, at_most
from tests.wire_server import Script, Wire, pause, send

_BOUND_S = 400.0
_USERS = 16
_LOCUSTFILE = """
import itertools, json, os, time
import gevent
from locust import events, task
from llm_users import OpenAIUser

CASES = json.loads(os.environ["CASES"])
LATE_S = float(os.environ["LATE_S"])
turns = itertools.count()


def be_late():
    while True:
        end_s = time.monotonic() + LATE_S
        while time.monotonic() < end_s:  # time.sleep would let the event loop run
            pass
        gevent.sleep(0.002)


@events.test_start.add_listener
def begin(environment, **_):
    if LATE_S:
        gevent.spawn_later(0.5, be_late)


class Asks(OpenAIUser):
    @task
    def ask(self):
        case = CASES[next(turns) % len(CASES)]
        self.host, self.request_name = case["url"], case["name"]
        self.chat("Why is the sky blue?", **case["body"])
"""

Sent = list[tuple[float, bytes]]
"""What leaves when: seconds after the request, bytes."""

Pace = Callable[[random.Random, int], list[float]]
"""From a generator and a number of tokens, the time of each token in seconds after the first one."""

Gateway = Callable[[random.Random, Sent], Sent]


def steady(itl_s: float, jitter: float = 0.2) -> Pace:
    """One token after the other."""

    def times(rng: random.Random, tokens: int) -> list[float]:
        now_s, made = 0.0, []
        for _ in range(tokens):
            made.append(now_s)
            now_s += itl_s * rng.lognormvariate(-(jitter**2) / 2, jitter)
        return made

    return times


def drafted(step_s: float, drafts: int, accepted: float) -> Pace:
    """Speculative decoding: a step makes one token and the drafted ones before the first that is rejected."""

    def times(rng: random.Random, tokens: int) -> list[float]:
        now_s, made = 0.0, [0.0]  # the first token comes from prefill
        while len(made) < tokens:
            now_s += step_s * rng.uniform(0.9, 1.1)
            kept = next((draft for draft in range(drafts) if rng.random() >= accepted), drafts)
            made += [now_s] * (kept + 1)
        return made[:tokens]

    return times


def direct(_rng: random.Random, sent: Sent) -> Sent:
    """No gateway. What is made at one moment leaves in one write."""
    writes: dict[float, bytes] = {}
    for at_s, data in sent:
        writes[at_s] = writes.get(at_s, b"") + data
    return list(writes.items())


def buffer(size: int) -> Gateway:
    """Forwards a fixed number of bytes at a time, wherever an event ends, and the rest at the end."""

    def hold(_rng: random.Random, sent: Sent) -> Sent:
        kept, out = b"", []
        for at_s, data in sent:
            kept += data
            while len(kept) >= size:
                out.append((at_s, kept[:size]))
                kept = kept[size:]
        return [*out, (sent[-1][0], kept)] if kept else out

    return hold


def timer(period_s: float, *, first_at_once: bool = False) -> Gateway:
    """Lets go of all that it has once in a period, or of the first event at once and of the rest in periods."""

    def hold(rng: random.Random, sent: Sent) -> Sent:
        first_s, end_s = sent[0][0], sent[-1][0]
        due_s = first_s if first_at_once else first_s + rng.random() * period_s
        out, rest = [], list(sent)
        while rest:
            due_s = min(due_s, end_s)
            ready = b"".join(data for at_s, data in rest if at_s <= due_s)
            rest = [(at_s, data) for at_s, data in rest if at_s > due_s]
            if ready:
                out.append((due_s, ready))
            due_s += period_s
        return out

    return hold


def whole(_rng: random.Random, sent: Sent) -> Sent:
    """Lets go of the complete answer, in several writes as from a slow line."""
    everything, end_s = b"".join(data for _, data in sent), sent[-1][0]
    return [(end_s + place * 2e-7, everything[place : place + 4096]) for place in range(0, len(everything), 4096)]


@dataclass(frozen=True)
class Case:
    """One kind of answer: how its tokens are made, and what it passes through."""

    name: str
    pace: Pace | None = None
    gateway: Gateway = direct
    tokens: int = 150
    ttft_s: float = 0.3
    event_bytes: int = 235
    """Return an event as long as vLLM's chat events. Events of OpenAI have 330 bytes, those of the Messages API 130."""
    choices: int = 1
    spec: str = ""
    """The simulator's, in place of a script."""

    def script(self, rng: random.Random) -> Script:
        """What the scripted server does for one request."""
        assert self.pace is not None
        made = self.pace(rng, self.tokens)
        sent = [
            (self.ttft_s + at_s, self._event(number, choice))
            for number, at_s in enumerate(made)
            for choice in range(self.choices)
        ]
        ends = b"".join(self._event(None, choice) for choice in range(self.choices))
        sent[-1] = (sent[-1][0], sent[-1][1] + ends + usage(self.tokens * self.choices) + DONE)
        script, now_s = [send(head("chunked"))], 0.0
        for at_s, data in self.gateway(rng, sent):
            script += [pause(max(0.0, at_s - now_s)), send(chunk(data))]
            now_s = max(now_s, at_s)
        return [*script, send(LAST_CHUNK)]

    def _event(self, number: int | None, choice: int) -> bytes:
        text = {} if number is None else {"content": f" w{number}"}
        finish = "stop" if number is None else None
        data = {"id": "", "choices": [{"index": choice, "delta": text, "finish_reason": finish}]}
        data["id"] = "x" * max(1, self.event_bytes - len(event(data)))
        return event(data)


_STEADY = steady(0.02)
STREAMED = [
    Case("one token each 20 ms", _STEADY, tokens=100),
    Case("one token each 2 ms", steady(0.002), tokens=300),
    *(
        Case(f"{k} drafted, {share * 100:.0f} % accepted, 30 ms a step", drafted(0.03, k, share), tokens=200)
        for k in (2, 4, 8)
        for share in (0.7, 1.0)
    ),
    Case("8 drafted, all accepted, 200 ms a step", drafted(0.2, 8, 1.0), tokens=120),
    Case("16 drafted (llama.cpp), 90 % accepted, 60 ms a step", drafted(0.06, 16, 0.9), tokens=250),
    Case("16 drafted, all accepted, 100 ms a step", drafted(0.1, 16, 1.0), tokens=250),
    Case("64 drafted (n-grams), 97 % accepted, 150 ms a step", drafted(0.15, 64, 0.97), tokens=600),
    Case("fast model, 8 tokens in 4 ms after 0.5 s", steady(0.00057, 0.0), tokens=8, ttft_s=0.5),
    Case("fast model, 300 tokens at 2,000/s", steady(0.0005), tokens=300, ttft_s=0.5),
    Case("fast model, 1,000 tokens at 2,500/s after 4 s", steady(0.0004), tokens=1000, ttft_s=4.0),
    Case("short answers, 20 chunks in 3 bursts", _STEADY, buffer(2048), tokens=20),
    Case("4 choices, each 20 ms", _STEADY, tokens=100, choices=4),
    Case("4 choices, 8 drafted, all accepted", drafted(0.03, 8, 1.0), tokens=150, choices=4),
]
SIMULATED = [
    Case("simulator, one token each 20 ms", spec="ttft=100ms,itl=20ms,jitter=0.2", tokens=100),
    Case("simulator, 1,000 tokens/s", spec="ttft=100ms,itl=1ms,jitter=0.2", tokens=400),
    Case("simulator, 10,000 tokens/s", spec="ttft=100ms,itl=100us", tokens=400),
    Case("simulator, 5 tokens in each chunk", spec="ttft=100ms,itl=5ms,tokens_per_chunk=5", tokens=200),
    Case("simulator, 3 choices", spec="ttft=100ms,itl=10ms", tokens=100, choices=3),
]
HELD = [
    Case("buffer of 4 KiB, events of 235 bytes, 20 ms", _STEADY, buffer(4096)),
    Case("buffer of 4 KiB, events of 330 bytes, 20 ms", _STEADY, buffer(4096), event_bytes=330),
    Case("buffer of 4 KiB, events of 130 bytes, 10 ms", steady(0.01), buffer(4096), tokens=250, event_bytes=130),
    Case("buffer of 8 KiB, 20 ms", _STEADY, buffer(8192)),
    Case("buffer of 8 KiB, 2 choices", _STEADY, buffer(8192), choices=2),
    Case("buffer of 4 KiB, 4 drafted", drafted(0.04, 4, 0.7), buffer(4096), tokens=200),
    Case("timer of 1 s, 20 ms", _STEADY, timer(1.0), tokens=250),
    Case("timer of 1 s, first event at once", _STEADY, timer(1.0, first_at_once=True), tokens=250),
    Case("timer of 5 s, 20 ms", _STEADY, timer(5.0), tokens=600),
    Case("timer of 250 ms, first event at once", steady(0.01), timer(0.25, first_at_once=True), tokens=250),
    Case("whole answer of 150 chunks", _STEADY, whole),
    Case("whole answer of 1,000 chunks", steady(0.005), whole, tokens=1000),
]
UNSEEN = ("timer of 250 ms, first event at once",)
"""Cannot be told from speculative decoding, so the rule lets them pass."""

_POWER = 0.5
"""On a busy machine the client is late itself, most of all beside 16 answers of 1,000 chunks in one burst. A note needs
a fifth of the answers."""

_LATE_CASES = [STREAMED[0], STREAMED[1], STREAMED[5], Case("one token each 5 ms", steady(0.005), tokens=300)]


def marked(cases: Sequence[Case], asked: int, late_s: float = 0.0) -> dict[str, tuple[int, int, int]]:
    """Return (answers, held back, buffered) of each case after ``asked`` requests, for a client with this delay."""
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder, rng = Path(text), random.Random(15)
        wire = stack.enter_context(Wire())
        urls = [
            stack.enter_context(launch(case.spec, max_seconds=_BOUND_S)).url
            if case.spec
            else wire.serve(*(case.script(rng) for _ in range(min(asked, 30)))).url
            for case in cases
        ]
        locustfile = folder / "locustfile.py"
        locustfile.write_text(_LOCUSTFILE)
        asks = [
            {
                "name": case.name,
                "url": url,
                "body": {"max_tokens": case.tokens} | ({"n": case.choices} if case.choices > 1 else {}),
            }
            for case, url in zip(cases, urls, strict=True)
        ]
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "OPENAI_"))}
        done = subprocess.run(
            [
                sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "--only-summary",
                "--host", urls[0], "--csv", str(folder / "run"), "--llm-model", "m",
                "--llm-sweep", str(_USERS), "--llm-requests", str(asked * len(cases)), "--llm-warmup", "0",
            ],
            cwd=folder, env={**plain, **import_path(), "CASES": json.dumps(asks), "LATE_S": str(late_s)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_BOUND_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        with (folder / "run_llm_requests.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    found = {}
    for case in cases:
        own = [row for row in rows if row["name"] == case.name]
        assert all(row["error_code"] in ("", "buffered") for row in own), own
        held = sum(row["burst_chunks"] != "0" for row in own)
        found[case.name] = (len(own), held, sum(row["error_code"] == "buffered" for row in own))
    return found


def lines(full: bool) -> Iterable[TruthLine]:
    """Streams are never marked; held-back ones nearly always, unless the client was late itself."""
    if not full:
        streamed, held = [STREAMED[7], STREAMED[10]], [HELD[2]]
        found = marked([*streamed, *held], 4)
        yield from _streamed_lines(streamed, found)
        yield from _held_lines(held, found, 0.0)  # beside busy neighbours the client is late itself
        return
    yield from _streamed_lines([*STREAMED, *SIMULATED], marked([*STREAMED, *SIMULATED], 24))
    yield from _held_lines(HELD, marked(HELD, 24), _POWER)
    for late_s in (0.01, 0.05, 0.2, 0.5):
        late = f", client late by {late_s * 1e3:g} ms"
        yield from _streamed_lines(_LATE_CASES, marked(_LATE_CASES, 12, late_s), late)
    yield from _held_lines([HELD[0], HELD[8]], marked([HELD[0], HELD[8]], 12, 0.01), _POWER, ", client late by 10 ms")


def _streamed_lines(
    cases: Sequence[Case], found: dict[str, tuple[int, int, int]], more: str = ""
) -> Iterable[TruthLine]:
    for case in cases:
        answers, held, buffered = found[case.name]
        yield at_most(f"{case.name}{more} ({answers})", 0.0, (held + buffered) / answers, "none")


def _held_lines(
    cases: Sequence[Case], found: dict[str, tuple[int, int, int]], least: float, more: str = ""
) -> Iterable[TruthLine]:
    for case in cases:
        answers, held, buffered = found[case.name]
        figure = f"HELD: {case.name}{more} ({answers}; {buffered} buffered)"
        least_here = 0.0 if case.name in UNSEEN else least
        yield at_least(figure, least_here, (held + buffered) / answers, "all")
