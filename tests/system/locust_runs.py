"""Runs of the real `locust` command against the simulated endpoint, and what they left on disk."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.project import ROOT

SWEEP = str(ROOT / "locustfiles" / "sweep.py")


@dataclass
class Finished:
    """A run that is over: its exit code, its output, its files."""

    code: int
    out: str
    err: str
    prefix: Path

    def rows(self, suffix: str = "requests") -> list[dict[str, str]]:
        with Path(f"{self.prefix}_llm_{suffix}.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(Path(f"{self.prefix}_llm_run.json").read_text())
        return manifest


class Running:
    """A `locust` process that is still at work."""

    def __init__(self, arguments: list[str], prefix: Path, environment: dict[str, str], folder: Path) -> None:
        self.prefix = prefix
        self.process = subprocess.Popen(
            [sys.executable, "-m", "locust", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends SIGINT to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finished_rows(self, suffix: str) -> list[dict[str, str]]:
        """The rows on disk so far."""
        path = Path(f"{self.prefix}_llm_{suffix}.csv")
        return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []

    def await_rows(self, count: int, timeout_s: float = 20) -> None:
        """Wait until so many rows are on disk."""
        path = Path(f"{self.prefix}_llm_requests.csv")
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            if path.exists() and len(path.read_text().splitlines()) > count:
                return
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.1)
        raise AssertionError(f"no {count} rows within {timeout_s} s")

    def finish(self, timeout_s: float = 60) -> Finished:
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            out, err = self.process.communicate()
            raise AssertionError(f"the run did not end within {timeout_s} s:\n{err[-4000:]}") from None
        return Finished(self.process.returncode, out, err, self.prefix)


class Locust:
    """Starts runs in a folder of their own; model, short answers and a prefix are given unless overridden."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[Running] = []

    def start(
        self,
        *arguments: str,
        locustfile: str = SWEEP,
        prefix: str = "run",
        env: dict[str, str] | None = None,
        csv: bool = True,
        headless: bool = True,
    ) -> Running:
        path = self.folder / "out" / prefix
        path.parent.mkdir(exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "LOCUST_"))}
        environment.update(env or {})
        command = ["-f", locustfile, *(["--headless", "--only-summary"] if headless else [])]
        command += ["--csv", str(path)] if csv else []
        command += ["--llm-input-tokens", "20,5", "--llm-output-tokens", "8,2", *arguments]
        running = Running(command, path, environment, self.folder)
        self._running.append(running)
        return running

    def run(self, *arguments: str, **more: Any) -> Finished:
        timeout_s = more.pop("timeout_s", 60)
        return self.start(*arguments, **more).finish(timeout_s)

    def stop_all(self) -> None:
        for running in self._running:
            if running.process.poll() is None:
                os.killpg(running.process.pid, signal.SIGKILL)
                running.process.communicate()
