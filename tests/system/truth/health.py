"""Client health against runs whose right verdict is known: who used the CPU is decided here, not measured.

Real ``locust`` runs against the simulated endpoint, in three situations: an idle client beside programs that use all
cores, a client that computes all the time, and an idle client without such neighbours.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import psutil

from llm_users.calibration.measured_run import Load, OtherPrograms, Rows, SimulatorEndpoint, Timing, Truth, run_load
from llm_users.collect.client_health import DISTURBED, OK, SATURATED, advice
from llm_users.quantile import quantile
from llm_users.record import StageRecord
from tests.system.truth.line import TruthLine

_TIMING = Timing(0.02, 0.005, 20)  # an answer takes 115 ms
_QUIET_CORES = 0.3
"""Other programs than the run's own used less than that: the machine was quiet."""

_ASK_ON = """
from locust import task
from llm_users import OpenAIUser

class User(OpenAIUser):
    @task
    def ask(self):
        self.chat()
"""

# Beside its requests the process computes for 30 ms at a time, so that it uses all of its core. A lower nice value
# gives it that core where other programs run too; without the right to set one it needs an idle machine for that.
_COMPUTE = """
import contextlib, os, time
import gevent
from locust import task
from llm_users import OpenAIUser

with contextlib.suppress(OSError):
    os.nice(-15)
    # Where sessions share the CPU, nice values count inside of one session only.
    with open("/proc/self/autogroup", "w") as file:
        file.write("-15")

def compute():
    while True:
        end_s = time.perf_counter() + 0.03
        while time.perf_counter() < end_s:
            pass
        gevent.sleep(0.0005)

class User(OpenAIUser):
    computing = None

    def on_start(self):
        User.computing = User.computing or gevent.spawn(compute)

    @task
    def ask(self):
        self.chat()
"""

# Prompts of about 8,000 tokens that nobody has counted before they are sent.
_LONG_PROMPTS = """
import itertools
from locust import task
from llm_users import OpenAIUser

numbers = itertools.count()

class User(OpenAIUser):
    @task
    def ask(self):
        self.chat(f"{next(numbers)} " + "The quick brown fox jumps over the lazy dog. " * 800)
"""


def lines(full: bool) -> Iterable[TruthLine]:
    """The lines of the truth table; the quick version has one run of the first two situations."""
    for _ in range(2 if full else 1):
        yield from _busy_programs()
        yield from _busy_client()
        if full:
            yield from _idle()
            yield from _long_prompts()


def _busy_programs() -> Iterator[TruthLine]:
    with _burning(os.cpu_count() or 1) as loops:
        rows, _, _ = _run(_ASK_ON, users=1, requests=25)
        burnt = _share_of(loops)
    stage = _stage_of(rows)
    figure = f"one user, {_cpu(stage)} of a core, busy loops on all cores: health"
    yield _one_of(figure, (OK, DISTURBED), stage.health)
    blamed = stage.health != OK and "--processes" in advice(stage, 1)
    yield _one_of("  its advice is about the machine", ("yes",), "no" if blamed else "yes")
    others = stage.others_cpu_share
    shown = "unknown" if others is None else f"{others:.2f}"
    # At least what the loops used by the system's account of each of them; other programs may run as well.
    passed = others is None or burnt - 0.1 <= others <= 1
    yield TruthLine("  others_cpu_share", f">= {burnt:.2f} (loops)", shown, "0.1", passed)


def _busy_client() -> Iterator[TruthLine]:
    rows, _, _ = _run(_COMPUTE, users=4, requests=40)
    stage = _stage_of(rows)
    share = stage.client_cpu_share_max or 0.0
    # Where it did not get its core, because it must not lower its nice value, the right answer is not `saturated`.
    right = (SATURATED,) if share >= 0.95 else (SATURATED, "strained") if share >= 0.8 else (DISTURBED, "strained")
    yield _one_of(f"a client that computes all the time, {_cpu(stage)} of a core: health", right, stage.health)


