"""A long run at constant memory: master and workers under load, their memory once a second, its slope at the end.

    python -m tests.survival.soak [--minutes 20] [--workers 2] [--users 64] [--web]

Exit code 1 when the memory of one of them grows faster than its bound, or when a row is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from llm_users.simulator.launch import launch
from tests.load.conftest import SWEEP
from tests.load.test_distributed import free_port

WARM_SHARE = 0.4
"""Of the run: caches, histograms and Locust's own tables fill at first."""

BOUND_KB_PER_MIN = 200.0
"""Over 20 minutes; 12 MB in an hour. One kept row of 1.5 kB per request would be 10,000 at 100 requests/s."""


@dataclass
class Memory:
    """The memory of one process over time."""

    name: str
    process: psutil.Process
    seconds: list[float] = field(default_factory=list)
    kilobytes: list[float] = field(default_factory=list)

    def sample(self, at_s: float) -> None:
        self.kilobytes.append(self.process.memory_info().rss / 1000)
        self.seconds.append(at_s)

    @property
    def slope_kb_per_min(self) -> float:
        """Least squares over the samples after the warm-up."""
        first = int(len(self.seconds) * WARM_SHARE)
        return float(np.polyfit(self.seconds[first:], self.kilobytes[first:], 1)[0]) * 60


@dataclass
class Soaked:
    """How it went."""

    memories: list[Memory]
    rows: int
    lost: int
    code: int | None
    log: str


def soak(seconds: float, folder: Path, *, workers: int = 2, users: int = 64, web: bool = False) -> Soaked:
    """Run for so long and look once a second."""
    port, prefix = free_port(), folder / "run"
    place = ["--web-host", "127.0.0.1", "--web-port", free_port(), "--autostart", "--autoquit", "1"]
    started: list[subprocess.Popen[bytes]] = []
    log = folder / "log"
    with launch("ttft=100ms,itl=5ms", max_seconds=seconds + 120) as simulator, log.open("wb") as out:
        try:
            for role in (["--master", "--master-bind-port", port, "--expect-workers", str(workers),
                          "--host", simulator.url, "-u", str(users), "-r", str(users), "-t", f"{seconds:.0f}s",
                          "--csv", str(prefix), *(place if web else ["--headless", "--only-summary"])],
                         *[["--worker", "--master-port", port]] * workers):  # fmt: skip
                command = [sys.executable, "-m", "locust", "-f", SWEEP, "--llm-input-tokens", "100,20",
                           "--llm-output-tokens", "20,5", *role]  # fmt: skip
                started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out))
            names = ["master", *(f"worker {n}" for n in range(workers))]
            memories = [Memory(name, psutil.Process(one.pid)) for name, one in zip(names, started, strict=True)]
            rows_file = Path(f"{prefix}_llm_requests.csv")
            while not (rows_file.exists() and rows_file.stat().st_size > 10_000):
                assert started[0].poll() is None, log.read_text()
                time.sleep(0.2)
            began = time.monotonic()
            while (now_s := time.monotonic() - began) < seconds - 6 and started[0].poll() is None:
                for memory in memories:
                    memory.sample(now_s)
                time.sleep(min(1.0, seconds / 60))
            started[0].wait(60)
        finally:
            for one in started:
                if one.poll() is None:
                    one.kill()
                    one.wait()
    manifest = json.loads(Path(f"{prefix}_llm_run.json").read_text())
    rows = sum(manifest["counts"]["received"].values())
    lost = sum(account["lost"] for account in manifest["workers"].values())
    return Soaked(memories, rows, lost, started[0].returncode, log.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--web", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        found = soak(given.minutes * 60, Path(folder), workers=given.workers, users=given.users, web=given.web)
    print(f"{given.minutes:g} minutes, {found.rows} rows, {found.lost} lost, exit code {found.code}")
    grown = False
    for memory in found.memories:
        slope = memory.slope_kb_per_min
        grown = grown or slope > BOUND_KB_PER_MIN
        first, last = memory.kilobytes[0] / 1000, memory.kilobytes[-1] / 1000
        print(f"{memory.name}: {first:.0f} MB at first, {last:.0f} MB at last, slope {slope:+.0f} kB/min "
              f"(at most {BOUND_KB_PER_MIN:g})")  # fmt: skip
    if found.code != 0:
        print(found.log[-3000:])
    return int(grown or found.lost > 0 or found.code != 0)


if __name__ == "__main__":
    sys.exit(main())
