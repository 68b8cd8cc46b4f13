"""Rates in reports: what arrived inside the window, one figure everywhere, and files of older versions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.main import main
from llm_reports.metrics.open_loop import open_loop_tables
from llm_reports.metrics.window_rates import window_rows
from llm_users.prices import Prices
from llm_users.record import RequestRecord, StageRecord
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]
START = 1.7e9


def stage(**values: object) -> StageRecord:
    defaults = {"stage": 1, "concurrency": 4, "measure_started_at": START, "measure_s": 10.0, "health": "ok"}
    return StageRecord(**{**defaults, **values})  # type: ignore[arg-type]


def shared(make: Make, index: int, share: float | None, **values: object) -> RequestRecord:
    record = make(index, started_at=START + index, **values)
    record.count_in_window(share)
    return record


def point_of(prefix: Path, objectives: str = "") -> llm_reports.StagePoint:
    (group,) = llm_reports.groups([llm_reports.load(prefix)])
    return llm_reports.stage_points([group], objectives)[0] if objectives else llm_reports.stage_points([group])[0]


def without(prefix: Path, *columns: str) -> Path:
    """The rows file as a version without these columns wrote it."""
    path = path_of(prefix, REQUESTS_CSV)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    kept = [place for place, name in enumerate(lines[0]) if name not in columns]
    path.write_text("\n".join(",".join(line[place] for place in kept) for line in lines) + "\n")
    return prefix


def test_requests_count_with_the_share_of_their_output(write_run: Write, make_record: Make) -> None:
    rows = [
        shared(make_record, 0, 0.25, phase="warmup", measured=0),
        shared(make_record, 1, 1.0),
        shared(make_record, 2, 1.0, ttft_s=0.9),
        shared(make_record, 3, 0.5),
        shared(make_record, 4, 1.0, error_code="timeout"),
    ]
    point = point_of(write_run(rows, stages=[stage()]), "ttft_p95<0.5")
    assert point.requests_per_s == pytest.approx(2.75 / 10), "of those that succeeded, whatever their phase"
    assert point.tokens_per_s == pytest.approx(2.75 * 50 / 10)
    assert point.goodput_requests_per_s == pytest.approx(1.75 / 10), "without the slow one"
    assert point.goodput_tokens_per_s == pytest.approx(1.75 * 50 / 10)
    assert not point.estimated


def test_the_price_of_a_request_is_by_what_was_answered(write_run: Write, make_record: Make) -> None:
    # A machine of 36 per hour costs 0.01 per second, and 0.3 requests per second are answered.
    rows = [shared(make_record, place, 0.5) for place in range(6)]
    point = point_of(write_run(rows, stages=[stage()]))
    (cost,) = llm_reports.costs([point], Prices("EUR", {}, {"tiny": 36.0}))
    assert cost.per_request == pytest.approx(0.01 / 0.3)


def test_rows_without_a_share_have_that_of_their_tokens(write_run: Write, make_record: Make) -> None:
    rows = [shared(make_record, place, share) for place, share in enumerate((0.2, 1.0, 0.0))]
    point = point_of(without(write_run(rows, stages=[stage()]), "window_share"))
    assert point.requests_per_s == pytest.approx(1.2 / 10)
    assert not point.estimated


def test_rows_without_share_and_tokens_count_at_their_end(write_run: Write, make_record: Make) -> None:
    # They end at 1, 2, ... 12 s; the window is the first 10 s.
    rows = [shared(make_record, place, None) for place in range(12)]
    prefix = without(write_run(rows, stages=[stage()]), "window_share", "window_tokens")
    point = point_of(prefix)
    assert point.requests_per_s == pytest.approx(10 / 10)
    assert point.tokens_per_s == pytest.approx(10 * 50 / 10)
    assert point.estimated
    assert main([str(prefix), "--slo", "e2e_p95<5"]) in (0, 3)
    assert "Rates are estimated" in Path(f"{prefix}_report/report.md").read_text()


def test_rows_without_a_window_count_over_their_duration(write_run: Write, make_record: Make) -> None:
    point = point_of(write_run([shared(make_record, place, None) for place in range(11)]))
    assert point.requests_per_s == pytest.approx(11 / 11)
    assert point.estimated


def test_rows_without_times_have_no_rate(write_run: Write, make_record: Make) -> None:
    rows = [make_record(0, started_at=None, end_to_end_latency_s=None, last_token_s=None)]
    (group,) = llm_reports.groups([llm_reports.load(write_run(rows))])
    assert math.isnan(window_rows(group).requests_per_s())


def test_an_overloaded_open_loop_has_one_started_rate_and_one_throughput(write_run: Write, make_record: Make) -> None:
    # 20 requests in 0.95 s; a tenth of their output came inside the window.
    rows = [shared(make_record, place, 0.1, rate_per_s=20.0, concurrency=0) for place in range(20)]
    for place, record in enumerate(rows):
        record.started_at = START + place / 20
    about = stage(
        concurrency=0, rate_per_s=20.0, measure_s=0.95, started_rate_per_s=20.0, request_throughput_per_s=2.0 / 0.95
    )
    prefix = write_run(rows, stages=[about])
    groups = llm_reports.groups([llm_reports.load(prefix)])
    frame = open_loop_tables(groups)[2].frame()
    assert frame["achieved_per_s"][0] == 20.0
    assert frame["throughput_per_s"][0] == pytest.approx(2.0 / 0.95)
    (point,) = llm_reports.stage_points(groups)
    assert point.requests_per_s == pytest.approx(2.0 / 0.95)
    old = without(write_run(rows, stages=[about], name="old"), "window_share")
    path = path_of(old, STAGES_CSV)
    path.write_text(path.read_text().replace("started_rate_per_s", "unknown"))
    frame = open_loop_tables(llm_reports.groups([llm_reports.load(old)]))[2].frame()
    assert frame["achieved_per_s"][0] == pytest.approx(20.0), "19 gaps in 0.95 s"


def test_a_widened_window_is_noted_under_the_tables(write_run: Write, make_record: Make) -> None:
    note = "stage 1: the window was widened to the end of its last measured request, because its requests started"
    prefix = write_run(
        [shared(make_record, 0, 1.0)], stages=[stage(window_widened=1)], manifest={"run_id": "r", "notes": [note]}
    )
    assert main([str(prefix)]) == 0
    assert "the window was widened" in Path(f"{prefix}_report/report.md").read_text()
