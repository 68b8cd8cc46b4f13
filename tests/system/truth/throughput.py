"""Throughput: Little's law where the load is a number of users, the server's own log where it is a rate.

In a steady closed loop throughput times mean latency is the number of users. An open loop has no such law, and beyond
the capacity no steady state, so there the right answer is what left the server inside the same window, request by
request. Three kinds of data: the real gate with users that wait instead of asking (real time), queue models (virtual
time), and real runs against the simulator, whose log has the moment at which every chunk left.
"""

from __future__ import annotations

import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import gevent

from llm_users.collect.stage_stats import StageBook
from llm_users.load.protocol.stage import StagePlan, StageTotals
from llm_users.load.worker.admission_gate import AdmissionGate
from llm_users.load.worker.permits import UserState
from llm_users.record import RequestRecord, StageLoad, StageRecord
from llm_users.simulator.launch import launch
from tests.project import ROOT
from tests.system.truth.line import TruthLine, within
from tests.system.truth.queue_models import NS, Answer, Outcome, closed_loop, open_loop

USERS = (1, 8, 40, 50, 60, 99)
_SPEC = "ttft=100ms,itl=10ms,capacity=8"  # answers of 20 tokens: at most 40 per second, more slowly from 8 at a time on
_TOKENS = 20


def lines(full: bool) -> Iterable[TruthLine]:
    """All figures; without ``full`` fewer seeds and one short run of each kind."""
    yield from _real_gate()
    yield from _fixed_lengths()
    yield from _mixed_lengths(seeds=40 if full else 12)
    yield from _queues(seeds=40 if full else 8)
    yield from _real_runs(full=full)


# The real gate.


