"""The overhead of whole runs: wall time minus load, for the product and for bare Locust against the same simulator.

The load lasts from the first request's t0 to the end of the last answer. What remains is the start of the command
(imports, users, prompts) and its end (last messages, files, tables). The endpoint runs before and outside.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llm_users.record import COL
from llm_users.simulator.launch import launch
from tests.ports import master_ports

ENDPOINT = "ttft=20ms,itl=1ms"
REFERENCE_S = {"import locust": 0.30, "import locust, openai": 0.65}
"""The bounds are for a machine on which these imports take this time."""


@dataclass(frozen=True)
class Case:
    """A run, and the most that may remain of its wall time without its load, in seconds."""

    users: int
    requests: int
    bound_s: float
    processes: int = 1

    @property
    def name(self) -> str:
        return f"{self.requests} requests, {self.users} users" + (
            f", --processes {self.processes}" if self.processes > 1 else ""
        )

    @property
    def distribution(self) -> list[str]:
        return ["--processes", str(self.processes), *master_ports()] if self.processes > 1 else []


CASES = (Case(4, 40, 1.2), Case(256, 512, 1.7), Case(1000, 2000, 1.7), Case(16, 160, 2.2, processes=4))


@dataclass
class Overhead:
    """The parts of the wall time of several runs without their load, in seconds."""

    start_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)

    @property
    def sum_s(self) -> float:
        return statistics.median(start + end for start, end in zip(self.start_s, self.end_s, strict=True))

    def cells(self) -> str:
        if not self.start_s:
            return f"{'-':>8}{'-':>7}{'-':>7}"  # the run failed
        return f"{statistics.median(self.start_s):8.2f}{statistics.median(self.end_s):7.2f}{self.sum_s:7.2f}"


Run = Callable[[str, list[str], Path], int]
"""Runs a command of a checkout, or of bare Locust, in a folder and returns its exit code."""

BARE = "bare Locust"

_BARE_RUN_S = 3  # long enough to start 1,000 users
_BARE_LOCUSTFILE = """
import os, time
from pathlib import Path
from locust import HttpUser, constant, events, runners, task

ASK = {"model": "simulated", "max_tokens": 32, "messages": [{"role": "user", "content": "What is the time?"}]}

class Bare(HttpUser):
    wait_time = constant(60)

    @task
    def ask(self):
        self.client.post("/chat/completions", json=ASK)

@events.request.add_listener
def note_first(start_time, **_kwargs):
    path = Path(f"{os.getpid()}.first")
    if not path.exists():
        path.write_text(str(start_time))

@events.test_stopping.add_listener
def note_last(environment, **_kwargs):
    if not isinstance(environment.runner, runners.WorkerRunner):
        Path("last").write_text(str(time.time()))
"""


def measure(
    cases: Sequence[Case], names: Sequence[str], run: Run, working: Path, repeats: int
) -> dict[tuple[Case, str], Overhead]:
    """Run every case with every checkout and, if ``names`` has it, with bare Locust, in turn.

    The first round is not counted, because it compiles the modules.
    """
    overheads = {(case, name): Overhead() for case in cases for name in names}
    with launch(ENDPOINT) as endpoint:
        for repeat in range(repeats + 1):
            for (case, name), overhead in overheads.items():
                folder = working / f"{case.name} {name} {repeat}"
                folder.mkdir()
                command = _bare_command(case, endpoint.url, folder) if name == BARE else _command(case, endpoint.url)
                began_at = time.time()
                code = run(name, command, folder)
                ended_at = time.time()
                if repeat and code == 0:
                    first_at, last_at = (_load_of_bare if name == BARE else _load)(folder)
                    overhead.start_s.append(first_at - began_at)
                    overhead.end_s.append(ended_at - last_at)
    return overheads


def _command(case: Case, url: str) -> list[str]:
    return [
        "llm-bench", "--headless", "--only-summary", "--host", url, "--csv", "run", "--llm-sweep", str(case.users),
        "--llm-requests", str(case.requests), "--llm-warmup", "0", "--llm-output-tokens", "32", *case.distribution,
    ]  # fmt: skip


def _load(folder: Path) -> tuple[float, float]:
    with (folder / "run_llm_requests.csv").open(newline="", encoding="utf-8") as file:
        rows = [(float(row[COL.started_at]), float(row[COL.end_to_end_latency_s])) for row in csv.DictReader(file)]
    return min(start for start, _ in rows), max(start + latency for start, latency in rows)


def _bare_command(case: Case, url: str, folder: Path) -> list[str]:
    (folder / "bare.py").write_text(_BARE_LOCUSTFILE)
    users = str(case.users)
    return [
        "locust", "-f", "bare.py", "--headless", "--only-summary", "--host", url, "--csv", "run", "--users", users,
        "--spawn-rate", users, "--run-time", str(_BARE_RUN_S), *case.distribution,
    ]  # fmt: skip


def _load_of_bare(folder: Path) -> tuple[float, float]:
    first_at = min(float(path.read_text()) for path in folder.glob("*.first"))
    return first_at, float((folder / "last").read_text())
