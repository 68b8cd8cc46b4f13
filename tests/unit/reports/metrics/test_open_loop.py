"""Runs of an open loop in every part of the report: by their rate, and from the intended start."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.main import main
from llm_reports.metrics.open_loop import RateTable, open_loop_tables
from llm_reports.metrics.stage_load import axis_name, load_columns, loads_in_words
from llm_users.record import REQUEST_COLUMNS, RequestRecord, StageLoad, load_of
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from tests.unit.reports.open_loop_on_disk import write_rates
from tests.unit.reports.rows_on_disk import write_csv
from tests.unit.reports.sweep_on_disk import write_sweep

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]
NEW = {"rate_per_s", "held_s", "corrected_ttft_s", "corrected_end_to_end_latency_s"}


def rows_of(prefix: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path_of(prefix, REQUESTS_CSV).read_text())))


def report_of(prefix: Path, *options: str, code: int = 0) -> str:
    assert main([str(prefix), *options]) == code
    return " ".join(Path(f"{prefix}_report/report.md").read_text().split())


def test_a_load_has_one_name_for_each_place() -> None:
    known = (StageLoad(8), StageLoad(rate_per_s=5.0), StageLoad(rate_per_s=0.25), StageLoad())
    assert [load.short for load in known] == ["8", "5/s", "0.25/s", "?"]
    assert [load.words for load in known] == ["concurrency 8", "5 requests/s", "0.25 requests/s", "concurrency -"]
    assert [load.at for load in known][1::2] == [" at 5 requests/s", ""]
    assert load_of(0, 5.0) == StageLoad(rate_per_s=5.0)
    assert load_of(4, math.nan) == load_of(4.0, None) == StageLoad(4)
    assert load_of(math.nan, math.nan) == load_of(None, -1) == StageLoad()
    assert loads_in_words(
        [StageLoad(rate_per_s=10.0), StageLoad(4), StageLoad(), StageLoad(1), StageLoad(rate_per_s=5.0), StageLoad(4)]
    ) == ("concurrency 1, 4 and 5, 10 requests/s")
    assert [load.level for load in sorted(known, key=lambda load: load.order)] == [None, 8, 0.25, 5.0]
    both = load_columns(known)
    assert (both.header, both.cells(StageLoad(8)), both.cells(StageLoad(rate_per_s=5.0))) == (
        ("Concurrency", "Rate"),
        ["8", "-"],
        ["-", "5"],
    )
    assert load_columns([StageLoad(rate_per_s=5.0)]).header == ("Rate",)
    assert load_columns([StageLoad(), StageLoad(2)]).header == ("Concurrency",)
    assert axis_name([StageLoad(rate_per_s=5.0)]) == "Target rate, requests/s"


def test_the_tables_of_an_open_loop(tmp_path: Path) -> None:
    prefix = write_rates(tmp_path / "open")
    run = llm_reports.load(prefix)
    ttft, throughput = llm_reports.tables([run])
    for table in (ttft, throughput):
        assert table.header[:4] == ("Framework", "Model", "Rate", "Median")
        assert [cells[2] for cells in table.cells] == ["5", "10", "20"]
    corrected_ttft, corrected_e2e, rate = open_loop_tables(llm_reports.groups([run]))
    for table, column in ((corrected_ttft, "corrected_ttft_s"), (corrected_e2e, "corrected_end_to_end_latency_s")):
        assert not isinstance(table, RateTable)
        assert table.header == ttft.header
        for row, stage in zip(table.rows, "123", strict=True):
            values = [float(each[column]) for each in rows_of(prefix) if each["stage"] == stage]
            assert row.figures.median == pytest.approx(statistics.median(values))
            assert row.figures.n == 200
        assert "all waiting before the connection is included" in table.notes[0]
    # At 20 requests/s eight places are too few: who waits for one is not seen by the server's clock alone.
    assert corrected_ttft.rows[2].figures.median > 5 * ttft.rows[2].figures.median
    assert isinstance(rate, RateTable)
    frame = rate.frame().set_index("rate_per_s")
    stage = [each for each in rows_of(prefix) if each["stage"] == "3"]
    held = [each for each in stage if float(each["held_s"]) > 0]
    assert frame.loc[20.0, "held"] == len(held) > 50
    waits = sorted(float(each["queue_s"]) - float(each["held_s"]) for each in stage)
    assert frame.loc[20.0, "queue_p50_s"] == pytest.approx(statistics.median(waits))
    assert frame.loc[20.0, "queue_p99_s"] < 0.0021
    starts = [float(each["started_at"]) for each in stage]
    assert frame.loc[20.0, "achieved_per_s"] == pytest.approx(199 / (max(starts) - min(starts)))
    assert frame.loc[20.0, "difference"] == pytest.approx(frame.loc[20.0, "achieved_per_s"] / 20 - 1)
    assert rate.cells[0][2:4] == ("5", f"{frame.loc[5.0, 'achieved_per_s']:.3f}")
    assert any("by 7.1 %" in note for note in rate.notes), "1 / sqrt(200)"


def test_a_constant_rate_does_not_scatter_and_a_rate_without_stages_file_is_that_of_the_rows(tmp_path: Path) -> None:
    prefix = write_rates(tmp_path / "open", arrivals="constant", rates=(5,))
    path_of(prefix, STAGES_CSV).unlink()
    ttft = llm_reports.tables([llm_reports.load(prefix)])[0]
    assert ttft.header[2] == "Median", "one rate needs no column"
    rate = open_loop_tables(llm_reports.groups([llm_reports.load(prefix)]))[2]
    assert not any("by chance" in note for note in rate.notes)
    starts = [float(each["started_at"]) for each in rows_of(prefix)]
    assert rate.frame()["achieved_per_s"][0] == pytest.approx(199 / (max(starts) - min(starts)))
    assert rate.cells[0][-1] == "-", "how many were in flight only the stages file says"


def test_what_was_dropped_or_held_is_said_under_the_tables(tmp_path: Path) -> None:
    dropped = report_of(write_rates(tmp_path / "drop", policy="drop", seed=4))
    count = sum(each["error_code"] == "overflow" for each in rows_of(tmp_path / "drop") if each["stage"] == "3")
    assert count > 20
    said = "Requests over the limit --llm-max-in-flight were dropped and count as failed: "
    assert f"20 requests/s ({count} of 200)." in dropped.partition(said)[2][:90]
    assert f"20 requests/s ({count} of 200, overflow: {count})." in dropped
    waited = report_of(write_rates(tmp_path / "wait"))
    held = sum(float(each["held_s"]) > 0 for each in rows_of(tmp_path / "wait") if each["stage"] == "3")
    said = "Requests waited because of the limit --llm-max-in-flight and were sent later than scheduled: "
    assert f"20 requests/s ({held} of 200)." in waited.partition(said)[2][:120]
    lines = {
        (line["stage"], line["metric"]): line["mean"]
        for line in csv.DictReader((tmp_path / "drop_report" / "summary.csv").open())
    }
    assert lines["3", "requests_dropped"] == lines["3", "requests_failed"] == str(count)
    assert lines["3", "requests_held"] == "0"


def test_a_sweep_over_users_has_nothing_of_it(tmp_path: Path) -> None:
    prefix = write_sweep(tmp_path / "closed", levels=(1, 2, 4), requests=40)
    text = report_of(prefix, "--format", "md,csv,html")
    page = Path(f"{prefix}_report/report.html").read_text()
    for said in (text, page.partition('id="llm-data"')[0]):
        assert "intended start" not in said
        assert "Rate |" not in said
    with Path(f"{prefix}_report/summary.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert not {line["metric"] for line in lines} & {*NEW, "requests_dropped"}
    assert {line["rate_per_s"] for line in lines} == {""}


def test_both_kinds_of_load_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = write_rates(tmp_path / "open", rates=(5, 10))
    users = write_sweep(tmp_path / "closed", levels=(2, 4), requests=40, model="tiny")
    table = llm_reports.tables(llm_reports.load_all([users, rates]))[0]
    assert table.header[2:4] == ("Concurrency", "Rate")
    assert [cells[2:4] for cells in table.cells] == [("2", "-"), ("4", "-"), ("-", "5"), ("-", "10")]
    assert list(table.frame()["Rate"].dropna()) == [5.0, 10.0]
    assert main([str(users), str(rates), "--format", "md,html", "--plots", "svg", "--out", str(tmp_path / "both")]) == 0
    plot = (tmp_path / "both" / "plot_curve_corrected_e2e.svg").read_text()
    assert all(f">{label}<" in plot for label in ("2", "4", "5/s", "10/s"))
    capsys.readouterr()
    assert main(["compare", str(users), str(rates)]) == 2
    assert "concurrency 2, 4 in closed and 5, 10 requests/s in open" in capsys.readouterr().err


def test_files_from_before_there_were_open_loops(write_run: Write, make_record: Make) -> None:
    rows = [make_record(i, concurrency=2) for i in range(5)]
    old = [column.name for column in REQUEST_COLUMNS if column.name not in NEW]
    prefix = write_run([])
    write_csv(path_of(prefix, REQUESTS_CSV), old, [[getattr(row, name) for name in old] for row in rows])
    stages = ["stage", "concurrency", "measure_s", "health"]
    write_csv(path_of(prefix, STAGES_CSV), stages, [[1, 2, 5.0, "ok"], [2, 4, 5.0, "ok"]])
    groups = llm_reports.groups([llm_reports.load(prefix)])
    assert [group.load for group in groups] == [StageLoad(2), StageLoad(4)]
    assert groups[0].counts.ok == 5
    assert "intended" not in report_of(prefix)


def test_a_stage_in_which_nothing_was_sent_keeps_its_rate(tmp_path: Path) -> None:
    prefix = write_rates(tmp_path / "open", rates=(5, 10))
    file = path_of(prefix, REQUESTS_CSV)
    with file.open(newline="") as open_file:
        header, *rows = list(csv.reader(open_file))
    write_csv(file, header, [row for row in rows if row[header.index("stage")] == "1"])
    table = llm_reports.tables([llm_reports.load(prefix)])[0]
    assert [cells[2:4] for cells in table.cells] == [("5", table.cells[0][3]), ("10", "-")]


def test_objectives_from_the_intended_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = write_rates(tmp_path / "open", requests=1_500)
    junit = tmp_path / "gate.xml"
    gate = ["--slo", "corrected_ttft_p95<0.6,errors<5%", "--junit", str(junit)]
    own = ["--slo", "ttft_p95<0.6,errors<5%", "--slo-stage"]
    assert [main([str(prefix), *own, stage]) for stage in "12"] == [0, 0], "the server's own times are fine"
    assert main([str(prefix), *own, "3"]) == 3, "an unsteady stage never passes"
    assert "the stage was unsteady" in capsys.readouterr().err
    assert main([str(prefix), *gate]) == 3
    printed = capsys.readouterr()
    # The schedule wants more than the endpoint's 8 places can serve: the queue grows until the end of the stage.
    assert "20 requests/s: corrected_ttft_p95<0.6 does not hold: 19.9 s, and the stage was unsteady" in printed.err
    assert 'classname="llm-report.open.20 requests/s"' in junit.read_text()
    groups = llm_reports.groups([llm_reports.load(prefix)])
    points = llm_reports.stage_points(groups, "corrected_ttft_p95<0.6,corrected_e2e_p95<2")
    choice = llm_reports.highest(llm_reports.sweeps(points)[0])
    assert choice.name == "Highest rate that meets the objectives"
    assert choice.point is not None
    assert choice.point.load == StageLoad(rate_per_s=10.0)
    assert choice.reasoning[0].startswith("10/s passes")
    assert list(llm_reports.points_frame(points)["rate_per_s"]) == [5.0, 10.0, 20.0]
    assert points[2].attainment < 0.5, "who waits too long for a place is not well served"
    text = report_of(prefix, "--slo", "corrected_ttft_p95<0.6", code=3)
    assert "Highest rate that meets the objectives: **10/s**." in text
    assert "Knee of the curve: **10 requests/s**." in text
    assert main([str(prefix), "--slo", "corected_ttft_p95<0.6"]) == 2
    assert "Did you mean corrected_ttft" in capsys.readouterr().err


def test_an_objective_of_an_open_loop_cannot_be_decided_by_a_closed_one(write_run: Write, make_record: Make) -> None:
    groups = llm_reports.groups([llm_reports.load(write_run([make_record(i) for i in range(100)]))])
    verdict = llm_reports.gate(groups, llm_reports.parse_objectives("corrected_ttft_p95<9"))
    assert (verdict.verdict, verdict.passed) == ("undecided", False)
    assert "no request has a value for corrected_ttft_p95<9" in verdict.reasons[0]


def test_the_curve_is_drawn_by_rate_and_from_the_intended_start(tmp_path: Path) -> None:
    prefix = write_rates(tmp_path / "open")
    slo = "corrected_ttft_p95<0.5"
    text = report_of(prefix, "--format", "md,html", "--plots", "svg", "--slo", slo, code=3)
    groups = llm_reports.groups([llm_reports.load(prefix)])
    curve = llm_reports.figures([groups[0].run], groups, llm_reports.stage_points(groups)).curves[0]
    assert [point.name for point in curve.points] == ["5/s", "10/s", "20/s (unsteady)"]
    third = [float(each["corrected_ttft_s"]) for each in rows_of(prefix) if each["stage"] == "3"]
    assert curve.points[2].seen("ttft", "p50") == pytest.approx(statistics.median(third))
    assert f" {statistics.median(third):.3f} |" in text
    assert "In an open loop, TTFT and E2E are measured from the intended start." in text
    page = Path(f"{prefix}_report/report.html").read_text()
    assert "Point labels are target rates in requests/s." in page
    assert "Latencies from the intended start count from the schedule" in page
    assert '<option value="corrected_ttft" selected' in page, "the objective's own latency is what is shown first"
    assert '"load_axis":"Target rate, requests/s"' in page
    assert '"words":"5 requests/s"' in page
    plot = (tmp_path / "open_report" / "plot_curve_corrected_ttft.svg").read_text()
    assert slo.replace("<", "&lt;") in plot
    assert "Point labels are target rates" in plot


def test_runs_are_compared_rate_by_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = write_rates(tmp_path / "before", rates=(5, 10), requests=300)
    after = write_rates(tmp_path / "after", rates=(10, 20), requests=300, scale=2.0, seed=8)
    junit = tmp_path / "junit.xml"
    assert main(["compare", str(before), str(after), "--threshold", "10%", "--junit", str(junit)]) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "| Rate | Figure" in said
    assert "| 10 | corrected_ttft_s median" in said
    assert "ttft_s median at 10 requests/s" in said
    assert "5 requests/s of before is not in all runs and is omitted." in said
    assert 'classname="llm-report compare.after.10 requests/s"' in junit.read_text()
    frame = llm_reports.compare_runs(llm_reports.load_all([before, after])).frame()
    assert set(frame["rate_per_s"]) == {10.0}
    same = write_rates(tmp_path / "same", rates=(10,), requests=300, seed=9)
    again = llm_reports.compare_runs(llm_reports.load_all([before, same]), threshold=0.25)
    assert again.passed


def test_dropped_requests_are_errors_where_they_would_have_been(tmp_path: Path) -> None:
    fine = write_rates(tmp_path / "fine", rates=(20,), requests=400, most=40)
    drop = write_rates(tmp_path / "drop", rates=(20,), requests=400, most=6, policy="drop")
    frame = llm_reports.compare_runs(llm_reports.load_all([fine, drop]), threshold=0.05).frame().set_index("metric")
    assert frame.loc["error_ratio", "verdict"] == "failed"
    assert "output_throughput_token_per_s" in frame.index, "that some were never started must not hide the rate"


def test_a_leaderboard_of_one_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write_rates(tmp_path / name, scale=scale)) for name, scale in (("slow", 2.0), ("fast", 1.0))]
    assert main(["leaderboard", *runs, "--rate", "10", "--out", str(tmp_path / "board")]) == 0
    assert "Rate" not in capsys.readouterr().out
    assert main(["leaderboard", *runs]) == 0
    assert "| Rate |" in capsys.readouterr().out
    assert main(["leaderboard", *runs, "--rate", "7"]) == 2
    assert (
        "--rate 7: no run has a stage with this load. Available loads: 5, 10, 20 requests/s." in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main(["leaderboard", *runs, "--rate", "nan"])


def test_llmperfs_files_say_the_rate_and_are_read_again(tmp_path: Path) -> None:
    prefix = write_rates(tmp_path / "open")
    out = tmp_path / "files"
    assert main([str(prefix), "--format", "json,llmperf", "--out", str(out)]) == 0
    summary = json.loads((out / "tiny_550_50_stage2_r10_summary.json").read_text())
    assert (summary["num_concurrent_requests"], summary["rate_per_s"]) == (None, 10.0)
    again = llm_reports.groups(llm_reports.load_all([out]))
    assert {group.load for group in again} == {StageLoad(rate_per_s=rate) for rate in (5.0, 10.0, 20.0)}
    assert "--- 5 requests/s ---" in (out / "llmperf.txt").read_text()


def test_a_comparison_near_the_limit_says_how_little_the_queue_showed(tmp_path: Path) -> None:
    before, after = (write_rates(tmp_path / name, seed=seed) for name, seed in (("before", 1), ("after", 2)))
    assert main(["compare", str(before), str(after), "--out", str(tmp_path / "out")]) == 0
    text = " ".join((tmp_path / "out" / "comparison.md").read_text().split())
    for name in ("before", "after"):
        assert f"the 200 requests of {name} are equivalent to " in text
    assert "at 20 requests/s: the 200 requests of before" in text
    assert "at 5 requests/s: the 200" not in text
