"""Everyday mistakes end with one line that says what to do, exit code 2, and no process that stays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llm_users.run_files import REPORT_FOLDER
from tests.ports import free_port

SHORT = ("--headless", "--only-summary", "--llm-sweep", "1", "--llm-requests", "2", "--llm-output-tokens", "5,1")
SIMULATED = ("--llm-simulator", "ttft=5ms,itl=1ms", *SHORT)
STARTING = "Starting Locust"
"""The only line of Locust that may stand before a reason."""


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if STARTING not in line]


@dataclass
class Command:
    """Starts ``llm-bench`` in a folder, without keys in the environment."""

    folder: Path
    more: dict[str, str] = field(default_factory=dict)
    """Variables of the environment."""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OPENAI_", "ANTHROPIC_", "LOCUST_", "AWS_"))
        }
        return subprocess.Popen(
            [sys.executable, "-m", "llm_users.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**environment, "AWS_EC2_METADATA_DISABLED": "true", "HF_HUB_OFFLINE": "1", **self.more},
            start_new_session=True,
        )

    def run(self, *arguments: str) -> Ended:
        process = self.start(*arguments)
        try:
            # Workers that stay alive keep the pipes open.
            out, err = process.communicate(timeout=40)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return Ended(process.returncode, out, err)

    def refused(self, *arguments: str) -> str:
        """Run a command that must be refused, and return the only line that it prints about it."""
        ended = self.run(*arguments)
        assert (ended.code, ended.out, len(ended.lines)) == (2, "", 1), ended
        return ended.lines[0]


@pytest.fixture
def bench(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which another program listens, at all addresses."""
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        yield int(server.getsockname()[1])


def test_a_taken_web_port_is_named_with_the_way_out(bench: Command, taken_port: int) -> None:
    said = bench.refused("--llm-simulator", "--web-port", str(taken_port))
    assert f"--web-port: port {taken_port} is in use" in said
    assert "--headless" in said


@pytest.mark.parametrize("master", [("--master",), ("--processes", "2")])
def test_a_taken_master_port_is_named_and_no_worker_joins_the_other_program(
    bench: Command, taken_port: int, master: tuple[str, ...]
) -> None:
    said = bench.refused(*SIMULATED, *master, "--master-bind-port", str(taken_port))
    assert f"--master-bind-port: port {taken_port} is in use" in said


def test_forked_workers_join_their_own_master_on_another_port_and_write_nothing_after_the_tables(
    bench: Command,
) -> None:
    port = str(free_port())
    ended = bench.run(*SIMULATED, "--processes", "2", "--master-bind-port", port, "--csv", "out/run", "--llm-report")
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert "closed file" not in ended.err
    assert "Unknown message" not in ended.err
    assert Path(f"{bench.folder}/out/run{REPORT_FOLDER}", "report.md").is_file()


def test_forked_workers_end_with_a_master_that_ends_before_its_run(bench: Command) -> None:
    (bench.folder / "mine.py").write_text(MASTER_FAILS)
    started_at = time.monotonic()
    ended = bench.run("-f", "mine.py", *SIMULATED, "--processes", "2", "--master-bind-port", str(free_port()))
    assert ended.code == 2, ended.err
    assert time.monotonic() - started_at < 30  # the workers have closed the pipes


MASTER_FAILS = """
from locust import events, task
from locust.runners import MasterRunner
from llm_users import OpenAIUser

class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat()

@events.init.add_listener
def fail(environment, **_kwargs):
    if isinstance(environment.runner, MasterRunner):
        raise SystemExit(2)
"""


@pytest.mark.parametrize(("option", "port"), [("--web-port", "99999"), ("--master-bind-port", "-1")])
def test_a_number_that_is_not_a_port_is_refused(bench: Command, option: str, port: str) -> None:
    assert f"{port!r} is not a port; give a number from 1 to 65535" in bench.refused(*SIMULATED, option, port)


def test_an_address_of_another_machine_is_refused(bench: Command) -> None:
    said = bench.refused("--llm-simulator", "--web-port", str(free_port()), "--web-host", "203.0.113.7")
    assert "--web-host: '203.0.113.7' is not an address of this machine" in said


@pytest.mark.parametrize(
    ("api", "url", "variable", "processes"),
    [
        ("chat", "https://api.openai.com/v1", "OPENAI_API_KEY", ("--processes", "2")),
        ("messages", "https://api.anthropic.com", "ANTHROPIC_API_KEY", ()),
    ],
)
def test_a_missing_key_is_named_by_its_variable_before_the_run(
    bench: Command, api: str, url: str, variable: str, processes: tuple[str, ...]
) -> None:
    processes = (*processes, "--master-bind-port", str(free_port()))
    said = bench.refused("--host", url, "--llm-api", api, "--llm-model", "any", *SHORT, *processes)
    assert f"set {variable}" in said
    assert "workload_identity" not in said


def test_a_refusal_in_the_run_is_the_last_line(bench: Command) -> None:
    bench.more |= {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "example-of-a-secret-key"}
    ended = bench.run("--llm-api", "converse", "--llm-model", "any", *SHORT)
    assert (ended.code, ended.out) == (2, "")
    assert "the run is refused: no AWS region: set --llm-region" in ended.lines[-1]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class A(:\n", "mine.py, line 1: SyntaxError: invalid syntax: class A(:"),
        ("def f():\n    return x\nf()\n", "mine.py, line 2: NameError: name 'x' is not defined"),
        ("from llm_users import OpenAIUser\nclass A(OpenAIUser): pass\n", "a user class without tasks (A)"),
        (None, "Could not find 'mine.py'"),
    ],
)
def test_a_locustfile_that_cannot_be_used_is_explained_in_one_line(bench: Command, code: str | None, said: str) -> None:
    if code is not None:
        (bench.folder / "mine.py").write_text(code)
    assert said in bench.refused("-f", "mine.py", *SIMULATED)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--llm-prompts", "empty.jsonl"), "prompts file 'empty.jsonl' has no prompts"),
        (("--csv", "empty.jsonl/run"), "a file exists at the path of the folder"),
        (("--llm-rate", "1"), "--llm-rate and --llm-sweep exclude each other"),
    ],
)
def test_an_input_that_cannot_be_used_is_explained_in_one_line(
    bench: Command, arguments: tuple[str, ...], said: str
) -> None:
    (bench.folder / "empty.jsonl").touch()
    assert said in bench.refused(*SIMULATED, *arguments)


def test_ctrl_c_during_the_start_prints_one_line(bench: Command) -> None:
    process = bench.start(*SIMULATED)
    # Python itself handles Ctrl-C before the command begins to load modules such as gevent.
    while "gevent" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _out, err = process.communicate(timeout=40)
    # Python ends itself with the signal if the interrupt met a nested exec(); a shell sees 130 in both cases.
    assert process.returncode in (130, -signal.SIGINT), err
    assert err == "llm-bench: interrupted before the run started\n"


def test_ctrl_c_ends_waiting_workers_without_a_trace(bench: Command) -> None:
    port, web_port = str(free_port()), str(free_port())
    process = bench.start("--llm-simulator", "--processes", "2", "--master-bind-port", port, "--web-port", web_port)
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(web_port)), timeout=1):
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert "KeyboardInterrupt" not in err
