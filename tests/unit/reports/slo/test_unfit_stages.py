"""Stages with failures, unsteady ones and those of a saturated client are never the best, whatever their figures."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import llm_reports
from llm_reports.charts.figures import figures
from llm_reports.content import content_of
from llm_reports.metrics.costs import chosen_points
from llm_reports.metrics.goodput import highest, knee, stage_points, sweeps
from llm_reports.metrics.groups import LATENCY
from llm_reports.sections.table_notes import notes_under
from llm_users.record import STAGE_COLUMNS, RequestRecord, StageRecord
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from tests.queue_models import fifo
from tests.unit.reports.rows_on_disk import record, write_csv, write_rows

SECONDS = {1: 1.0, 4: 1.0, 8: 1.05, 16: 1.2, 32: 1.2}


def written(prefix: Path, rows: list[RequestRecord], stages: list[StageRecord]) -> Path:
    write_rows(path_of(prefix, REQUESTS_CSV), rows)
    names = [column.name for column in STAGE_COLUMNS]
    values = [[getattr(stage, name) for name in names] for stage in stages]
    write_csv(path_of(prefix, STAGES_CSV), names, values)
    return prefix


def refusing(prefix: Path, *, health: str = "ok", failing: float = 0.6) -> Path:
    """Five levels of 200 requests; at 32 users a share of requests is refused at once (429), the rest are fast."""
    dice, rows, stages, at = random.Random(1), [], [], 1.7e9
    for stage, users in enumerate(SECONDS, 1):
        begun = at
        for i in range(200):
            bad = users == 32 and i % 10 < 10 * failing
            latency_s = SECONDS[users] * dice.lognormvariate(0, 0.1)
            at += (0.02 if bad else latency_s) / users
            values = {
                "stage": stage, "stage_end": stage, "concurrency": users, "started_at": at, "ttft_s": 0.2,
                "end_to_end_latency_s": latency_s, "tpot_s": (latency_s - 0.2) / 49, "output_tokens": 50,
                "window_tokens": 50.0,
            }  # fmt: skip
            if bad:
                values |= {"ttft_s": None, "tpot_s": None, "output_tokens": None, "end_to_end_latency_s": 0.02,
                           "error_code": "429", "http_status": 429, "window_tokens": 0.0}  # fmt: skip
            rows.append(record(len(rows), **values))
        stages.append(StageRecord(stage, users, begun, at - begun, 200, 200, health=health if users == 32 else "ok"))
        at += 3
    return written(prefix, rows, stages)


def sweep_of(prefix: Path, objectives: str = "e2e_p95<2") -> list[llm_reports.StagePoint]:
    return sweeps(stage_points(llm_reports.groups([llm_reports.load(prefix)]), objectives))[0]


def test_a_stage_that_refuses_most_requests_is_neither_highest_nor_knee_nor_cheapest(tmp_path: Path) -> None:
    sweep = sweep_of(refusing(tmp_path / "run"))
    found = highest(sweep)
    assert found.point is not None
    assert found.point.load.users == 16
    assert "120 of 200 requests failed" in " ".join(found.reasoning)
    bend = knee(sweep)
    assert bend.point is not None
    assert bend.point.load.users == 16
    assert "32 is excluded: 120 of 200 requests failed" in bend.reasoning
    assert [point.load.users for point, _ in chosen_points(sweep, by_objectives=False)] == [16]
    assert [point.load.users for point, _ in chosen_points(sweep, by_objectives=True)] == [16]


def test_an_objective_about_errors_says_how_many_failures_are_allowed(tmp_path: Path) -> None:
    sweep = sweep_of(refusing(tmp_path / "run", failing=0.2), "errors<0.4")
    found = highest(sweep)
    assert found.point is not None
    assert found.point.load.users == 32


@pytest.mark.parametrize("health", ["saturated", "disturbed"])
def test_a_stage_whose_client_was_the_limit_is_not_the_knee(tmp_path: Path, health: str) -> None:
    sweep = sweep_of(refusing(tmp_path / "run", health=health, failing=0))
    assert sweep[-1].power > max(point.power for point in sweep[:-1])
    bend, found = knee(sweep), highest(sweep)
    assert bend.point is not None
    assert bend.point.load.users == 16
    assert found.point is not None
    # Other programs only make the endpoint look slower: the gate passes the stage, so it is the highest that meets.
    assert found.point.load.users == {"saturated": 16, "disturbed": 32}[health]


def test_the_best_point_counts_failed_requests_as_too_slow_and_skips_what_is_unfit(tmp_path: Path) -> None:
    groups = llm_reports.groups([llm_reports.load(refusing(tmp_path / "run"))])
    points = stage_points(groups)
    curve = figures([groups[0].run], groups, points).curves[0]
    assert curve.points[-1].latency_s["e2e"]["p50"] < 1.3, "those that were answered were fast"
    assert curve.points[-1].judged_s["e2e"]["p50"] == float("inf"), "6 of 10 were not answered"
    best = curve.best("e2e", "p50", 2.0)
    assert best is not None
    assert best.load.users == 16
    assert curve.points[-1].name == "32 (60 % failed)"


def overloaded(prefix: Path, *, state: str | None) -> Path:
    """Rates below the capacity of 1/s, and twice above it (an M/M/1 queue of 2,000 requests); the limit is generous."""
    rows, stages = [], []
    for stage, rate in enumerate((0.3, 0.5, 1.2), 1):
        starts, ends = fifo(np.random.default_rng(3), rate, 2000)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            rows.append(
                record(
                    len(rows), stage=stage, stage_end=stage, concurrency=0, rate_per_s=rate, started_at=1.7e9 + start,
                    queue_s=0.0, ttft_s=0.1, end_to_end_latency_s=end - start, corrected_ttft_s=0.1,
                    corrected_end_to_end_latency_s=end - start,
                )
            )  # fmt: skip
        stages.append(
            StageRecord(
                stage, 0, 1.7e9, float(starts[-1]), 2000, 2000, health="ok", rate_per_s=rate,
                steadiness=state if stage == 3 else state and "steady",
            )
        )  # fmt: skip
    return written(prefix, rows, stages)


@pytest.mark.parametrize("state", ["unsteady", None])
def test_an_unsteady_stage_is_marked_and_never_best(tmp_path: Path, state: str | None) -> None:
    """Files without the column are judged by their rows: at 1.2 times the capacity 2,000 requests leave 300 waiting."""
    prefix = overloaded(tmp_path / "open", state=state)
    sweep = sweep_of(prefix, "e2e_p95<1000")
    assert [point.group.steadiness for point in sweep] == ["steady", "steady", "unsteady"]
    found = highest(sweep)
    assert found.point is not None
    assert found.point.load.rate_per_s == 0.5
    assert "1.2/s fails: unsteady: its queue grew through the window" in found.reasoning
    assert knee(sweep).point is not sweep[-1]
    llm_reports.report_runs([llm_reports.load(prefix)], formats=("md",))
    text = Path(f"{prefix}_report/report.md").read_text()
    assert "1.2/s (unsteady)" in text
    assert [line.unsteady for line in content_of([llm_reports.load(prefix)]).summary] == [False, False, True]
    assert "The stage was unsteady" in " ".join(text.split())


def test_a_comparison_without_the_column_of_steadiness_does_not_pass_an_unsteady_stage(tmp_path: Path) -> None:
    runs = [llm_reports.load(overloaded(tmp_path / name, state=None)) for name in ("before", "after")]
    reasons = [line.reason for line in llm_reports.compare_runs(runs, threshold=10).undecided]
    assert any("grew through the stage" in reason for reason in reasons)


def test_the_leaderboard_does_not_reward_the_few_requests_that_succeeded(tmp_path: Path) -> None:
    """Half of the fast one's requests fail, none of the slow one's; LLMPerf's figures stay those of the successful."""

    def rows(name: str, ttft_s: float, failing: int) -> Path:
        answered = {"ttft_s": ttft_s}
        refused = {"error_code": "500", "ttft_s": None, "output_tokens": None}
        made = [record(i, framework=name, concurrency=8, **(refused if i < failing else answered)) for i in range(100)]
        return write_rows(tmp_path / f"{name}_llm_requests.csv", made)

    runs = [
        llm_reports.load(rows("fast", 0.1, 50)),
        llm_reports.load(rows("slow", 0.4, 0)),
        llm_reports.load(rows("slower", 0.5, 4)),
    ]
    for table in llm_reports.leaderboard(runs):
        assert [row.framework for row in table.rows] == ["slow", "slower", "fast"]
        assert table.header[-1] == "Failed"
        assert [cells[-1] for cells in table.cells] == ["0.0 %", "4.0 %", "50.0 %"]
        assert any("Ranked below the others: fast" in note for note in table.notes)
    assert llm_reports.leaderboard(runs)[0].rows[-1].figures.median == pytest.approx(0.1)


