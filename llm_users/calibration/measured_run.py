"""One run of a load against a server with known timing: the client's errors, its CPU cost, and the run conditions.

A headless Locust process runs one stage and writes its rows, which are compared with the server's log of when it read
each request and sent each token. Timestamps are CLOCK_MONOTONIC nanoseconds, which all processes of the machine share.
The run does not use the caller's options, environment variables, API keys or configuration files.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil  # comes with Locust

from llm_users.options.table import CALIBRATION_VARIABLE
from llm_users.outcome import BUFFERED, Outcome, outcome_of
from llm_users.quantile import quantile
from llm_users.record import COL
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from llm_users.simulator.launch import import_path, launch

SIMULATOR = "simulator"

SERVER_LATE_S = 0.005
"""Limit in seconds for the server's own lateness (p99): above it, a run measures the server, not the client."""

BUSY_CORES = 0.2
"""Limit in cores: above it, two processes that need one core each no longer get it."""

_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")

_SPARE_S = 60.0

_REMOVED_PREFIXES = ("LOCUST_", "OPENAI_", "ANTHROPIC_", "AWS_")
# Requests to Bedrock are signed, as in a real run.
_AWS_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "simulator",
    "AWS_SECRET_ACCESS_KEY": "simulator",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True, slots=True)
class Timing:
    """The configured timing of the server."""

    ttft_s: float
    gap_s: float
    tokens: int

    @property
    def answer_s(self) -> float:
        """The time from the arrival of a request to its last token, on schedule."""
        return self.ttft_s + (self.tokens - 1) * self.gap_s


@dataclass(frozen=True, slots=True)
class Sent:
    """When the server had read a request, and when it sent the first and the last token."""

    received_ns: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Truth:
    """The server's log of a run: its send times by response id, its own lateness and its CPU cost."""

    sent: dict[str, Sent]
    late_p99_s: float
    cpu_per_token_s: float


class Endpoint:
    """A running server. Its ``truth`` is complete after ``stop``."""

    kind: str
    url: str

    def stop(self) -> None:
        raise NotImplementedError

    def truth(self) -> Truth:
        raise NotImplementedError


class SimulatorEndpoint(Endpoint):
    """The project's simulator, with its log in ``folder``."""

    kind = SIMULATOR

    def __init__(self, timing: Timing, folder: Path) -> None:
        self._log = folder / "simulator.jsonl"
        spec = f"ttft={timing.ttft_s * 1e6:.0f}us,itl={timing.gap_s * 1e6:.0f}us,tokens={timing.tokens}"
        self._simulator = launch(spec, log=self._log)
        self.url = self._simulator.url

    def stop(self) -> None:
        self._simulator.stop()

    def truth(self) -> Truth:
        totals = self._simulator.stop()
        with self._log.open(encoding="utf-8") as lines:
            entries = [json.loads(line) for line in lines]
        sent = {
            entry[COL.response_id]: Sent(entry["received_ns"], entry["first_ns"], entry["last_ns"])
            for entry in entries
            if entry["first_ns"] is not None
        }
        return Truth(sent, totals["late_p99_us"] / 1e6, totals["cpu_us_per_token"] / 1e6)


class RunError(RuntimeError):
    """The run failed and has no result."""


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
    """The rows of one stage: its requests, and the row of the stage itself."""

    requests: list[dict[str, str]]
    stage: dict[str, str]


def run_load(load: Load, url: str, folder: Path) -> Rows:
    """Run the stage against ``url`` with its files in ``folder``. Raises ``RunError``."""
    prefix = folder / "run"
    tokens = load.timing.tokens
    command = ["-f", str(load.locustfile), "--headless"]
    command += ["--host", url, "--csv", str(prefix), "--only-summary", "--loglevel", "WARNING"]
    command += ["--llm-sweep", str(load.streams), "--llm-requests", str(load.requests), "--llm-ramp", load.ramp]
    command += ["--llm-input-tokens", "100,0", "--llm-output-tokens", f"{tokens},0"]
    command += load.options
    if load.processes > 1:
        with socket.socket() as probe:  # a free port for the coordinator and the workers
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        command += ["--processes", str(load.processes), "--master-bind-port", port, "--master-port", port]
    with locust_process(command, folder, run_environment(folder), subprocess.PIPE) as process:
        try:
            _, error_output = process.communicate(timeout=load.longest_s)
        except subprocess.TimeoutExpired:
            raise RunError(f"the worker did not end within {load.longest_s:.0f} s") from None
    # 1 is Locust's exit code for failed requests: their rows have the details.
    if process.returncode not in (0, 1):
        raise RunError(f"the worker ended with exit code {process.returncode}:\n{error_output[-2000:]}")
    rows = read_rows(prefix)
    if rows is None:
        raise RunError(f"the worker finished no stage:\n{error_output[-2000:]}")
    return rows


