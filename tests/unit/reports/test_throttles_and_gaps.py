"""What the endpoint refused is counted apart from failures, and gaps are called what they are, in every format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.input.loader import load_all
from llm_reports.main import main
from llm_reports.metrics import inter_token
from llm_reports.sections.section import section_text
from llm_reports.sections.stage_tables import gaps_section
from llm_users.record import RequestRecord

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]


def mixed(make: Make) -> list[RequestRecord]:
    """100 measured requests: 90 succeeded, 5 were throttled in three ways, 3 failed, 2 were aborted."""
    codes = [
        {"error_code": "429", "http_status": 429}, {"error_code": "429"}, {"error_code": "ThrottlingException"},
        {"error_code": "throttlingException"}, {"error_code": "rate_limit_exceeded", "http_status": 429},
        {"error_code": "500"}, {"error_code": "connect"}, {"error_code": "500"},
        {"error_code": "aborted"}, {"error_code": "aborted"},
    ]  # fmt: skip
    return [make(i, **(codes[i] if i < len(codes) else {})) for i in range(100)]


def test_throttles_stand_apart_in_every_format(
    write_run: Write, make_record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_run(mixed(make_record))
    out, junit = tmp_path / "out", tmp_path / "junit.xml"
    formats = "md,csv,summary,html"
    gate = ["--slo", "errors<0.01", "--junit", str(junit)]
    assert main([str(prefix), "--format", formats, "--out", str(out), *gate]) == 3
    printed = " ".join(capsys.readouterr().out.split())
    codes = "429: 2, ThrottlingException: 1, rate_limit_exceeded: 1, throttlingException: 1"
    assert f"Throttled requests are excluded: 5 of 100, {codes}." in printed
    assert "Failed requests are excluded: 3 of 100, 500: 2, connect: 1." in printed
    assert "5 throttled, 3 failed, 2 aborted" in " ".join((out / "report.md").read_text().split())
    lines = {line["metric"]: line["mean"] for line in json.loads((out / "summary.json").read_text())}
    assert (lines["requests_failed"], lines["requests_throttled"], lines["requests_aborted"]) == (8, 5, 2)
    assert "requests_throttled,count,1,5" in (out / "summary.csv").read_text()
    assert "(5 of the 8 failed requests were throttled)" in junit.read_text()
    page = (out / "report.html").read_text()
    assert "10 of 100 measured requests did not succeed" in page
    assert "5 throttled, 3 failed otherwise, 2 aborted" in page
    header = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", page[page.index('id="excluded-table"') :])
    row = re.findall(r"<td[^>]*>([^<]*)</td>", page[page.index('id="excluded-table"') :])
    cells = dict(zip(header[1:8], row, strict=False))
    assert [cells[name] for name in ("Counted", "Throttled", "Failed otherwise", "Aborted")] == ["90", "5", "3", "2"]


def test_a_stage_that_was_throttled_altogether_says_so(write_run: Write, make_record: Make) -> None:
    rows = [make_record(i, error_code="429", ttft_s=None) for i in range(3)]
    report = llm_reports.report_run(write_run([*rows, make_record(9, error_code="503", ttft_s=None)]))
    assert "of 4: 3 throttled with 429: 3, 1 failed with 503: 1" in " ".join(report.text.split())


@pytest.mark.parametrize(
    ("tokens", "events", "name"),
    [(100, 100, "inter-token"), (100, 84, "inter-token"), (100, 83, "inter-event"), (100, 119, "inter-token"),
     (100, 121, "inter-event"), (100, 10, "inter-event")],
)  # fmt: skip
def test_gaps_between_events_that_are_no_tokens_are_called_so(
    tokens: int, events: int, name: str, write_run: Write, make_record: Make, tmp_path: Path
) -> None:
    rows = [make_record(i, output_tokens=tokens, chunks=events) for i in range(20)]
    prefix = write_run(rows, gaps_s={1: [0.01] * 99 + [0.5]})
    out = tmp_path / "out"
    assert main([str(prefix), "--format", "md,html", "--plots", "svg", "--out", str(out)]) == 0
    other = {"inter-token": "inter-event", "inter-event": "inter-token"}[name]
    text, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    picture = (out / "plot_gap.svg").read_text()
    table = page[page.index('id="gaps-table"') : page.index('id="intervals"')]
    data = page[page.index('id="llm-data"') :]
    for found, label in ((text, "gaps"), (table, "P99 (ms)"), (data, "gap"), (picture, "gap")):
        assert f"{name.capitalize()} {label}" in found
        assert other.capitalize() not in found.partition("</script>")[0]
    (one,) = inter_token.gaps_of(llm_reports.groups([llm_reports.load(prefix)]))
    assert one.tokens_per_event == pytest.approx(tokens / events)
    assert one.figures.n == 100
    assert one.figures.p99 == pytest.approx(0.01 + 0.49 * 0.01, rel=0.05)


def test_one_stage_of_events_names_them_all(write_run: Write, make_record: Make) -> None:
    rows = [
        make_record(10 * stage + i, stage=stage, concurrency=stage, output_tokens=40, chunks=40 // stage)
        for stage in (1, 2)
        for i in range(10)
    ]
    prefix = write_run(rows, gaps_s={1: [0.02], 2: [0.04]})
    made = llm_reports.groups([llm_reports.load(prefix)])
    assert [each.kind for each in inter_token.gaps_of(made)] == ["inter-token", "inter-event"]
    gaps = gaps_section(made)
    assert gaps is not None
    section = section_text(gaps)
    assert section.startswith("## Inter-event gaps")
    assert re.search(r"concurrency 1 \|\s+1\.00 \|", section)
    assert re.search(r"concurrency 2 \|\s+2\.00 \|", section)


def test_a_run_without_gaps_has_no_table_of_them(write_run: Write, make_record: Make) -> None:
    prefix = write_run([make_record(i) for i in range(5)])
    assert gaps_section(llm_reports.groups([llm_reports.load(prefix)])) is None
    report = llm_reports.report_run(prefix, formats=("html",))
    assert "The input does not contain gaps" in report.files[0].read_text()


def test_each_model_has_its_gaps(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    """Two models share two stages: large takes twice as long per token as small."""
    gaps_s = {
        (stage, name): [gap_s * stage] * 99 for stage in (1, 2) for name, gap_s in (("large", 0.02), ("small", 0.01))
    }
    rows = [
        make_record(
            100 * stage + 10 * place + i, stage=stage, concurrency=stage, model=name, output_tokens=10, chunks=10
        )
        for stage in (1, 2)
        for place, name in enumerate(("small", "large"))
        for i in range(10)
    ]
    prefix = write_run(rows, gaps_s=gaps_s)
    made = llm_reports.groups([llm_reports.load(prefix)])
    gaps = inter_token.gaps_of(made)
    medians = {(made[one.place].stage, made[one.place].model): one.figures.median for one in gaps}
    assert medians == {key: pytest.approx(values[0], rel=0.01) for key, values in gaps_s.items()}
    section = gaps_section(made)
    assert section is not None
    assert len(re.findall(r"^\| +(?:small|large) concurrency [12] ", section_text(section), re.MULTILINE)) == 4
    out = tmp_path / "out"
    assert main([str(prefix), "--format", "csv", "--out", str(out)]) == 0
    lines = [line for line in (out / "summary.csv").read_text().splitlines() if "chunk_gap_s" in line]
    assert [("small" in line, "large" in line) for line in lines].count((False, False)) == 0
    assert len(lines) == 4


def test_renamed_models_share_the_gaps_of_a_stage(write_run: Write, make_record: Make) -> None:
    rows = [make_record(i, stage=1, concurrency=2, model=("small", "large")[i % 2]) for i in range(10)]
    prefix = write_run(rows, gaps_s={(1, "small"): [0.01] * 3, (1, "large"): [0.02] * 4})
    (run,) = load_all([prefix], model="both")
    (gaps,) = inter_token.gaps_of(llm_reports.groups([run]))
    assert gaps.figures.n == 7
