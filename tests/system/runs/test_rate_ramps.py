"""A rate that changes within a stage, against the server's own log of when each request arrived."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from llm_users.simulator.launch import launch
from tests.ports import master_ports
from tests.system.locust_runs import Locust
from tests.system.runs.test_open_loop import measured, received_s, spread_s

RAMP_S, START, END = 6.0, 0.0, 40.0
ARRIVALS = 120
"""(0 + 40) / 2 requests/s for 6 s."""


def due_s(number: int) -> float:
    """Return when arrival ``number`` is due: the integral of the rate, 40 / 6 * t * t / 2, reaches the number."""
    return math.sqrt(2 * number * RAMP_S / (END - START))


@pytest.mark.parametrize("processes", [1, 2])
def test_requests_reach_the_server_when_the_integral_of_the_rate_says_so(
    processes: int, locust: Locust, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    distributed = ["--processes", "2", *master_ports()] if processes > 1 else []
    with launch("ttft=20ms,itl=5ms", max_seconds=60, log=log) as simulator:
        run = locust.run("--host", simulator.url, "--llm-rate", f"{START:g}..{END:g}",
                         "--llm-stage-time", f"{RAMP_S:g}s", "--llm-arrivals", "constant", "--llm-warmup", "2s",
                         "--llm-output-tokens", "4,0", *distributed)  # fmt: skip
    assert run.code == 0, run.err
    rows = measured(run)
    # The last arrival is due at the moment at which the stage ends.
    assert ARRIVALS - 1 <= len(rows) <= ARRIVALS + 1
    came = received_s(log, rows)[: ARRIVALS - 1]
    assert spread_s(came, [due_s(number) for number in range(1, ARRIVALS)]) < 0.003
    # The fit of a constant rate of the same number of requests is a hundred times worse.
    assert spread_s(came, [number / 20 for number in range(1, ARRIVALS)]) > 0.3
    warmup = [row for row in run.rows() if row["phase"] == "warmup"]
    assert len(warmup) == pytest.approx(2 * 20, abs=1)  # from a rate of 0, the warm-up has the mean rate
    stage = run.rows("stages")[0]
    assert [stage[name] for name in ("rate_per_s", "rate_start_per_s", "rate_end_per_s")] == ["20", "0", "40"]
    assert stage["steadiness"] == "ramped"
    assert float(stage["started_rate_per_s"]) == pytest.approx(len(rows) / RAMP_S, rel=0.02)


def test_the_report_shows_how_the_latency_grows_with_the_rate(locust: Locust) -> None:
    # 50 ms and nine gaps of 20 ms for up to 8 requests in flight, which is up to 35 requests/s; more make gaps longer.
    with launch("ttft=50ms,itl=20ms,capacity=8", max_seconds=60) as simulator:
        run = locust.run("--host", simulator.url, "--llm-rate", "10..60", "--llm-stage-time", "6s", "--llm-arrivals",
                         "constant", "--llm-warmup", "0", "--llm-output-tokens", "10,0")  # fmt: skip
    assert run.code == 0, run.err
    assert "unsteady" not in run.out + run.err
    done = subprocess.run(
        [sys.executable, "-m", "llm_reports.main", str(run.prefix), "--format", "md"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "10..60" in done.stdout
    text = (Path(f"{run.prefix}_report") / "report.md").read_text()
    section = text.partition("## Rate within the stage")[2].partition("##")[0]
    lines = [line.split("|")[1:-1] for line in section.splitlines() if "10..60 requests/s" in line]
    rates = [line[1].strip() for line in lines]
    assert (rates[0], rates[-1]) == ("10 to 15", "55 to 60")
    requests = [int(line[2]) for line in lines]
    # The mean rate of a tenth of the stage, for 0.6 s.
    assert requests == pytest.approx([0.6 * (12.5 + 5 * index) for index in range(10)], abs=1.5)
    medians = [float(line[7]) for line in lines]
    assert medians[:4] == pytest.approx([0.23] * 4, abs=0.03)
    assert medians[-1] > 1.5 * medians[0]
