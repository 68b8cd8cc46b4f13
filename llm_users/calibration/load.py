"""Runs one stage in a headless Locust process and reads the rows that it writes.

The run does not use the caller's options, environment variables, API keys or configuration files.
"""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from llm_users.calibration.truth import Timing
from llm_users.options.table import CALIBRATION_VARIABLE
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from llm_users.simulator.launch import import_path

_SPARE_S = 60.0

_REMOVED_PREFIXES = ("LOCUST_", "OPENAI_", "ANTHROPIC_", "AWS_")
# Requests to Bedrock are signed, as in a real run.
_AWS_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "simulator",
    "AWS_SECRET_ACCESS_KEY": "simulator",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class RunError(RuntimeError):
    """The run itself failed, so there is no result to judge."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a run: one stage with ``streams`` streams, which send their requests one after the other."""

    streams: int
    requests: int
    timing: Timing
    locustfile: Path
    ramp: str = "0.5s"
    processes: int = 1
    options: tuple[str, ...] = ()

    @property
    def longest_s(self) -> float:
        """The time limit of a run in seconds; a longer run hangs."""
        return _SPARE_S + 3 * (2 + self.requests / self.streams) * self.timing.answer_s


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that the run wrote: its requests and its only stage."""

    requests: list[dict[str, str]]
    stage: dict[str, str]


def run_load(load: Load, url: str, folder: Path) -> Rows:
    """Run the stage against ``url`` with its files in ``folder``. Raises ``RunError``."""
    prefix = folder / "run"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_REMOVED_PREFIXES)}
    environment |= {**_AWS_SETTINGS, **import_path(), CALIBRATION_VARIABLE: str(folder / "none")}
    # A separate session: Ctrl-C reaches only this process, and one signal ends all processes of the run.
    with subprocess.Popen(  # noqa: S603
        _command(load, url, prefix), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            _, error_output = process.communicate(timeout=load.longest_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise RunError(f"the worker did not end within {load.longest_s:.0f} s") from None
        except BaseException:
            _kill(process)
            raise
    # 1 is Locust's exit code for failed requests: their rows have the details.
    if process.returncode not in (0, 1):
        raise RunError(f"the worker ended with exit code {process.returncode}:\n{error_output[-2000:]}")
    stages = _read(path_of(prefix, STAGES_CSV))
    if not stages:
        raise RunError(f"the worker finished no stage:\n{error_output[-2000:]}")
    return Rows(_read(path_of(prefix, REQUESTS_CSV)), stages[0])


def _command(load: Load, url: str, prefix: Path) -> list[str]:
    tokens = load.timing.tokens
    command = [sys.executable, "-m", "locust", "-f", str(load.locustfile), "--headless"]
    command += ["--host", url, "--csv", str(prefix), "--only-summary", "--loglevel", "WARNING"]
    command += ["--llm-sweep", str(load.streams), "--llm-requests", str(load.requests), "--llm-ramp", load.ramp]
    command += ["--llm-input-tokens", "100,0", "--llm-output-tokens", f"{tokens},0"]
    command += load.options
    if load.processes > 1:
        port = _free_port()
        command += ["--processes", str(load.processes), "--master-bind-port", port, "--master-port", port]
    return command


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _free_port() -> str:
    """Return a free port for the coordinator and the workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
