"""A long run at constant memory: master, workers and the page of somebody who watches, looked at again and again.

    python -m tests.system.crash.workers.soak [--minutes 20] [--workers 2] [--users 64] [--no-page]

Exit code 1 when it is certain that the memory of one of them grows faster than its bound, or when a row is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from llm_users.simulator.launch import launch
from tests.ports import free_port
from tests.system.crash.workers.growth import WARM_S, Growth, growth
from tests.system.crash.workers.soak_page import browser_path, watching
from tests.system.locust_runs import SWEEP

BOUNDS_KB_PER_MIN = {"in use": 200.0, "resident": 400.0, "its scripts": 100.0, "page, resident": 2000.0}
"""By the end of a measure's name, the longest that fits. What is in use tells a leak: one kept row of 1.5 kB per
request would be 10,000 at 100 requests/s. A master's samples take 80 until they are 1,800, after half an hour, and
Locust's own history of its charts 15 for ever. Resident memory follows the heap's holes, too: 250 on workers in minutes
4 to 9, while what was in use stayed the same and no garbage was found. Of a page, Chromium's caches are the most."""

PROBE = str(Path(__file__).with_name("soak_probe.py"))


@dataclass
class Memory:
    """One measure of one process over time."""

    name: str
    look: Callable[[], float] | None
    seconds: list[float] = field(default_factory=list)
    kilobytes: list[float] = field(default_factory=list)

    def sample(self, at_s: float) -> None:
        found = self.look() if self.look is not None else 0.0
        if found:  # a process that has ended has none
            self.kilobytes.append(found)
            self.seconds.append(at_s)

    @property
    def bound_kb_per_min(self) -> float:
        return BOUNDS_KB_PER_MIN[max(filter(self.name.endswith, BOUNDS_KB_PER_MIN), key=len)]

    def growth(self, warm_s: float = WARM_S) -> Growth:
        return growth(self.seconds, self.kilobytes, warm_s=warm_s)


@dataclass
class Soaked:
    """How it went."""

    memories: list[Memory]
    rows: int
    lost: int
    code: int | None
    log: str


def resident(name: str, pid: int) -> Memory:
    process = psutil.Process(pid)
    return Memory(f"{name}, resident", lambda: process.memory_info().rss / 1000)


def in_use(name: str, file: Path, began_s: float) -> Memory:
    """What the probe in the process has written."""
    memory = Memory(f"{name}, in use", None)
    for line in file.read_text().splitlines():
        at_s, kilobytes = map(float, line.split())
        if at_s >= began_s:
            memory.seconds.append(at_s - began_s)
            memory.kilobytes.append(kilobytes)
    return memory


def soak(seconds: float, folder: Path, *, workers: int = 2, users: int = 64, page: str | None = None) -> Soaked:
    """Run for so long and look once a second; ``page`` is the Chromium in which somebody watches."""
    port, web_port, prefix = str(free_port()), str(free_port()), folder / "run"
    place = ["--web-host", "127.0.0.1", "--web-port", web_port, "--autostart", "--autoquit", "1"]
    started: list[subprocess.Popen[bytes]] = []
    log = folder / "log"
    environment = {**os.environ, "SOAK_FOLDER": str(folder)}
    with launch("ttft=100ms,itl=5ms", max_seconds=seconds + 120) as simulator, log.open("wb") as out:
        try:
            for role in (["--master", "--master-bind-port", port, "--expect-workers", str(workers),
                          "--host", simulator.url, "-u", str(users), "-r", str(users), "-t", f"{seconds:.0f}s",
                          "--csv", str(prefix), *(place if page else ["--headless", "--only-summary"])],
                         *[["--worker", "--master-port", port]] * workers):  # fmt: skip
                command = [sys.executable, "-m", "locust", "-f", f"{SWEEP},{PROBE}", "--llm-input-tokens", "100,20",
                           "--llm-output-tokens", "20,5", *role]  # fmt: skip
                started.append(
                    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
                )
            names = ["master", *(f"worker {n}" for n in range(workers))]
            rows_file = Path(f"{prefix}_llm_requests.csv")
            while not (rows_file.exists() and rows_file.stat().st_size > 10_000):
                assert started[0].poll() is None, log.read_text()
                time.sleep(0.2)
            memories = [resident(name, one.pid) for name, one in zip(names, started, strict=True)]
            began_s = time.monotonic()
            with ExitStack() as stack:
                scripts = None
                if page:
                    watcher = stack.enter_context(watching(page, f"http://127.0.0.1:{web_port}/llm"))
                    memories.append(Memory("page, resident", watcher.resident_kb))
                    scripts = Memory("page, its scripts", watcher.heap_kb)
                look_while(started[0], seconds - 6, began_s, memories, scripts)
                if scripts is not None:
                    memories.append(scripts)
            started[0].wait(60)
        finally:
            for one in started:
                if one.poll() is None:
                    one.kill()
                    one.wait()
    memories += [in_use(name, folder / f"used_{one.pid}", began_s) for name, one in zip(names, started, strict=True)]
    manifest = json.loads(Path(f"{prefix}_llm_run.json").read_text())
    rows = sum(manifest["counts"]["received"].values())
    lost = sum(account["lost"] for account in manifest["workers"].values())
    return Soaked(memories, rows, lost, started[0].returncode, log.read_text())


def look_while(
    process: subprocess.Popen[bytes], seconds: float, began_s: float, memories: list[Memory], scripts: Memory | None
) -> None:
    """Once a second; the page's scripts more seldom, because that collects their garbage."""
    seldom_s = due_s = seconds / 60
    while (now_s := time.monotonic() - began_s) < seconds and process.poll() is None:
        for memory in memories:
            memory.sample(now_s)
        if scripts is not None and now_s >= due_s:
            due_s = now_s + seldom_s
            scripts.sample(now_s)
        time.sleep(min(1.0, seconds / 60))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--no-page", action="store_true", help="nobody watches; also when there is no Chromium")
    given = parser.parse_args()
    page = None if given.no_page else browser_path()
    if page is None:
        print("nobody watches the page" + ("" if given.no_page else ": there is no Chromium, or no playwright"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        found = soak(given.minutes * 60, Path(folder), workers=given.workers, users=given.users, page=page)
    print(f"{given.minutes:g} minutes, {found.rows} rows, {found.lost} lost, exit code {found.code}")
    if given.minutes * 60 < WARM_S * 1.5:
        print(f"that is too short to say anything: {WARM_S:.0f} s are warm-up")
    print("kB/min after the warm-up, judged by what is certain to 95 %:")
    grown = False
    for memory in found.memories:
        found_growth = memory.growth()
        too_fast = found_growth.exceeds(memory.bound_kb_per_min)
        grown = grown or too_fast
        first, last = memory.kilobytes[0] / 1000, memory.kilobytes[-1] / 1000
        verdict = ": grows" if too_fast else ""
        print(f"{memory.name}: {first:.1f} MB at first, {last:.1f} MB at last, {found_growth.per_min:+.0f}, certainly "
              f"{found_growth.at_least_per_min:+.0f} (at most {memory.bound_kb_per_min:g}){verdict}")  # fmt: skip
    if found.code != 0:
        print(found.log[-3000:])
    return int(grown or found.lost > 0 or found.code != 0)


if __name__ == "__main__":
    sys.exit(main())
