"""The figures of a stage in the tab: those of a finished stage are the report's, those of a running one come close."""

from __future__ import annotations

import math
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.metrics.groups import CORRECTED_LATENCY, CORRECTED_TTFT, LATENCY, OUTPUT_THROUGHPUT, TPOT, TTFT
from llm_users.quantile import quantile
from llm_users.record import REQUEST_COLUMNS, STAGE_COLUMNS, RequestRecord, StageLoad, StageRecord
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from llm_users.web import stage_series
from llm_users.web.stage_series import RunTotals, Series, StageSeries
from tests.unit.reports.open_loop_on_disk import write_rates
from tests.unit.reports.rows_on_disk import record
from tests.unit.reports.sweep_on_disk import write_sweep
from tests.unit.web.finished_stages import finished, read, write_run

METRICS = {"ttft": TTFT, "throughput": OUTPUT_THROUGHPUT, "tpot": TPOT, "e2e": LATENCY,
           "corrected_ttft": CORRECTED_TTFT, "corrected_e2e": CORRECTED_LATENCY}  # fmt: skip
FIGURES = ("median", "mean", "min", "max", "p25", "p75", "p95", "p99")
COUNTS = ("ok", "failed", "throttled", "aborted", "cancelled")


def equals_the_report(shown: Sequence[dict[str, Any]], prefix: Path) -> None:
    groups = llm_reports.groups([llm_reports.load(prefix)])
    assert len(shown) == len(groups) > 0
    of_stage = [row["stage"] for row in shown]
    for row, group in zip(shown, groups, strict=True):
        assert row["finished"]
        assert row["exact"]
        assert (row["stage"], row["framework"], row["model"]) == (group.stage, group.framework, group.model)
        assert StageLoad(row["concurrency"], row["rate_per_s"]) == group.load
        assert row["requests"] == group.counts.measured
        assert [row[name] for name in COUNTS] == [getattr(group.counts, name) for name in COUNTS]
        for name, metric in METRICS.items():
            summary = group.summary(metric)
            wanted = {figure: getattr(summary, figure) for figure in FIGURES}
            assert row[name] == {name: value if math.isfinite(value) else None for name, value in wanted.items()}
        written = group.run.stages.set_index("stage").loc[group.stage]
        assert (row["health"] or "", row["steadiness"] or "") == (group.health, written["steadiness"])
        for rate in ("output_throughput_token_per_s", "request_throughput_per_s"):
            alone = of_stage.count(row["stage"]) == 1 and math.isfinite(written[rate])
            assert row[rate] == (written[rate] if alone else None)


def test_a_running_stage_reads_as_its_rows_do() -> None:
    series = StageSeries(1, StageLoad(4))
    rng = random.Random(2)
    times = [rng.lognormvariate(-2, 0.7) for _ in range(500)]
    for value in times:
        series.add(RequestRecord(measured=1, ttft_s=value, end_to_end_latency_s=2 * value))
    series.add(RequestRecord(measured=1, error_code="429", ttft_s=99.0))
    series.add(RequestRecord(measured=1, error_code="aborted"))
    series.add(RequestRecord(measured=0, ttft_s=99.0))
    row = series.running_row()
    assert (row["requests"], row["ok"], row["failed"], row["throttled"], row["aborted"]) == (502, 500, 1, 1, 1)
    times.sort()
    assert row["ttft"]["median"] == pytest.approx(quantile(times, 0.5), rel=0.0025)
    assert row["ttft"]["p99"] == pytest.approx(quantile(times, 0.99), rel=0.0025)
    assert (row["ttft"]["min"], row["ttft"]["max"]) == pytest.approx((times[0], times[-1]), rel=1e-8)
    assert row["ttft"]["mean"] == pytest.approx(sum(times) / 500)
    assert row["tpot"]["median"] is None
    assert (row["finished"], row["exact"]) == (False, False)