def run_environment(folder: Path) -> dict[str, str]:
    """Return the environment variables of a run, without the caller's options, keys and configuration files."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_REMOVED_PREFIXES)}
    return environment | {**_AWS_SETTINGS, **import_path(), CALIBRATION_VARIABLE: str(folder / "none")}


def read_rows(prefix: Path) -> Rows | None:
    """Return the first stage in the files of a run and its requests, or None if the run finished no stage."""
    stages = _read(path_of(prefix, STAGES_CSV))
    if not stages:
        return None
    requests = [row for row in _read(path_of(prefix, REQUESTS_CSV)) if row["stage"] == stages[0]["stage"]]
    return Rows(requests, stages[0])


@contextlib.contextmanager
def locust_process(
    arguments: list[str], folder: Path, environment: dict[str, str], error_output: int | IO[str]
) -> Iterator[subprocess.Popen[str]]:
    """Start Locust in ``folder``. When the block raises an exception, all processes of the run are killed.

    The run has a separate session: Ctrl-C reaches only this process, and one signal ends all processes of the run.
    """
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "locust", *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=error_output, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        except BaseException:
            _kill(process)
            raise


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class OtherPrograms:
    """CPU use of other programs since the creation of the object, in cores.

    It is the machine's busy time minus the CPU time of this process and of its children that have ended, so wait for
    the children first. Interrupts count as busy: most loopback interrupts run in the time of a process and are also
    part of its CPU time; the remaining ones count as other programs (a few hundredths of a core at 256 streams).
    """

    def __init__(self) -> None:
        self._busy_s, self._ours_s, self._clock_s = _busy_s(), _ours_s(), os.times().elapsed

    def cores(self) -> float:
        elapsed_s = os.times().elapsed - self._clock_s
        others_s = (_busy_s() - self._busy_s) - (_ours_s() - self._ours_s)
        return max(0.0, others_s / elapsed_s) if elapsed_s > 0 else 0.0


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, kind, 0.0) for kind in _BUSY))


def _ours_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run: errors relative to the server's own send times, CPU cost, and the run conditions."""

    server: str
    requests: int
    failed: int
    miscounted: int
    ttft_p50_s: float
    ttft_p99_s: float
    span_p99_s: float
    cpu_per_token_s: float
    cpu_share: float
    tokens_per_s: float
    rate: float
    health: str
    stamp_source: str
    late_p99_s: float
    server_cpu_per_token_s: float
    other_cores: float


def measure(load: Load, start: Callable[[Timing, Path], Endpoint] = SimulatorEndpoint) -> MeasuredRun:
    """Run the load once against a new server and compare its rows with the server's log. Raises ``RunError``."""
    with tempfile.TemporaryDirectory(prefix="llm-bench-") as name:
        folder = Path(name)
        other_cores = OtherPrograms()
        endpoint = start(load.timing, folder)
        try:
            rows = run_load(load, endpoint.url, folder)
            truth = endpoint.truth()
        finally:
            endpoint.stop()
        return compare(load, endpoint.kind, rows, truth, other_cores.cores())


def compare(load: Load, server: str, rows: Rows, truth: Truth, other_cores: float) -> MeasuredRun:
    """Compare the measured rows of a run with the server's log. Raises ``RunError`` if rows are missing."""
    measured = [row for row in rows.requests if row["measured"] == "1"]
    if len(measured) != load.requests:
        raise RunError(f"the run has {len(measured)} measured rows instead of {load.requests}")
    good = [
        row for row in measured if outcome_of(row[COL.error_code]) is Outcome.OK and row[COL.error_code] != BUFFERED
    ]
    if not good:
        raise RunError(f"every request failed, the first with: {measured[0][COL.error_message]}")
    ttft_errors_s, span_errors_s = [], []  # of the client's times from request to first, and from first to last token
    for row in good:
        sent = truth.sent.get(row[COL.response_id])
        if sent is None:
            raise RunError(f"the server's log has no answer {row[COL.response_id]!r}, but the worker has its row")
        ttft_s, span_s = float(row[COL.ttft_s]), float(row[COL.last_token_s]) - float(row[COL.ttft_s])
        ttft_errors_s.append(abs(ttft_s - (sent.first_ns - sent.received_ns) / 1e9))
        span_errors_s.append(abs(span_s - (sent.last_ns - sent.first_ns) / 1e9))
    ttft_errors_s.sort()
    span_errors_s.sort()
    tokens, stage = str(load.timing.tokens), rows.stage
    latencies_s = [float(row[COL.queue_s]) + float(row[COL.end_to_end_latency_s]) for row in good]
    window_tokens = float(stage[COL.window_tokens])
    return MeasuredRun(
        server=server,
        requests=load.requests,
        failed=len(measured) - len(good),
        miscounted=sum(row[COL.output_tokens] != tokens or row["chunks"] != tokens for row in good),
        ttft_p50_s=quantile(ttft_errors_s, 0.5),
        ttft_p99_s=quantile(ttft_errors_s, 0.99),
        span_p99_s=quantile(span_errors_s, 0.99),
        cpu_per_token_s=float(stage["client_cpu_s"]) / window_tokens if window_tokens else math.nan,
        cpu_share=float(stage[COL.client_cpu_share_max] or math.nan),
        tokens_per_s=float(stage[COL.output_throughput_token_per_s] or math.nan),
        rate=load.timing.answer_s / (sum(latencies_s) / len(latencies_s)),
        health=stage["health"],
        stamp_source=stage[COL.stamp_source],
        late_p99_s=truth.late_p99_s,
        server_cpu_per_token_s=truth.cpu_per_token_s,
        other_cores=other_cores,
    )
