"""The summary that stands before LLMPerf's tables: on the console, in Markdown, on the page."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.content import content_of
from llm_reports.plots.drawing import HEIGHT
from llm_reports.plots.images import drawings
from llm_users.record import RequestRecord, StageRecord
from llm_users.run_files import STAGES_CSV, path_of
from tests.unit.reports.open_loop_on_disk import write_rates
from tests.unit.reports.sweep_on_disk import write_sweep

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]


def stage(number: int, level: int, **values: Any) -> StageRecord:
    usual: dict[str, Any] = {"measure_s": 10.0, "measure_started_at": 1_700_000_000.0, "health": "ok"}
    return StageRecord(number, level, **{**usual, **values})


def summary_of(text: str) -> str:
    """The section, without its heading."""
    return text.split("## Summary\n\n")[1].split("\n## ", maxsplit=1)[0]


def with_column(prefix: Path, name: str, values: list[str]) -> None:
    """Adds a column to the stages file, as a newer version writes it."""
    path = path_of(prefix, STAGES_CSV)
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    if name in header:
        for row, value in zip(rows, values, strict=True):
            row[header.index(name)] = value
    else:
        header, rows = [*header, name], [[*row, value] for row, value in zip(rows, values, strict=True)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_it_fits_80_columns(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "run", levels=(1, 16, 512), requests=60, healths=("strained", "saturated"))
    for prefix in (sweep, write_rates(tmp_path / "open")):
        text = summary_of(llm_reports.report_run(prefix).text)
        assert max(map(len, text.splitlines())) <= 80
        header = next(line for line in text.splitlines() if "client" in line)
        for unit in ("ok", "fail", "per s", "tokens/s", " s ", " ms "):
            assert unit in header


def test_long_figures_fit_80_columns(write_run: Write, make_record: Make) -> None:
    slow = {
        "ttft_s": 1234.5,
        "end_to_end_latency_s": 4321.9,
        "tpot_s": 1.23456,
        "window_tokens": 123456.0,
        "output_tokens": 123456,
    }
    rows = [make_record(i, concurrency=10_000, started_at=1_700_000_000.0 + i / 100, **slow) for i in range(300)]
    stages = [stage(1, 10_000, measure_s=30.0, health="saturated")]
    text = summary_of(llm_reports.report_run(write_run(rows, stages=stages, gaps_s={1: [1.23]})).text)
    assert "1234.50" in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_run_and_model_has_a_line_of_its_name(tmp_path: Path) -> None:
    runs = [write_sweep(tmp_path / name, levels=(1, 4), requests=20, model="m") for name in ("before", "after")]
    lines = summary_of(llm_reports.report_runs(llm_reports.load_all(runs)).text).splitlines()
    assert [line for line in lines if line in ("before", "after")] == ["before", "after"]
    assert [line.split()[0] for line in lines if "median" in line] == ["1", "4", "1", "4"]


def test_an_unsteady_stage_is_marked(write_run: Write, make_record: Make) -> None:
    rows = [make_record(i, stage=1 + i // 20, concurrency=1 + i // 20) for i in range(40)]
    prefix = write_run(rows, stages=[stage(1, 1), stage(2, 2)])
    with_column(prefix, "steadiness", ["steady", "unsteady"])
    report = llm_reports.report_run(prefix, formats=("md", "html"))
    lines = [line for line in summary_of(report.text).splitlines() if "P95" in line]
    assert [line.endswith("unsteady") for line in lines] == [False, True]
    assert "the queue grew through the window" in " ".join(report.text.split())
    markdown, page = (path.read_text() for path in report.files)
    assert "| ok, unsteady |" in markdown
    assert 'class="word unsteady">unsteady<' in page
    assert "The queue grew through the window (unsteady): concurrency 2." in page


def test_files_without_steadiness_say_nothing_of_it(write_run: Write, make_record: Make) -> None:
    prefix = write_run([make_record(i) for i in range(20)], stages=[stage(1, 1)])
    (line,) = content_of([llm_reports.load(prefix)]).summary
    assert (line.group.steadiness, line.state) == ("", "ok")


def test_the_three_forms_say_the_same(tmp_path: Path) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1, 16), requests=80, healths=("strained",))
    report = llm_reports.report_run(prefix, formats=("md", "html"))
    markdown = [line for line in summary_of(report.files[0].read_text()).splitlines() if line.startswith("|")]
    page = report.files[1].read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown[2:]]
    console = [line.split() for line in summary_of(report.text).splitlines() if "median" in line or "P95" in line]
    for i, row in enumerate(rows):
        upper, lower = console[2 * i], console[2 * i + 1]
        assert row[:5] == [upper[0], *upper[2:6]]
        assert row[5:13:2] == upper[6:10]
        assert row[6:13:2] == lower[1:5]
        assert row[13] == upper[10]
        table = page[page.index('id="summary-table"') :]
        for cell in row[:13]:
            assert f">{cell}</t" in table[: table.index("</table>")]


def test_tables_of_the_tail_say_per_request(write_run: Write, make_record: Make) -> None:
    report = llm_reports.report_run(write_run([make_record(i) for i in range(3)]), formats=("md", "html"))
    for text in (report.text, *(path.read_text() for path in report.files)):
        below = text.split("Output Tokens Throughput (tokens/s)")[1]
        assert "per request" in below[:150]


def test_a_model_alone_of_two_in_a_stage_has_its_own_line(write_run: Write, make_record: Make) -> None:
    rows = [make_record(i, model="ab"[i % 2]) for i in range(20)]
    prefix = write_run(rows, stages=[stage(1, 1)], gaps_s={1: [0.02] * 50})
    lines = content_of([llm_reports.load(prefix)]).summary
    assert [(line.group.model, line.group.counts.ok) for line in lines] == [("a", 10), ("b", 10)]
    # Gaps are pooled over a stage, whoever asked.
    assert [round(line.latencies[2].median, 3) for line in lines] == [0.02, 0.02]


@pytest.mark.parametrize("slo", ["ttft_p95<0.5", "ttft_p95<0.05", "ttft_p99<0.5"])
def test_the_verdict_opens_the_page(write_run: Write, make_record: Make, slo: str) -> None:
    prefix = write_run([make_record(i, ttft_s=0.1 + 0.0005 * (37 * i % 100)) for i in range(100)], stages=[stage(1, 1)])
    objectives = llm_reports.parse_objectives(slo)
    questions = llm_reports.Questions(objectives)
    page = llm_reports.report_run(prefix, formats=("html",), questions=questions).files[0].read_text()
    word, sign = {"ttft_p95<0.5": ("passed", "✓"), "ttft_p95<0.05": ("failed", "✗")}.get(slo, ("undecided", "?"))
    card = page[page.index('class="card ') :]
    assert card.startswith(f'class="card {word}"')
    assert f"{sign}</span> {word.capitalize()}" in card[:300]
    order = [page.index(f'id="{name}"') for name in ("answer", "curve", "stages", "health", "decisions", "tables")]
    assert order == sorted(order)


def test_the_verdict_stands_beside_the_name_of_the_stage(tmp_path: Path) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1, 4), requests=80)
    objectives = llm_reports.parse_objectives("ttft_p95<0.5")
    questions = llm_reports.Questions(objectives)
    page = llm_reports.report_run(prefix, formats=("html",), questions=questions).files[0].read_text()
    decisions = page[page.index('id="decisions"') : page.index('id="tables"')]
    heads = [part.split("</tr>")[0] for part in decisions.split("<thead>")[1:]]
    assert len(heads) == 2
    for head in heads:
        assert head.count("<th") >= 5
        assert head.index(">Verdict<") < head.index(">", head.index(">Verdict<") + 12)
        assert head.split("<th")[2].split(">")[1].startswith("Verdict<")


def test_notes_of_many_runs_are_folded_and_curves_are_told_apart(tmp_path: Path) -> None:
    runs = [write_sweep(tmp_path / f"run{i}", levels=(1, 16, 32), requests=30, seed=i) for i in range(6)]
    report = llm_reports.report_runs(llm_reports.load_all(runs), out=tmp_path / "out", formats=("html",))
    pages = {path.name: path.read_text() for path in report.files}
    tables = pages["report.html"].split('id="tables"')[1].split("</section>")[0]
    assert '<details class="on-paper"><summary>' in tables
    pictures = {picture.name: picture for picture in drawings(content_of(llm_reports.load_all(runs)))}
    curves = [line for line in pictures["curve_e2e"].axes.lines if line.get_linestyle() != "None"]
    assert len({line.get_color() for line in curves}) == len(curves) == 6  # every curve has its own colour,
    assert len({line.get_marker() for line in curves} | {line.get_linestyle() for line in curves}) >= 4  # and look
    assert pictures["curve_e2e"].figure.get_figheight() == HEIGHT
    assert pictures["ttft"].figure.get_figheight() > HEIGHT  # a long legend makes the sheet higher
