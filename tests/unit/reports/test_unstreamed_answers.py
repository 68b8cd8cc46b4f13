"""Answers that were not streamed: what the tables, notes, formats and verdicts say instead of a time to first token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.end_of_run import end_text
from llm_reports.errors import InputError
from llm_reports.main import main
from llm_reports.metrics.goodput import stage_points
from llm_users.record import RequestRecord

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]

WHOLE = {
    "streamed": 0, "ttft_s": None, "ttfat_s": None, "tpot_s": None, "last_token_s": None, "end_to_end_latency_s": 2.0,
}  # fmt: skip


def rows(make: Make, *, streamed: int, whole: int) -> list[RequestRecord]:
    return [make(i, **(WHOLE if i < whole else {})) for i in range(streamed + whole)]


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_the_formats_of_a_run_without_streams_say_so(
    write_run: Write, make_record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix, out = write_run(rows(make_record, streamed=0, whole=100)), tmp_path / "out"
    assert main([str(prefix), "--format", "md,csv,summary,json,llmperf,html", "--out", str(out)]) == 0
    note = "The answers were not streamed, so there are no TTFT, TPOT and gaps."
    text = printed(capsys)
    assert note in text
    assert "no time to first token, TPOT and gaps: 100 of 100." in text
    assert "Successful requests without this value" not in text
    assert "buffered" not in text
    page = (out / "report.html").read_text()
    assert "Answers that were not streamed" in page
    assert ">nan<" not in page.lower()
    console = (out / "llmperf.txt").read_text()
    assert "ttft_s\n    not streamed\n" in console
    assert "inter_token_latency_s\n    not streamed\n" in console
    assert "nan" not in console
    assert "Answers that were not streamed" in " ".join(console.split())
    summary = json.loads(next(out.glob("*_summary.json")).read_text())
    assert summary["results_ttft_s_mean"] is None
    assert summary["results_inter_token_latency_s_mean"] is None
    assert summary["results_end_to_end_latency_s_mean"] == 2.0
    answers = json.loads(next(out.glob("*_individual_responses.json")).read_text())
    assert {(answer["ttft_s"], answer["inter_token_latency_s"]) for answer in answers} == {(None, None)}


def test_figures_of_a_mixed_run_are_those_of_its_streams(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_run(rows(make_record, streamed=60, whole=40))
    assert main([str(prefix)]) == 0
    text = printed(capsys)
    assert "40 of 100 answers were not streamed; TTFT, TPOT and gaps are of the others." in text
    assert "no time to first token, TPOT and gaps: 40 of 100." in text
    (group,) = llm_reports.groups([llm_reports.load(prefix)])
    ttft, throughput = llm_reports.tables([llm_reports.load(prefix)])
    assert (ttft.rows[0].figures.n, ttft.rows[0].figures.median) == (60, 0.1)
    assert throughput.rows[0].figures.n == 100
    assert (group.facts.unstreamed, group.facts.buffered) == (40, 0)


def test_objectives_that_need_a_stream_are_refused_without_one(write_run: Write, make_record: Make) -> None:
    groups = llm_reports.groups([llm_reports.load(write_run(rows(make_record, streamed=0, whole=100)))])
    for expression in ("ttft_p95<0.5", "tpot_p95<0.1", "ttfat_p50<1", "e2e_p95<3,ttft_p95<0.5"):
        with pytest.raises(InputError, match=r"requires streamed answers, and the run has none .*e2e"):
            llm_reports.gate(groups, llm_reports.parse_objectives(expression))
    assert llm_reports.gate(groups, llm_reports.parse_objectives("e2e_p95<3,throughput_p5>10,errors<0.1")).passed


def test_objectives_that_need_a_stream_judge_the_streams_of_a_mixed_run(write_run: Write, make_record: Make) -> None:
    """Neither answers without a stream nor their failures have a time to first token."""
    records = rows(make_record, streamed=100, whole=100)
    for record in records[:50]:
        record.error_code = "500"
    groups = llm_reports.groups([llm_reports.load(write_run(records))])
    gate = llm_reports.gate(groups, llm_reports.parse_objectives("ttft_p95<0.5"))
    assert (gate.verdict, gate.judgements[0].n) == ("passed", 100)


def test_goodput_judges_an_answer_without_a_stream_by_the_other_limits(write_run: Write, make_record: Make) -> None:
    records = rows(make_record, streamed=50, whole=50)
    records[0].end_to_end_latency_s = 9.0
    groups = llm_reports.groups([llm_reports.load(write_run(records))])
    (point,) = stage_points(groups, "ttft_p95<0.5,e2e_p95<3")
    assert (point.met, point.judged) == (99, 100)


def test_a_file_without_the_column_has_only_streams(write_run: Write, make_record: Make) -> None:
    prefix = write_run(rows(make_record, streamed=100, whole=0))
    path = prefix.with_name(f"{prefix.name}_llm_requests.csv")
    lines = [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()]
    assert lines[0].endswith("output_tokens_counted")
    path.write_text("\n".join(lines) + "\n")
    (group,) = llm_reports.groups([llm_reports.load(prefix)])
    assert (group.facts.unstreamed, group.counts.ok) == (0, 100)
    assert llm_reports.gate([group], llm_reports.parse_objectives("ttft_p95<0.5")).passed
    assert end_text(str(prefix)) is None  # the complete report reads such files
