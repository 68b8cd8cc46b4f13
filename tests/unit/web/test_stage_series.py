"""The figures of a running stage agree with those of its rows."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from llm_reports.follow import stage as figures_of
from llm_users.quantile import quantile
from llm_users.record import REQUEST_COLUMNS, RequestRecord, StageLoad
from llm_users.web.stage_series import StageSeries
from tests.unit.reports.open_loop_on_disk import write_rates


def test_a_running_stage_reads_as_its_rows_do() -> None:
    series = StageSeries(1, StageLoad(4))
    rng = random.Random(2)
    times = [rng.lognormvariate(-2, 0.7) for _ in range(500)]
    for value in times:
        series.add(RequestRecord(ttft_s=value, end_to_end_latency_s=2 * value))
    series.add(RequestRecord(error_code="429", ttft_s=99.0))
    series.add(RequestRecord(error_code="aborted"))
    row = series.row()
    assert (row["requests"], row["ok"], row["failed"], row["throttled"], row["aborted"]) == (502, 500, 1, 1, 1)
    times.sort()
    assert row["ttft"]["median"] == pytest.approx(quantile(times, 0.5), rel=0.0025)
    assert row["ttft"]["p99"] == pytest.approx(quantile(times, 0.99), rel=0.0025)
    assert (row["ttft"]["min"], row["ttft"]["max"]) == (times[0], times[-1])
    assert row["ttft"]["mean"] == pytest.approx(sum(times) / 500)
    assert row["tpot"]["median"] is None


def test_a_running_stage_of_an_open_loop_reads_as_its_rows_do_when_it_is_over(tmp_path: Path) -> None:
    prefix = write_rates(tmp_path / "open", rates=(20,), policy="drop")
    rows = Path(f"{prefix}_llm_requests.csv")
    series = StageSeries(1, StageLoad(rate_per_s=20.0))
    columns = {column.name: column.type for column in REQUEST_COLUMNS}
    for line in csv.DictReader(io.StringIO(rows.read_text())):
        values = {name: columns[name](value) for name, value in line.items() if value}
        series.add(RequestRecord(**values))
    asked = {"rows": rows, "stages": f"{prefix}_llm_stages.csv", "stage": 1, "from": 0, "to": rows.stat().st_size}
    (over,), running = figures_of(asked)["stages"], series.row()
    load = ("stage", "concurrency", "rate_per_s")
    assert [over[name] for name in load] == [running[name] for name in load] == [1, None, 20.0]
    counts = ("requests", "ok", "failed", "throttled", "aborted")
    assert [over[name] for name in counts] == [running[name] for name in counts]
    assert over["failed"] > 20
    for metric in ("ttft", "e2e", "corrected_ttft", "corrected_e2e"):
        assert running[metric] == pytest.approx(over[metric], rel=0.003)
    assert over["corrected_ttft"]["median"] > over["ttft"]["median"]