def test_a_running_stage_of_an_open_loop_reads_as_its_rows_do_when_it_is_over(tmp_path: Path) -> None:
    prefix = write_rates(tmp_path / "open", rates=(20,), policy="drop")
    series = StageSeries(1, StageLoad(rate_per_s=20.0))
    for row in read(path_of(prefix, REQUESTS_CSV), RequestRecord, REQUEST_COLUMNS):
        series.add(row)
    (stage,) = read(path_of(prefix, STAGES_CSV), StageRecord, STAGE_COLUMNS)
    (over,), running = series.finished_rows(stage), series.running_row()
    load = ("stage", "concurrency", "rate_per_s")
    assert [over[name] for name in load] == [running[name] for name in load] == [1, None, 20.0]
    counts = ("requests", *COUNTS)
    assert [over[name] for name in counts] == [running[name] for name in counts]
    assert over["failed"] > 20
    for metric in ("ttft", "e2e", "corrected_ttft", "corrected_e2e"):
        assert running[metric] == pytest.approx(over[metric], rel=0.003)
    assert over["corrected_ttft"]["median"] > over["ttft"]["median"]


def test_figures_that_are_known_by_construction() -> None:
    values = [0.001 * k for k in range(1, 102)]  # 1 to 101 ms: the percentile q is 1 + 100 q ms
    random.Random(1).shuffle(values)
    stage = StageRecord(stage=3, concurrency=2, output_throughput_token_per_s=512.0, health="ok")
    rows = [record(k, stage=3, concurrency=2, ttft_s=value, tpot_s=2 * value) for k, value in enumerate(values)]
    (row,) = finished([*rows, record(200, stage=3, concurrency=2, error_code="buffered", ttft_s=9.0)], [stage])
    at = {"min": 1, "p25": 26, "median": 51, "p75": 76, "p95": 96, "p99": 100, "max": 101, "mean": 51}
    assert row["ttft"] == pytest.approx({name: place / 1000 for name, place in at.items()}, rel=1e-12)
    assert row["tpot"] == pytest.approx({name: 2 * place / 1000 for name, place in at.items()}, rel=1e-12)
    assert row["e2e"] == dict.fromkeys(FIGURES, 1.0)
    assert row["throughput"] == dict.fromkeys(FIGURES, 50.0)
    assert (row["requests"], row["ok"], row["health"]) == (102, 102, "ok")
    assert (row["output_throughput_token_per_s"], row["request_throughput_per_s"]) == (512.0, None)


@pytest.mark.parametrize("open_loop", [False, True])
def test_finished_stages_have_the_figures_of_the_report_to_the_last_digit(tmp_path: Path, open_loop: bool) -> None:
    prefix = write_rates(tmp_path / "run", policy="drop") if open_loop else write_sweep(tmp_path / "run")
    rows = read(path_of(prefix, REQUESTS_CSV), RequestRecord, REQUEST_COLUMNS)
    stages = read(path_of(prefix, STAGES_CSV), StageRecord, STAGE_COLUMNS)
    equals_the_report(finished(rows, stages), prefix)


def test_a_stage_has_a_row_per_group_of_the_report(tmp_path: Path) -> None:
    """Rows that have more digits than the file, several models, an unmeasured model, and a stage without rows."""
    rng = random.Random(5)
    rows = [
        record(k, model=model, concurrency=3, ttft_s=rng.random() / 3, end_to_end_latency_s=0.5 + rng.random() / 7,
               tpot_s=rng.random() / 30, output_tokens=rng.randrange(1, 500), error_code=rng.choice([None, "500"]))
        for k, model in enumerate(("b", "a", "b") * 50)
    ]  # fmt: skip
    rows.append(record(900, model="warm", concurrency=3, phase="warmup", measured=0))
    stage = StageRecord(
        stage=1, concurrency=3, output_throughput_token_per_s=1 / 3, health="strained", steadiness="steady"
    )
    prefix = write_run(tmp_path / "run", rows, [stage])
    shown = finished(rows, [stage])
    assert [row["model"] for row in shown] == ["a", "b", "warm"]
    equals_the_report(shown, prefix)
    (empty,) = finished([], [stage])
    assert (empty["requests"], empty["concurrency"], empty["ttft"]["median"]) == (0, 3, None)


