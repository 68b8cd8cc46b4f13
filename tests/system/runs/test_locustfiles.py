"""Locustfiles as people write them: each run ends, says why, and has a row for every request that the server saw."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_users.simulator.launch import launch
from tests.ports import master_ports
from tests.system.locust_runs import Finished, Locust

HEAD = """
import itertools

import gevent
from locust import constant, tag, task
from locust.exception import StopUser
from llm_users import OpenAIUser

NUMBERS = itertools.count()
"""

CHAT = """
class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat("Name a river.", max_tokens=4)
"""

TWO_AT_ONCE = """
class Fan(OpenAIUser):
    @task
    def ask(self):
        gevent.joinall([gevent.spawn(self.chat, f"Name river {i}.", max_tokens=4) for i in range(2)])
"""

THREE_AND_OUT = """
class Three(OpenAIUser):
    @task
    def ask(self):
        for _ in range(3):
            self.chat("Name a river.", max_tokens=4)
        raise StopUser
"""

NO_START = """
class Other(OpenAIUser):
    def on_start(self):
        raise RuntimeError("login failed")

    @task
    def ask(self):
        self.chat()
"""

SOME_START = """
class Other(OpenAIUser):
    def on_start(self):
        if next(NUMBERS) % 2:
            raise RuntimeError("login failed")

    @task
    def ask(self):
        self.chat("Name a river.", max_tokens=4)
"""

FAILS_FIRST = """
class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat(self.my_prompt())
"""

FAILS_LATER = """
PROMPTS = ["Name a river."] * 5

class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat(PROMPTS.pop(), max_tokens=4)
"""

HTTP_CLIENT = """
class Chat(OpenAIUser):
    @task
    def ask(self):
        self.client.post("/chat/completions", json={})
"""

CATCHES = """
class Chat(OpenAIUser):
    @task
    def ask(self):
        with self.chat("hi", catch_response=True) as answer:
            answer.success()
"""

TAGGED = """
class A(OpenAIUser):
    @tag("a")
    @task
    def ask(self):
        self.chat("Name a river.", max_tokens=4)

class B(OpenAIUser):
    fixed_count = 1
    @tag("b")
    @task
    def ask(self):
        self.chat("Name a lake.", max_tokens=4)
"""

QUITS = """
class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat("Name a river.", max_tokens=4)
        if next(NUMBERS) == 9:
            self.environment.runner.quit()