def _idle() -> Iterator[TruthLine]:
    rows, _, others_cores = _run(_ASK_ON, users=4, requests=120)
    stage = _stage_of(rows)
    right = (OK,) if others_cores < _QUIET_CORES else (OK, DISTURBED)
    figure = f"4 users, {_cpu(stage)} of a core, others {others_cores:.1f} cores: health"
    yield _one_of(figure, right, stage.health)


def _long_prompts() -> Iterator[TruthLine]:
    timing = Timing(0.2, 0.01, 20)
    rows, truth, others_cores = _run(_LONG_PROMPTS, users=16, requests=160, timing=timing)
    stage = _stage_of(rows)
    error_s = ttft_error_p99_s(rows, truth)
    figure = f"16 users, 8,000-token prompts, {_cpu(stage)} of a core, others {others_cores:.1f} cores"
    right = (OK,) if others_cores < _QUIET_CORES else (OK, DISTURBED)
    yield _one_of(f"{figure}: health", right, stage.health)
    passed = error_s < 0.002 or stage.health != OK
    yield TruthLine("  p99 of the TTFT error, where it is ok", "< 2 ms", f"{error_s * 1e3:.2f} ms", "", passed)


def ttft_error_p99_s(rows: Rows, truth: Truth) -> float:
    """The 99th percentile of what the rows' TTFT differs by from the simulator's log."""
    errors_s = []
    for row in rows.requests:
        if row["measured"] == "1" and not row["error_code"]:
            sent = truth.sent[row["response_id"]]
            errors_s.append(abs(float(row["ttft_s"]) - (sent.first_ns - sent.received_ns) / 1e9))
    return quantile(sorted(errors_s), 0.99)


def _run(locustfile: str, users: int, requests: int, timing: Timing = _TIMING) -> tuple[Rows, Truth, float]:
    """Rows, the simulator's log, and the cores that other programs than this run used."""
    with tempfile.TemporaryDirectory(prefix="truth-health-") as name:
        folder = Path(name)
        path = folder / "locustfile.py"
        path.write_text(locustfile, encoding="utf-8")
        neighbours = OtherPrograms()
        endpoint = SimulatorEndpoint(timing, folder)
        try:
            rows = run_load(Load(users, requests, timing, path, ramp="0"), endpoint.url, folder)
            truth = endpoint.truth()
        finally:
            endpoint.stop()
        return rows, truth, neighbours.cores()


@contextlib.contextmanager
def _burning(cores: int) -> Iterator[list[psutil.Popen]]:
    """As many Python loops as the machine has cores, each on a core of its own where the system allows it."""
    loop = (
        "import os, sys\nif hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile 1: 0"
    )
    loops = [psutil.Popen([sys.executable, "-c", loop, str(core)]) for core in range(cores)]
    try:
        yield loops
    finally:
        for process in loops:
            process.kill()
            process.wait()


def _share_of(processes: list[psutil.Popen]) -> float:
    """The CPU that these used since they began, as a share of all cores."""
    elapsed_s = time.time() - min(process.create_time() for process in processes)
    used_s = sum(times.user + times.system for times in (process.cpu_times() for process in processes))
    return float(used_s) / elapsed_s / (os.cpu_count() or 1)


def _stage_of(rows: Rows) -> StageRecord:
    """The stage's row as a record."""
    types = {field.name: field.metadata["type"] for field in fields(StageRecord)}
    known = {name: types[name](value) for name, value in rows.stage.items() if value != ""}
    return StageRecord(**known)


def _cpu(stage: StageRecord) -> str:
    return f"{stage.client_cpu_share_max or 0.0:.0%}"


def _one_of(figure: str, right: tuple[str, ...], ours: str | None) -> TruthLine:
    return TruthLine(figure, " or ".join(right), ours or "(unknown)", "", ours in right)
