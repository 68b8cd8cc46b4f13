"""The load command as a user types it, and the files it leaves."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.project import ROOT
from tests.system.llama.recording_proxy import Said

SWEEP = ROOT / "locustfiles" / "sweep.py"
CONVERSATIONS = ROOT / "locustfiles" / "conversations.py"


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left behind."""

    exit_code: int
    printed: str
    complaints: str
    rows: list[dict[str, str]]
    stages: list[dict[str, str]]
    manifest: dict[str, Any]

    @property
    def measured(self) -> list[dict[str, str]]:
        return [row for row in self.rows if row["measured"] == "1"]


@dataclass(frozen=True, slots=True)
class Counted:
    """A run straight against the server, and what the server's own counters grew by."""

    run: Run
    grown: dict[str, float]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run through a proxy that kept what the server itself said about each answer."""

    run: Run
    said: dict[str, Said]

    def pairs(self) -> list[tuple[dict[str, str], Said]]:
        """Each row with the server's word on it."""
        return [(row, self.said[row["response_id"]]) for row in self.run.rows]


def run(locustfile: Path, url: str, prefix: Path, *options: str) -> Run:
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "--only-summary"]
    ended = subprocess.run(
        [*command, "--host", url, "--csv", str(prefix), *options],
        cwd=prefix.parent,
        env={name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "OPENAI_"))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    manifest = Path(f"{prefix}_llm_run.json")
    assert manifest.exists(), f"the run left no files; it said:\n{ended.stderr[-3000:]}"
    return Run(
        ended.returncode,
        ended.stdout,
        ended.stderr,
        _read(f"{prefix}_llm_requests.csv"),
        _read(f"{prefix}_llm_stages.csv"),
        json.loads(manifest.read_text()),
    )


def _read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))