def test_a_stage_without_its_users_is_marked_and_proves_nothing(tmp_path: Path) -> None:
    """Of eight users five came in stage 2, and half of the six of stage 3 ended."""
    rows, stages = [], []
    for stage, users, asked, actual in ((1, 2, 2, 2.0), (2, 5, 8, 5.0), (3, 6, 6, 3.0)):
        for i in range(100):
            ramp = i < 4  # sent before it was known how many users come
            rows.append(record(len(rows), stage=stage, stage_end=stage, concurrency=asked if ramp else users,
                               measured=int(not ramp), phase="ramp" if ramp else "measure"))  # fmt: skip
        stages.append(StageRecord(stage, users, 1.7e9, 50.0, 100, 96, 96, health="ok", load_actual=actual,
                                  concurrency_asked=asked, users_actual=actual, users_ended=1,
                                  window_tokens=5000.0))  # fmt: skip
    run = llm_reports.load(written(tmp_path / "run", rows, stages))
    groups = llm_reports.groups([run])
    assert [(group.concurrency, group.counts.rows) for group in groups] == [(2, 100), (5, 100), (6, 100)]
    (curve,) = figures([run], groups, stage_points(groups, "e2e_p50<2")).curves
    assert [(point.name, point.hollow) for point in curve.points] == [
        ("2", False), ("5 (5 of 8 users)", True), ("6 (3 of 6 users)", True)
    ]  # fmt: skip
    notes = " ".join(notes_under(LATENCY, groups, [group.summary(LATENCY) for group in groups]))
    assert "only 5 of 8 users ran: the others did not start" in notes
    assert "only 3 of 6 users ran: users ended during the stage" in notes
    verdict = llm_reports.gate(groups, llm_reports.parse_objectives("e2e_p50<2"))
    assert [each.verdict for each in verdict.judgements] == ["passed", "undecided", "undecided"]
