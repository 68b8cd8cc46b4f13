"""The first sentence of a report with objectives: which load meets them, and what is known about every other load."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

import llm_reports
from llm_users.record import STAGE_COLUMNS, StageRecord
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from tests.unit.reports.rows_on_disk import record, write_csv, write_rows

ANSWER = "**32 users** meet `ttft_p95<0.5`; 64 users do not; 4 users: too few requests."


def written(prefix: Path, levels: Mapping[int, tuple[int, float]], *, health: str = "ok") -> Path:
    """Write a sweep: for each number of users, the number of requests and their mean TTFT in s (5 % deviation)."""
    dice, rows, stages, at = random.Random(3), [], [], 1.7e9
    for stage, (users, (requests, ttft_s)) in enumerate(levels.items(), 1):
        for i in range(requests):
            rows.append(
                record(
                    len(rows), stage=stage, stage_end=stage, concurrency=users, started_at=at + i / users,
                    ttft_s=ttft_s * dice.gauss(1, 0.05), end_to_end_latency_s=1.0,
                )
            )  # fmt: skip
        stages.append(StageRecord(stage, users, at, requests / users, requests, requests, health=health))
        at += requests / users + 3
    write_rows(path_of(prefix, REQUESTS_CSV), rows)
    names = [column.name for column in STAGE_COLUMNS]
    values = [[getattr(stage, name) for name in names] for stage in stages]
    write_csv(path_of(prefix, STAGES_CSV), names, values)
    return prefix


def report_on(prefix: Path, slo: str) -> llm_reports.Report:
    questions = llm_reports.Questions(llm_reports.parse_objectives(slo))
    return llm_reports.report_run(prefix, formats=("html", "md"), questions=questions)


def test_the_load_that_meets_the_objectives_opens_every_format(tmp_path: Path) -> None:
    prefix = written(tmp_path / "run", {4: (40, 0.2), 8: (400, 0.2), 32: (400, 0.3), 64: (400, 0.9)})
    report = report_on(prefix, "ttft_p95<0.5")
    page, text = (next(p.read_text() for p in report.files if p.suffix == suffix) for suffix in (".html", ".md"))
    assert report.text.startswith(f"## Result\n\n{ANSWER}\n")
    assert f"## Result\n\n{ANSWER}\n\n## Summary" in text
    shown = page[page.index('id="answer"') :]
    answer = (
        '<p class="load"><strong>32 users</strong> meet <code>ttft_p95&lt;0.5</code>; 64 users do not; '
        "4 users: too few requests.</p>"
    )
    assert 0 < shown.index(answer) < shown.index('class="card failed"')
    assert "(gate over every stage)" in shown


@pytest.mark.parametrize(
    ("levels", "answer"),
    [
        ({1: (400, 0.2)}, "**1 user** meets `ttft_p95<0.5` (the highest measured load)."),
        ({1: (400, 0.9), 2: (400, 0.9)}, "No measured load is shown to meet `ttft_p95<0.5`; 1 user does not."),
        (
            {1: (40, 0.2), 2: (30, 0.2), 8: (400, 0.2)},
            "**8 users** meet `ttft_p95<0.5` (the highest measured load); 1 and 2 users: too few requests.",
        ),
    ],
)
def test_other_answers(tmp_path: Path, levels: dict[int, tuple[int, float]], answer: str) -> None:
    text = report_on(written(tmp_path / "run", levels), "ttft_p95<0.5").text
    assert " ".join(text.partition("## Summary")[0].split()) == f"## Result {answer}"


def test_a_report_without_objectives_has_no_answer(tmp_path: Path) -> None:
    prefix = written(tmp_path / "run", {1: (40, 0.2)})
    assert llm_reports.report_run(prefix, formats=("md",)).text.startswith("## Summary")


@pytest.mark.parametrize("health", ["disturbed", "saturated"])
def test_a_curve_without_a_knee_says_why(tmp_path: Path, health: str) -> None:
    prefix = written(tmp_path / "run", {1: (40, 0.2), 4: (40, 0.2), 8: (40, 0.3)}, health=health)
    report = llm_reports.report_run(prefix, formats=("html", "md"))
    for path in report.files:
        assert f"No knee: the client was {health} in all stages." in path.read_text()
