"""A report judges the levels of a load search as the search does, and shows its stages in the order of the loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import llm_reports
from llm_reports.content import Content, Questions, content_of
from llm_reports.main import main
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.goodput import highest
from llm_reports.run import Run
from llm_reports.sections.load_search import search_sections
from llm_users.options.parsers import rates
from llm_users.options.table import Options
from llm_users.record import STAGE_COLUMNS, StageRecord
from llm_users.run_files import MANIFEST_JSON, REQUESTS_CSV, STAGES_CSV, path_of
from llm_users.wiring.load_search import SearchStages
from tests.unit.reports.rows_on_disk import record, write_csv, write_rows

OBJECTIVES = "e2e_p95<2"
# Rates and latencies of the stages. Two stages at 20/s have 45 requests each; a P95 needs 72.
STAGES = ((10.0, 0.3, 100), (40.0, 5.0, 100), (20.0, 1.0, 45), (20.0, 1.0, 45))


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """The files of a search: the search judges these rows and writes its entry into the manifest."""
    search = SearchStages(Options(find=OBJECTIVES, rate=rates("10,40"), find_stages=4))
    spec = search.next(None)
    rows, stages = [], []
    for number, (rate_per_s, latency_s, requests) in enumerate(STAGES, 1):
        assert spec is not None
        assert spec.load.rate_per_s == rate_per_s
        of_stage = []
        for i in range(requests):
            taken_s = latency_s + 1e-3 * (i * 37 % 100)
            of_stage.append(record(
                1000 * number + i, stage=number, concurrency=0, rate_per_s=rate_per_s, queue_s=0.0, connect_s=0.0,
                started_at=1.7e9 + 1000 * number + i / rate_per_s, end_to_end_latency_s=taken_s,
                corrected_end_to_end_latency_s=taken_s, ttft_s=0.2,
            ))  # fmt: skip
        for row in of_stage:
            search.seen(row)
        stage = StageRecord(number, 0, 1.7e9 + 1000 * number, requests / rate_per_s, rate_per_s=rate_per_s,
                            requests_measured=requests, health="ok", steadiness="steady")  # fmt: skip
        rows += of_stage
        stages.append(stage)
        spec = search.next(stage)
    names = [column.name for column in STAGE_COLUMNS]
    where = tmp_path / "run"
    write_rows(path_of(where, REQUESTS_CSV), rows)
    write_csv(path_of(where, STAGES_CSV), names, [[getattr(stage, name) for name in names] for stage in stages])
    path_of(where, MANIFEST_JSON).write_text(json.dumps({"find": search.entry()}))
    return where


@pytest.fixture
def run(prefix: Path) -> Run:
    return llm_reports.load(prefix)


@pytest.fixture
def content(run: Run) -> Content:
    return content_of([run], questions=Questions(llm_reports.parse_objectives(OBJECTIVES)))


def test_the_report_and_the_search_have_the_same_result(content: Content, run: Run) -> None:
    """One stage at 20/s is undecided; both stages together pass, in the search as well as in the report."""
    assert run.manifest["find"]["found"] == 20
    assert content.gate is not None
    assert content.gate.verdict == "passed"
    verdicts = {judgement.group.load.rate_per_s: judgement.verdict for judgement in content.gate.judgements}
    assert verdicts == {10: "passed", 20: "passed", 40: "failed"}
    choice = highest(content.judged_points)
    assert choice.point is not None
    assert choice.point.load.rate_per_s == 20
    single = [judgement.verdict for judgement in llm_reports.gate(content.groups, content.gate.objectives).judgements]
    assert single == ["passed", "undecided", "undecided", "failed"]


def test_the_rate_of_a_level_is_over_all_its_stages(content: Content) -> None:
    """90 requests in two windows of 2.25 s."""
    (point,) = [point for point in content.judged_points if point.load.rate_per_s == 20]
    assert point.judged == 90
    assert point.window_s == 4.5


def test_stages_are_sorted_by_load_with_their_numbers(content: Content) -> None:
    assert [(group.load.rate_per_s, group.stage) for group in content.groups] == [(10, 1), (20, 3), (20, 4), (40, 2)]
    assert [label.split()[-1] for label in labels(content.groups)] == ["1", "3", "4", "2"]


def test_the_command_has_the_exit_code_of_the_search(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(prefix), "--slo", OBJECTIVES]) == 0
    text = capsys.readouterr().out
    assert "20 requests/s (bracket: 20 passed, 40 failed; 4 stages)" in text
    assert "Highest rate that meets the objectives: **20/s**" in " ".join(text.split())
    assert main([str(prefix), "--slo", "e2e_p95<0.1"]) == 3


def test_one_sided_intervals_have_words(run: Run) -> None:
    (section,) = search_sections([run])
    assert "?" not in str(section.parts)


def test_the_replicas_of_a_search_follow_from_its_bracket(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The search confirms 20/s, and 40/s fails."""
    main([str(prefix), "--peak", "100"])
    text = capsys.readouterr().out.replace("*", "")
    assert [line.split("|")[3].strip() for line in text.splitlines() if line.startswith(("| At the", "| With 20"))] == [
        "7", "5", "3",
    ]  # fmt: skip