"""

SWEEP = ("--llm-sweep", "2", "--llm-requests", "6", "--llm-warmup", "1")


@dataclass(frozen=True)
class Case:
    """A locustfile, its options, and how its run is to end: exit code, measured rows by stage, a text for the user."""

    locustfile: str
    options: tuple[str, ...]
    code: int
    measured: dict[str, int]
    text: str = ""
    tracebacks: int = 0


CASES = {
    "two calls at once": Case(
        TWO_AT_ONCE, ("--llm-sweep", "2,3", "--llm-requests", "7"), 0, {"1": 7, "2": 7}, "several calls in flight"
    ),
    "users that leave": Case(
        THREE_AND_OUT,
        ("--llm-sweep", "2,2", "--llm-requests", "6", "--llm-warmup", "1"),
        3,
        {"1": 4, "2": 4},
        "stage 1 ended early: all users have ended",
    ),
    "no user starts": Case(
        NO_START, (*SWEEP, "--run-time", "60s"), 3, {}, "on_start (no user starts.py, line 13) raised RuntimeError", 1
    ),
    "some users start": Case(SOME_START, SWEEP, 3, {"1": 6}, "only 1 of 2 users were ready", 1),
    "a task fails first": Case(FAILS_FIRST, SWEEP, 3, {}, "AttributeError: 'Chat' object has no attribute", 1),
    "a task fails without a sweep": Case(
        FAILS_FIRST, ("-u", "2", "-r", "2", "--llm-requests", "6"), 3, {}, "no user can send a request", 1
    ),
    "a task fails later": Case(FAILS_LATER, SWEEP, 3, {"1": 3}, "raised IndexError: pop from empty list", 1),
    "the client of Locust's HTTP users": Case(HTTP_CLIENT, SWEEP, 3, {}, "call self.chat(...)", 1),
    "catch_response": Case(CATCHES, SWEEP, 3, {}, "an answer is not a context manager", 1),
    "tags without a task": Case(
        TAGGED, (*SWEEP, "--tags", "x"), 2, {}, "--tags x leaves no task of A, B; the tasks of this locustfile have"
    ),
    "tags without a task of one class": Case(TAGGED, (*SWEEP, "--tags", "a"), 0, {"1": 6}, "leaves no task of B"),
    "a task that quits": Case(
        QUITS, ("--llm-sweep", "2", "--llm-requests", "500"), 3, {}, "the run was ended in stage 1 of 1"
    ),
    "fewer users than processes": Case(
        CHAT, ("-u", "1", "--llm-requests", "6", "--llm-warmup", "0", "--processes", "2"), 0, {"1": 6}
    ),
}  # fmt: skip

AT_A_TIME = 3


@dataclass(frozen=True)
class Ended:
    """A run that is over, and the ids of the answers that its server gave."""

    run: Finished
    served: Counter[str]

    @property
    def rows(self) -> list[dict[str, str]]:
        path = Path(f"{self.run.prefix}_llm_requests.csv")
        return self.run.rows() if path.exists() else []


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ended]]:
    """The runs of all cases that are tested, a few at a time, each against a simulator that logs what it serves."""
    folder = tmp_path_factory.mktemp("locustfiles")
    runs = Locust(folder)
    results: dict[str, Ended] = {}
    names = [name for name in CASES if any(f"[{name}]" in item.name for item in request.session.items)]
    try:
        for first in range(0, len(names), AT_A_TIME):
            begun = []
            for name in names[first : first + AT_A_TIME]:
                case = CASES[name]
                path = folder / f"{name}.py"
                path.write_text(HEAD + case.locustfile)
                server = launch("ttft=20ms,itl=5ms", log=folder / f"{name}.jsonl", max_seconds=180)
                own_ports = master_ports() if "--processes" in case.options else ()
                more = ("--host", server.url, *case.options, *own_ports)
                begun.append((name, server, runs.start(*more, locustfile=str(path), prefix=name)))
            for name, server, running in begun:
                finished = running.finish(120)
                server.stop()
                results[name] = Ended(finished, served_by(folder / f"{name}.jsonl"))
        yield results
    finally:
        runs.stop_all()


def served_by(log: Path) -> Counter[str]:
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
    return Counter(entry["response_id"] for entry in entries)


@pytest.mark.parametrize("name", CASES)
def test_the_run_ends_and_says_why(ended: dict[str, Ended], name: str) -> None:
    case, run = CASES[name], ended[name].run
    assert run.code == case.code, run.err
    assert case.text in run.err, run.err
    if "--processes" not in case.options:  # Locust closes its own statistics files under its writer there
        assert run.err.count("Traceback") == case.tracebacks, run.err
    assert len(run.err.splitlines()) < 120, run.err


@pytest.mark.parametrize("name", CASES)
def test_every_request_that_the_server_saw_is_a_row(ended: dict[str, Ended], name: str) -> None:
    rows = ended[name].rows
    assert Counter(row["response_id"] for row in rows) == ended[name].served
    measured = Counter(row["stage"] for row in rows if row["measured"] == "1")
    if name == "a task that quits":
        assert 10 <= len(rows) <= 11
    else:
        assert measured == CASES[name].measured


@pytest.mark.parametrize("name", ["two calls at once"])
def test_calls_at_once_keep_the_label_and_show_what_ran(ended: dict[str, Ended], name: str) -> None:
    run = ended[name].run
    assert [(stage["concurrency"], stage["requests_measured"]) for stage in run.rows("stages")] == [
        ("2", "7"),
        ("3", "7"),
    ]
    assert all(float(stage["concurrency_actual"]) > int(stage["concurrency"]) for stage in run.rows("stages"))
    assert any("several calls in flight" in note for note in run.manifest["notes"])


def test_sigterm_without_a_sweep_prints_the_tables(locust: Locust, tmp_path: Path) -> None:
    path = tmp_path / "chat.py"
    path.write_text(HEAD + CHAT)
    running = locust.start("-u", "2", "-r", "2", "--llm-simulator", "ttft=50ms,itl=5ms", locustfile=str(path))
    running.await_rows(6, timeout_s=40)
    running.process.send_signal(signal.SIGTERM)
    done = running.finish(40)
    assert done.code == 0, done.err
    assert "Time to First Token" in done.out
    assert "Traceback" not in done.err
    assert done.manifest["finished_at"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.slow
def test_a_master_that_waits_for_workers_can_be_stopped(locust: Locust, number: signal.Signals) -> None:
    running = locust.start("--master", "--expect-workers", "2", *master_ports()[:2], *SWEEP, "--llm-simulator")
    time.sleep(8)
    running.process.send_signal(number)
    done = running.finish(20)
    assert done.code == 3, done.err
    assert "nothing was measured: the run was ended while 0 of 2 workers" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
@pytest.mark.parametrize("is_ignored", [False, True])
def test_sighup_ends_a_run_in_good_order_unless_it_was_ignored(locust: Locust, is_ignored: bool) -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    try:
        running = locust.start("--llm-sweep", "2", "--llm-requests", "100", "--llm-simulator", "ttft=100ms,itl=2ms")
    finally:
        signal.signal(signal.SIGHUP, old)
    running.await_rows(6, timeout_s=40)
    running.process.send_signal(signal.SIGHUP)
    done = running.finish(60)
    assert done.code == (0 if is_ignored else 3), done.err
    measured = sum(row["measured"] == "1" for row in done.rows())
    assert measured == 100 if is_ignored else measured < 100
    assert {row["error_code"] for row in done.rows()} == {""}
    assert "Time to First Token" in done.out


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize(
    ("moment", "code"), [("Shape test starting", 3), ("stage 1 of 2", None), ("stage 1 done", 3), ("stage 2 done", 0)]
)
def test_ctrl_c_ends_the_run_in_each_phase(locust: Locust, processes: int, moment: str, code: int | None) -> None:
    more = ("--processes", str(processes), *master_ports()) if processes else ()
    log = locust.folder / "log.txt"
    running = locust.start("--llm-sweep", "2,2", "--llm-requests", "10", "--llm-simulator", "ttft=100ms,itl=2ms",
                           "--logfile", str(log), *more)  # fmt: skip
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not (log.exists() and moment in log.read_text()):
        time.sleep(0.02)
    running.interrupt()
    done = running.finish(60)
    assert code is None or done.code == code, done.err + log.read_text()
    if not processes:  # Locust closes its own statistics files under its writer there
        assert "Traceback" not in done.err + log.read_text()
    if done.code == 0:
        assert "Time to First Token" in done.out
        assert done.manifest["finished_at"]