def gate_stage(users: int, requests: int, latency_s: float) -> tuple[StageRecord, list[float]]:
    """A stage through the real ``AdmissionGate`` in real time: its row, and the latencies of the measured requests."""
    done = list[StageTotals]()
    gate, book = AdmissionGate(on_finished=done.append), StageBook()
    latencies: list[float] = []

    def user() -> None:
        user_state = UserState()
        while True:
            permit = gate.enter(user_state)
            start_ns = time.monotonic_ns()
            gevent.sleep(latency_s)
            end_ns = time.monotonic_ns()
            stamps_ns = [start_ns + (end_ns - start_ns) * k // _TOKENS for k in range(1, _TOKENS + 1)]
            record = RequestRecord(stage=1, measured=int(permit.measured), output_tokens=_TOKENS)
            record.count_in_window(gate.account(permit, start_ns, end_ns, stamps_ns, ok=True))
            if permit.measured:
                latencies.append((end_ns - start_ns) / NS)
            book.add(record)
            gate.leave(permit, user_state, None)

    greenlets = [gevent.spawn(user) for _ in range(users)]
    gevent.sleep(0)
    gate.prepare(StagePlan(1, StageLoad(users), ramp_s=latency_s / 2, warmup_requests=1))
    while gate.waiting < users:
        gevent.sleep(0.001)
    gate.go(requests)
    while not done:
        gevent.sleep(0.02)
    gevent.killall(greenlets)
    return book.record(1, StageLoad(users), done), latencies


def _real_gate() -> Iterator[TruthLine]:
    """All stages at a time, most of about 1.2 s. The latency is measured, so it does not matter how late a sleep wakes.

    It is 10 ms at least: what this process itself takes between two requests must stay far below 2 % of it.
    """
    sizes = [(users, requests, max(0.01, 1.2 * users / requests)) for requests in (100, 400) for users in USERS]
    stages = [gevent.spawn(gate_stage, *size) for size in sizes]
    for (users, requests, _), stage in zip(sizes, stages, strict=True):
        record, latencies = stage.get(timeout=60)
        law = (record.request_throughput_per_s or 0.0) * statistics.mean(latencies)
        yield within(f"real gate, {users} users x {requests}: X times mean latency", users, law, 0.02, "users")


# Queue models.


def _law(outcome: Outcome) -> float:
    """Throughput times mean latency, in users."""
    return (outcome.stage.request_throughput_per_s or 0.0) * statistics.mean(outcome.latencies_s)


def _fixed_lengths() -> Iterator[TruthLine]:
    """Answers of exactly 0.98 s. Started in a ramp of 0.5 s, users come in waves for all time."""
    cases = (
        ("at once, TTFT 0.2 s", 0.0, Answer(0.2, 0.02, 40)),
        ("ramp, TTFT 0.05 s", 0.5, Answer(0.05, 0.93 / 39, 40)),
    )
    for name, ramp_s, answer in cases:
        for requests in (100, 400):
            laws = {users: _law(closed_loop(users, requests, lambda: answer, ramp_s=ramp_s)) for users in USERS}  # noqa: B023
            users, law = max(laws.items(), key=lambda found: abs(found[1] / found[0] - 1))
            yield within(f"0.98 s, {name}, x {requests}: X times latency, worst ({users})", users, law, 0.02, "users")
    # The share of the output does not see the wait for the first token. In a window of 1.5 latencies, whose beginning
    # falls in the second half of all answers and whose end in the first half of all, this shows.
    law = _law(closed_loop(50, 100, lambda: Answer(0.2, 0.02, 40)))
    yield within("0.98 s, ramp, TTFT 0.2 s, 50 users x 100: X times latency (limit)", 50, law, 0.05, "users")
    few = closed_loop(8, 8, lambda: Answer(0.2, 0.02, 40), ramp_s=0.0)
    yield within("as many requests as users (8): X times latency, widened", 8, _law(few), 0.02, "users")
    yield _equal("as many requests as users: window_widened", 1, few.stage.window_widened)
    one = closed_loop(4, 1, lambda: Answer(0.2, 0.02, 40), ramp_s=0.0)
    yield within("one request: X times latency, widened", 1, _law(one), 0.02, "users")


def _mixed_lengths(seeds: int) -> Iterator[TruthLine]:
    for users, requests in ((1, 100), (8, 100), (8, 400), (40, 100), (40, 400)):
        found = [closed_loop(users, requests, _mixed(random.Random(seed))) for seed in range(seeds)]
        mean = statistics.mean(_law(outcome) for outcome in found)
        figure = f"mixed lengths, {users} users x {requests}: mean of X times latency, {seeds} seeds"
        yield within(figure, users, mean, 0.01, "users")
        yield _worst(f"mixed lengths, {users} users x {requests}: X against the log, worst", found)


def _queues(seeds: int) -> Iterator[TruthLine]:
    """32 answers of 0.83 s at a time: at most 38.5 per second."""
    for rate_per_s in (20, 34, 46, 80):
        found = []
        for seed in range(seeds):
            rng = random.Random(1000 + seed)
            found.append(open_loop(rate_per_s, 400, _mixed(rng), rng, servers=32))
        yield _worst(f"queue for 38/s at {rate_per_s}/s: X against the log, worst of {seeds}", found)
        if rate_per_s > 38.5:
            # From an empty queue, so a little less than the capacity: the first answers take a latency to come.
            mean = statistics.mean(outcome.stage.request_throughput_per_s or 0.0 for outcome in found)
            yield within(f"queue for 38/s at {rate_per_s}/s: X against the capacity", 38.5, mean, 0.06, "/s")


def _mixed(rng: random.Random) -> Callable[[], Answer]:
    return lambda: Answer(0.05 * rng.lognormvariate(0, 0.3), 0.02, max(2, round(rng.gauss(40, 12))))


def _worst(figure: str, found: list[Outcome]) -> TruthLine:
    """The run whose throughput is farthest from that of the server's log."""
    worst = max(found, key=lambda o: abs((o.stage.request_throughput_per_s or 0.0) / o.logged_per_s - 1))
    return within(figure, worst.logged_per_s, worst.stage.request_throughput_per_s or 0.0, 0.03, "/s")


def _equal(figure: str, right: int, ours: int) -> TruthLine:
    return TruthLine(figure, str(right), str(ours), "exact", ours == right)


# Real runs.


def _real_runs(*, full: bool) -> Iterator[TruthLine]:
    closed = ("1,4,8,16", 100) if full else ("8", 100)
    for stage, logged_per_s, _ in _run("--llm-sweep", closed[0], closed[1]):
        figure = f"real run, {stage['concurrency']} users: X against the simulator's log"
        yield within(figure, logged_per_s, float(stage["request_throughput_per_s"]), 0.03, "/s")
    opened = ("20,36,60,90", 200) if full else ("20,80", 80)
    for stage, logged_per_s, _ in _run("--llm-rate", opened[0], opened[1]):
        figure = f"real run at {stage['rate_per_s']}/s, capacity 40/s: X against the simulator's log"
        yield within(figure, logged_per_s, float(stage["request_throughput_per_s"]), 0.03, "/s")
    for stage, _, logged_in_flight in _run("--llm-sweep", "4", 40, "--llm-warmup", "0"):
        figure = "real run without a warm-up, 4 users: in flight against the simulator's log"
        yield within(figure, logged_in_flight, float(stage["concurrency_actual"]), 0.02, "requests")
        figure = "real run without a warm-up, 4 users: users_actual"
        yield within(figure, 4, float(stage["users_actual"]), 0.02, "users")


def _run(load: str, levels: str, requests: int, *more: str) -> Iterator[tuple[dict[str, str], float, float]]:
    """Each stage of a real run, and the requests/s and the requests in flight in its window by the simulator's log."""
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        log, prefix = Path(folder) / "log.jsonl", Path(folder) / "run"
        with launch(_SPEC, log=log, max_seconds=120) as simulator:
            command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfiles" / "sweep.py"), "--headless"]
            command += ["--only-summary", "--csv", str(prefix), "--host", simulator.url, load, levels]
            command += ["--llm-requests", str(requests), "--llm-input-tokens", "20,0", "--llm-arrivals", "poisson"]
            command += ["--llm-output-tokens", f"fixed:{_TOKENS}", *more]
            environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            simulator.stop()
        if done.returncode:
            raise RuntimeError(f"the run ended with {done.returncode}: {done.stderr[-2000:]}")
        wall_ns = time.time_ns() - time.monotonic_ns()
        entries = list(map(json.loads, log.read_text().splitlines()))
        sent = {entry["response_id"]: entry["sent_ns"] for entry in entries}
        rows = _table(f"{prefix}_llm_requests.csv")
        for stage in _table(f"{prefix}_llm_stages.csv"):
            start_ns = float(stage["measure_started_at"]) * NS - wall_ns
            end_ns = start_ns + float(stage["measure_s"]) * NS
            answers = [sent[row["response_id"]] for row in rows if row["stage"] == stage["stage"]]
            shares = (sum(start_ns < stamp <= end_ns for stamp in stamps) / len(stamps) for stamps in answers)
            in_flight_ns = sum(
                max(0.0, min(entry["last_ns"], end_ns) - max(entry["received_ns"], start_ns))
                for entry in entries
                if entry["last_ns"]
            )
            yield stage, sum(shares) / float(stage["measure_s"]), in_flight_ns / (end_ns - start_ns)


def _table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
