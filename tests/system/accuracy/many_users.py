"""Many users that mostly wait, in one process: what they cost, how accurate their times are, and how fast they stop.

    python -m tests.system.accuracy.many_users                            # 10,000 users on the simulator
    python -m tests.system.accuracy.many_users --truth truth_server.c     # on a native server
    python -m tests.system.accuracy.many_users --users 2000 --ttft-s 10   # a trial

The command runs one user first, and then all users, in the same way: a ramp, one measured request per user, and a
second ramp. When every request of the second ramp is in flight, it sends Ctrl-C twice. The memory of the run with one
user is subtracted from the memory of the other run. Use a quiet machine. Exit code 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llm_users.calibration.measured_run import (
    Load,
    MeasuredRun,
    OtherPrograms,
    RunError,
    SimulatorEndpoint,
    Timing,
    compare,
    read_rows,
    run_environment,
)
from llm_users.number_words import parse_duration
from llm_users.record import COL
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from tests.project import ROOT
from tests.system.accuracy.circumstances import Start
from tests.system.accuracy.endpoints import NativeEndpoint, native_binary

TTFT_P99_S = 0.5e-3
KB_PER_USER = 15.0
"""The bounds of the command, for 10,000 users: the error of TTFT (p99), and the memory per user."""

_LOOK_S = 0.1
_ALL_SENT_S = 2.0
"""Time for the last requests of a ramp to be sent. The TTFT must be longer than the ramp and this time."""
_ONE_USER_RAMP_S, _ONE_USER_TTFT_S = 0.5, 4.0
_STOP_LIMIT_S = 120.0
_OTHER_SOCKETS = 10


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process in kB. Buffers of the kernel are not part of it."""

    load_kb: int
    """The largest resident set until the measured stage has ended."""
    pss_kb: int
    """The proportional set size while all requests of the second ramp are in flight."""
    peak_kb: int
    """The largest resident set at any time, including the report at the end."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one run with ``users`` users needed and how it ended."""

    users: int
    started_s: float
    """From the start of the command to the first request."""
    memory: Memory
    measured: MeasuredRun
    interrupted: Counter[str]
    """The error codes of the rows of the second ramp; "" for a request that succeeded."""
    closed_s: float
    """From the second Ctrl-C until the process had closed its connections."""
    ended_s: float
    """From the second Ctrl-C to the end of the process, with the report."""