def test_above_the_limit_the_percentiles_come_from_the_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    rows = [record(k, ttft_s=rng.lognormvariate(-2, 0.7)) for k in range(1000)]  # ttft, tpot, e2e, throughput
    stage = StageRecord(stage=1, concurrency=1)
    monkeypatch.setattr(stage_series, "MOST_VALUES", 4 * len(rows))
    (exact,) = finished(rows, [stage])
    assert exact["exact"]
    (approximate,) = finished([*rows, record(1000, ttft_s=0.1)], [stage])
    assert not approximate["exact"]
    assert approximate["finished"]
    assert approximate["requests"] == 1001
    known = sorted([row.ttft_s or 0 for row in rows] + [0.1])
    for name, q in stage_series.FIGURES.items():
        assert approximate["ttft"][name] != quantile(known, q)
        assert approximate["ttft"][name] == pytest.approx(quantile(known, q), rel=0.002)
    assert (approximate["ttft"]["min"], approximate["ttft"]["max"]) == (exact["ttft"]["min"], exact["ttft"]["max"])


def test_a_value_takes_nine_bytes_at_most_and_none_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 200_000
    rng = random.Random(4)
    values = [rng.lognormvariate(-2, 0.7) for _ in range(count)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = Series()
        for value in values:
            kept.add(value)
        after, _ = tracemalloc.get_traced_memory()
        uncounted = Series()
        for value in values:
            uncounted.add(value, keep=False)
        histogram_bytes = tracemalloc.get_traced_memory()[0] - after
    finally:
        tracemalloc.stop()
    bytes_per_value = (after - before - histogram_bytes) / count
    print(f"{bytes_per_value:.2f} bytes per value, {histogram_bytes:,} bytes for a histogram")
    assert 8 <= bytes_per_value <= 9.1
    assert histogram_bytes < 400_000


def test_the_number_of_groups_is_limited() -> None:
    series = StageSeries(1, StageLoad(1))
    for number in range(3 * stage_series.MOST_GROUPS):
        series.add(record(number, model=f"model-{number}"))
    shown = series.finished_rows(StageRecord(stage=1, concurrency=1))
    assert len(shown) == stage_series.MOST_GROUPS + 1
    assert sum(row["requests"] for row in shown) == series.requests == 3 * stage_series.MOST_GROUPS
    assert shown[0]["model"] == "other models"


def test_the_totals_of_a_run_are_those_of_all_its_rows() -> None:
    rng = random.Random(8)
    totals, times = RunTotals(), []
    for stage, count in ((1, 300), (2, 500)):
        series = StageSeries(stage, StageLoad(stage))
        for number in range(count):
            times.append(rng.lognormvariate(-2, 0.7))
            series.add(record(number, stage=stage, model=f"model-{number % 2}", ttft_s=times[-1]))
        series.add(record(count, stage=stage, error_code="429"))
        totals.add(series, StageRecord(stage=stage, measure_s=10.0 * stage, window_tokens=600.0,
                                       request_throughput_per_s=5.0 * stage))  # fmt: skip
    figures = totals.figures()
    times.sort()
    assert figures["ttft"]["median"] == pytest.approx(quantile(times, 0.5), rel=0.0025)
    assert figures["ttft"]["p95"] == pytest.approx(quantile(times, 0.95), rel=0.0025)
    assert [figures[name] for name in ("stages", *("requests", "ok", "failed", "throttled"))] == [2, 802, 800, 2, 2]
    assert figures["output_throughput_token_per_s"] == pytest.approx(1200 / 30)
    assert figures["request_throughput_per_s"] == pytest.approx((50 + 200) / 30)
