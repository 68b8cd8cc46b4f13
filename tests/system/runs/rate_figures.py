"""How exact the open loop is: `python -m tests.system.runs.rate_figures [RATE ...]`; wants a quiet machine.

Held against the server's own record of when it had read each request: the rate against the schedule's, and the gaps
against the stated distribution by a Kolmogorov-Smirnov test: all of them, and those above 0.3 ms against the
distribution of such gaps, since one process sends one request after the other. The same test of the times in the
rows: when they were sent, `started_at`, and when they should have been, `started_at - queue_s`, for gaps above 10 µs:
seconds since 1970 in a 64-bit float are a quarter of a microsecond apart.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from llm_users.distributions import ARRIVAL_GAPS, Distribution
from llm_users.load.protocol.arrivals import arrival_times_s
from llm_users.simulator.launch import launch
from tests.project import ROOT

SECONDS = 10
WARMUP = 100
SEED = 11111
HEAD = (
    "arrivals",
    "asked/s",
    "server saw/s",
    "error",
    "KS p: rows",
    "sent",
    "server",
    "> 0.3 ms",
    "queue p50/p99",
    "CPU",
    "client",
    "server late p99",
)


def measure(rate: float, arrivals: str) -> tuple[str, ...]:
    """One run of ten seconds and what the server recorded of it, as a row of the table."""
    count = int(rate * SECONDS)
    with tempfile.TemporaryDirectory(prefix="rate-") as folder:
        log, prefix = Path(folder) / "log.jsonl", Path(folder) / "run"
        with launch("ttft=20ms,itl=5ms", log=log) as simulator, apart(simulator.pid):
            command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfiles" / "sweep.py"), "--headless"]
            command += ["--only-summary", "--csv", str(prefix), "--host", simulator.url, "--llm-rate", f"{rate:g}"]
            command += ["--llm-requests", str(count), "--llm-arrivals", arrivals, "--llm-warmup", str(WARMUP)]
            command += ["--llm-input-tokens", "50,0", "--llm-output-tokens", "4,0", "--llm-seed", str(SEED)]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            totals = simulator.stop()
        entries = {entry["response_id"]: entry for entry in map(json.loads, log.read_text().splitlines())}
        with Path(f"{prefix}_llm_requests.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["measured"] == "1"]
        with Path(f"{prefix}_llm_stages.csv").open(newline="") as file:
            stage = next(csv.DictReader(file))
    came = np.sort([entries[row["response_id"]]["received_ns"] / 1e9 for row in rows])
    times = arrival_times_s(Distribution.parse(arrivals, ARRIVAL_GAPS), rate, f"{SEED}:1:arrivals")
    meant = list(islice(times, WARMUP, WARMUP + count))
    seen, wanted = (count - 1) / (came[-1] - came[0]), (count - 1) / (meant[-1] - meant[0])
    queue_ms = np.quantile([float(row["queue_s"]) for row in rows], [0.5, 0.99]) * 1e3
    due = np.sort([float(row["started_at"]) - float(row["queue_s"]) for row in rows])
    sent = np.sort([float(row["started_at"]) for row in rows])
    tested = ((due, 10e-6), (sent, 0.0), (came, 0.0), (came, 0.3e-3))
    chances = [
        "-" if arrivals == "constant" else f"{gaps_pvalue(times, arrivals, rate, least):.3f}" for times, least in tested
    ]
    return (
        arrivals, f"{rate:g}", f"{seen:.2f}", f"{100 * (seen / wanted - 1):+.3f} %", *chances,
        f"{queue_ms[0]:.2f} / {queue_ms[1]:.2f} ms", f"{float(stage['client_cpu_share_max']):.0%}", stage["health"],
        f"{totals['late_p99_us'] / 1e3:.1f} ms",
    )  # fmt: skip


@contextmanager
def apart(server: int) -> Iterator[None]:
    """The server on one processor and what is started meanwhile on the others, where there are any, so that neither is
    put aside for the other in the middle of a request."""
    if not hasattr(os, "sched_setaffinity") or len(ours := os.sched_getaffinity(0)) < 2:
        yield
        return
    its_own = max(ours)
    os.sched_setaffinity(server, {its_own})
    os.sched_setaffinity(0, ours - {its_own})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def gaps_pvalue(times: np.ndarray, arrivals: str, rate: float, least_s: float) -> float:
    """How likely gaps as uneven as these are under the distribution, of those that are longer than ``least_s``."""
    gaps, cdf = np.diff(times), cdf_of(arrivals, rate)
    below = cdf(least_s)
    return float(stats.kstest(gaps[gaps > least_s], lambda gap: (cdf(gap) - below) / (1 - below)).pvalue)


def cdf_of(arrivals: str, rate: float) -> Callable[[Any], Any]:
    cv = Distribution.parse(arrivals, ARRIVAL_GAPS).cv
    return stats.gamma(cv**-2, scale=cv**2 / rate).cdf  # type: ignore[no-any-return]


def main() -> None:
    rates = [float(given) for given in sys.argv[1:]] or [50.0, 200.0, 500.0]
    print("| " + " | ".join(HEAD) + " |")
    print("|" + " --- |" * len(HEAD))
    for rate in rates:
        for arrivals in ("constant", "poisson", "gamma:0.5", "gamma:2"):
            print("| " + " | ".join(measure(rate, arrivals)) + " |", flush=True)


if __name__ == "__main__":
    main()