class Process:
    """A headless run with two stages of ``load.streams`` users. The second one is interrupted."""

    def __init__(self, load: Load, url: str, folder: Path) -> None:
        self.prefix, self._log = folder / "run", folder / "log.txt"
        users, tokens = str(load.streams), str(load.timing.tokens)
        command = [sys.executable, "-m", "locust", "-f", str(load.locustfile), "--headless", "--only-summary"]
        command += ["--host", url, "--csv", str(self.prefix), "--logfile", str(self._log)]
        command += ["--llm-sweep", f"{users},{users}", "--llm-requests", str(load.requests), "--llm-ramp", load.ramp]
        command += ["--llm-warmup", "0", "--llm-input-tokens", "100,0", "--llm-output-tokens", f"{tokens},0"]
        self._output = (folder / "output.txt").open("w")
        self._process = subprocess.Popen(
            command, cwd=folder, env=run_environment(folder), stdin=subprocess.DEVNULL,
            stdout=self._output, stderr=self._output, start_new_session=True,
        )  # fmt: skip
        self._limit_s = time.monotonic() + load.longest_s + 2 * parse_duration(load.ramp)
        self.load_kb = self.peak_kb = 0

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition is true, and read the memory meanwhile. Raises ``RunError``."""
        while not condition():
            if self._process.poll() is not None:
                raise RunError(f"the run ended with exit code {self._process.returncode}:\n{self._last_lines()}")
            if time.monotonic() > self._limit_s:
                raise RunError(f"the run did not continue:\n{self._last_lines()}")
            status = self._status()
            self.load_kb = max(self.load_kb, status.get("VmRSS", 0))
            time.sleep(_LOOK_S)

    def has_measured(self) -> bool:
        """Return True when the row of the measured stage is written."""
        stages = path_of(self.prefix, STAGES_CSV)
        return stages.exists() and stages.read_bytes().count(b"\n") >= 2

    def has_begun_stage(self, stage: int) -> bool:
        return self._log.exists() and f"stage {stage} of 2: " in self._log.read_text(encoding="utf-8")

    def sleep(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        self.wait_for(lambda: time.monotonic() >= end_s)

    def pss_kb(self) -> int:
        return self._figures("smaps_rollup").get("Pss", 0)

    def interrupt(self) -> tuple[float, float]:
        """Press Ctrl-C twice. Return the times until the connections are closed and until the process has ended."""
        self._process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        self._process.send_signal(signal.SIGINT)
        began_s, closed_s = time.monotonic(), None
        while self._process.poll() is None:
            if time.monotonic() - began_s > _STOP_LIMIT_S:
                raise RunError(f"the run did not end within {_STOP_LIMIT_S:.0f} s:\n{self._last_lines()}")
            if closed_s is None and self._sockets() <= _OTHER_SOCKETS:
                closed_s = time.monotonic() - began_s
            self.peak_kb = max(self.peak_kb, self._status().get("VmHWM", 0))
            time.sleep(0.02)
        ended_s = time.monotonic() - began_s
        return (ended_s if closed_s is None else closed_s), ended_s

    def close(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._output.close()

    def _status(self) -> dict[str, int]:
        return self._figures("status")

    def _figures(self, name: str) -> dict[str, int]:
        try:
            lines = Path(f"/proc/{self._process.pid}/{name}").read_text().splitlines()
        except OSError:
            return {}
        words = [line.split() for line in lines]
        return {word[0].rstrip(":"): int(word[1]) for word in words if len(word) == 3 and word[2] == "kB"}

    def _sockets(self) -> int:
        try:
            with os.scandir(f"/proc/{self._process.pid}/fd") as entries:
                return sum(_is_socket(entry.path) for entry in entries)
        except OSError:
            return 0

    def _last_lines(self) -> str:
        self._output.flush()
        return Path(self._output.name).read_text()[-2000:]


def _is_socket(path: str) -> bool:
    try:
        return str(Path(path).readlink()).startswith("socket:")
    except OSError:
        return False


def hold(users: int, ramp_s: float, timing: Timing, start: Start) -> Held:
    """Start, hold and stop this number of users on a new server. Raises ``RunError``."""
    load = Load(users, users, timing, ROOT / "locustfiles" / "sweep.py", f"{ramp_s:g}s")
    with tempfile.TemporaryDirectory(prefix="many-users-") as name:
        folder = Path(name)
        other_cores = OtherPrograms()
        endpoint = start(timing, folder)
        began = time.time()
        process = Process(load, endpoint.url, folder)
        try:
            process.wait_for(process.has_measured)
            load_kb = process.load_kb
            process.wait_for(partial(process.has_begun_stage, 2))
            process.sleep(ramp_s + _ALL_SENT_S)
            pss_kb = process.pss_kb()
            closed_s, ended_s = process.interrupt()
            truth = endpoint.truth()
            rows = read_rows(process.prefix)
        finally:
            process.close()
            endpoint.stop()
        if rows is None:
            raise RunError("the run finished no stage")
        measured = compare(load, endpoint.kind, rows, truth, other_cores.cores())
        return Held(
            users=users,
            started_s=min(float(row["started_at"]) for row in rows.requests) - began,
            memory=Memory(load_kb, pss_kb, process.peak_kb),
            measured=measured,
            interrupted=Counter(_codes(path_of(process.prefix, REQUESTS_CSV), "2")),
            closed_s=closed_s,
            ended_s=ended_s,
        )


def _codes(path: Path, stage: str) -> Iterator[str]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["stage"] == stage:
                yield row[COL.error_code]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.accuracy.many_users", description="Measure many users that mostly wait."
    )
    parser.add_argument("--users", type=int, default=10_000, metavar="N", help="number of users (default: 10000)")
    parser.add_argument("--ttft-s", type=float, default=30.0, metavar="S", help="time to first token (default: 30)")
    parser.add_argument("--tokens", type=int, default=10, metavar="N", help="tokens of an answer (default: 10)")
    parser.add_argument("--ramp-s", type=float, metavar="S", help="ramp of each stage (default: 0.4 TTFTs)")
    parser.add_argument("--truth", type=Path, metavar="PATH", help="a native server, as its binary or its .c file")
    options = parser.parse_args(argv)
    ramp_s = 0.4 * options.ttft_s if options.ramp_s is None else options.ramp_s
    if options.ttft_s < ramp_s + _ALL_SENT_S:
        parser.error(f"the TTFT must be {_ALL_SENT_S:g} s longer than the ramp")
    with tempfile.TemporaryDirectory(prefix="many-users-") as folder:
        try:
            start: Start = SimulatorEndpoint
            if options.truth is not None:
                start = partial(NativeEndpoint, native_binary(options.truth, Path(folder)))
            one = hold(1, _ONE_USER_RAMP_S, Timing(_ONE_USER_TTFT_S, 0.05, options.tokens), start)
            many = hold(options.users, ramp_s, Timing(options.ttft_s, 0.05, options.tokens), start)
        except (FileNotFoundError, RunError) as error:
            print(error, file=sys.stderr)
            return 2
    print_figures(one, many, ramp_s)
    misses = missed_bounds(one, many)
    bounds = f"TTFT error p99 {TTFT_P99_S * 1e3:g} ms, {KB_PER_USER:g} kB per user"
    print(f"bounds        {', '.join(misses) or 'kept'} ({bounds})")
    return 1 if misses else 0


def kb_per_user(one: Held, many: Held, figure: Callable[[Memory], int]) -> float:
    """Return the memory of a user beyond a process with one user."""
    return (figure(many.memory) - figure(one.memory)) / (many.users - one.users)


def missed_bounds(one: Held, many: Held) -> list[str]:
    """Return what is worse than its bound, and rows that are missing."""
    misses = []
    if many.measured.failed or many.measured.miscounted:
        misses.append("failed requests")
    if many.measured.ttft_p99_s > TTFT_P99_S:
        misses.append("TTFT")
    if kb_per_user(one, many, lambda memory: memory.load_kb) > KB_PER_USER:
        misses.append("memory")
    if many.interrupted != Counter(aborted=many.users):
        misses.append(f"rows of interrupted requests: {dict(many.interrupted)}")
    return misses


def print_figures(one: Held, many: Held, ramp_s: float) -> None:
    measured = many.measured
    print(f"{many.users} users on the {measured.server} server, ramp {ramp_s:g} s")
    print(f"start         {many.started_s:.1f} s to the first request (one user: {one.started_s:.1f} s)")
    print(f"TTFT error    p50 {measured.ttft_p50_s * 1e3:.3f} ms, p99 {measured.ttft_p99_s * 1e3:.3f} ms", end="")
    print(f" (the server was {measured.late_p99_s * 1e3:.2f} ms late, p99)")
    print(f"health        {measured.health}, {measured.cpu_share:.0%} of a core, {measured.failed} failed requests")
    print(f"others        {measured.other_cores:.2f} cores used by other programs")
    for name, figure in (
        ("memory", lambda memory: memory.load_kb),
        ("with report", lambda memory: memory.peak_kb),
        ("PSS, held", lambda memory: memory.pss_kb),
    ):
        print(
            f"{name:13} {figure(many.memory) / 1024:.0f} MiB, one user {figure(one.memory) / 1024:.0f} MiB: "
            f"{kb_per_user(one, many, figure):.1f} kB per user"
        )
    print(f"stop          {many.closed_s:.1f} s until all connections are closed, ", end="")
    print(f"{many.ended_s:.1f} s to the exit (one user: {one.ended_s:.1f} s); rows: {dict(many.interrupted)}")


if __name__ == "__main__":
    sys.exit(main())
