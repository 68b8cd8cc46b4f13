"""Runs in which little or nothing succeeded: every format comes out, with the counts that are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.html.fragment import fragment_of
from llm_reports.main import main
from llm_reports.report import FORMATS
from llm_users.record import RequestRecord, StageRecord
from tests.unit.reports.rows_on_disk import record

Write = Callable[..., Path]
LEVELS = (1, 2, 4)
EACH = 12
NO_ANSWER: dict[str, Any] = {
    "ttft_s": None, "ttfat_s": None, "end_to_end_latency_s": None, "last_token_s": None, "tpot_s": None,
    "output_tokens": None, "input_tokens": None,
}  # fmt: skip
FAILED = {**NO_ANSWER, "error_code": "500", "http_status": 500, "error_message": "internal error"}
ABORTED = {**NO_ANSWER, "error_code": "aborted"}
BUFFERED = {"error_code": "buffered", "ttft_s": None, "ttfat_s": None, "tpot_s": None}
ONE_TOKEN = {"output_tokens": 1, "tpot_s": None, "ttft_s": 1.0, "ttfat_s": 1.0}


def stage(number: int, **values: Any) -> list[RequestRecord]:
    return [
        record(1000 * number + i, stage=number, stage_end=number, concurrency=LEVELS[number - 1], **values)
        for i in range(EACH)
    ]


def totals(rows: Sequence[RequestRecord], *, measure_s: float | None = 12.0) -> list[StageRecord]:
    return [
        StageRecord(
            stage=number, concurrency=level, measure_started_at=1_700_000_000.0 + 1000 * number, measure_s=measure_s,
            requests_measured=sum(row.stage == number and row.measured for row in rows), window_tokens=0.0,
            output_throughput_token_per_s=0.0, request_throughput_per_s=0.0, concurrency_actual=0.0, health="ok",
        )
        for number, level in enumerate(LEVELS, 1)
    ]  # fmt: skip


def all_of(values: dict[str, Any]) -> list[RequestRecord]:
    return [row for number in (1, 2, 3) for row in stage(number, **values)]


CASES: dict[str, list[RequestRecord]] = {
    "all failed": all_of(FAILED),
    "one failed stage among good ones": [*stage(1), *stage(2, **FAILED), *stage(3)],
    "the first stage failed": [*stage(1, **FAILED), *stage(2), *stage(3)],
    "no rows": [],
    "one row": [record(1)],
    "one failed row": [record(1, **FAILED)],
    "all aborted": all_of(ABORTED),
    "all buffered": all_of(BUFFERED),
    "all one-token answers": all_of(ONE_TOKEN),
    "no tokens": all_of({"output_tokens": 0, "tpot_s": None}),
    "no start times": all_of({"started_at": None}),
    "only warm-up": all_of({"measured": 0, "phase": "warmup"}),
    "one instant": all_of({"started_at": 1_700_000_000.0, "end_to_end_latency_s": None, "last_token_s": None}),
}
EXIT_CODES = {"all failed": 1, "one failed row": 1, "all aborted": 1, "no rows": 3, "only warm-up": 3}
ALSO_WITHOUT_STAGES = ("all failed", "one failed stage among good ones", "all buffered", "one row")
COMPANIONS = [
    *((name, "stages") for name in CASES),
    *((name, other) for name in ALSO_WITHOUT_STAGES for other in ("no stages file", "stages of no length")),
]
ALL_FORMATS = ",".join(name for name in FORMATS if name != "png")


def written(write_run: Write, name: str, companions: str) -> Path:
    rows = CASES[name]
    if companions == "no stages file":
        return write_run(rows)
    length = 12.0 if companions == "stages" else 0.0
    return write_run(rows, stages=totals(rows, measure_s=length))


@pytest.mark.parametrize(("name", "companions"), COMPANIONS)
def test_every_format_comes_out(
    write_run: Write, name: str, companions: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = written(write_run, name, companions)
    slo = "ttft_p95<0.5,tpot_p95<1,e2e_mean<9,errors<0.5"
    assert main([str(prefix), "--format", "md"]) == EXIT_CODES.get(name, 0)
    capsys.readouterr()
    assert main([str(prefix), "--format", ALL_FORMATS, "--slo", slo]) in (0, 3)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    # The print-out and the tables are both there, and no figure is "nan" or "inf".
    folder = prefix.with_name("run_report")
    names = {path.name for path in folder.iterdir()}
    assert {"report.md", "report.html", "summary.csv", "summary.json", "llmperf.txt"} <= names
    for path in folder.glob("*.md"):
        assert "nan" not in path.read_text().lower()
    page = (folder / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    json.loads((folder / "summary.json").read_text())
    assert fragment_of(prefix, slo=slo).rstrip().endswith("</section>")


@pytest.mark.parametrize("name", CASES)
def test_comparison_and_leaderboard_come_out(write_run: Write, name: str, tmp_path: Path) -> None:
    prefix = written(write_run, name, "stages")
    good = write_run([*stage(1), *stage(2), *stage(3)], name="good")
    assert main(["leaderboard", str(prefix), str(good), "--out", str(tmp_path / "board"), "--plots", "svg"]) == (
        3 if EXIT_CODES.get(name) == 3 else 0
    )
    assert main(["compare", str(good), str(prefix), "--out", str(tmp_path / "both"), "--plots", "svg"]) in (0, 3)
    assert (tmp_path / "both" / "comparison.html").exists()


@pytest.mark.parametrize(("name", "ok", "failed"), [("all failed", 0, 12), ("one failed stage among good ones", 0, 12)])
def test_the_summary_counts_a_stage_without_an_answer(write_run: Write, name: str, ok: int, failed: int) -> None:
    report = llm_reports.report_run(written(write_run, name, "stages"))
    line = next(line for line in report.text.splitlines() if line.startswith("    2  median"))
    assert line.split() == ["2", "median", str(ok), str(failed), "0.00", "0.00", "-", "-", "-", "-", "ok"]


@pytest.mark.parametrize("several", [False, True])
def test_llmperf_files_in_which_all_failed(tmp_path: Path, several: bool, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {
        "error_code": 500, "error_msg": "x", "inter_token_latency_s": 0, "ttft_s": 0, "end_to_end_latency_s": 0,
        "request_output_throughput_token_per_s": 0, "number_total_tokens": 0, "number_output_tokens": 0,
        "number_input_tokens": 0,
    }  # fmt: skip
    for run in ("vllm_dead", *(("vllm_other",) if several else ())):
        (tmp_path / f"{run}_individual_responses.json").write_text(json.dumps([entry] * 30))
    assert main([str(tmp_path), "--format", ALL_FORMATS, "--out", str(tmp_path / "out")]) == 1
    assert "    -  median   0    30" in capsys.readouterr().out


def test_png_files_of_a_run_in_which_all_failed(write_run: Write) -> None:
    prefix = written(write_run, "all failed", "stages")
    assert main([str(prefix), "--plots", "png"]) == 1
    # No request has a latency, so what is left is the requests over time.
    assert {path.name for path in prefix.with_name("run_report").glob("*.png")} == {"plot_timeline.png"}
