"""``--llm-find`` with the real command: on an endpoint whose limit is known, and on one that never meets.

Above its capacity C every gap of the simulated endpoint grows by active/C, so a limit of 1.25 gaps is at 1.25 C users.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.slo.objectives import KINDS
from llm_users.load.coordinator.stages import Minimum
from llm_users.options.table import Options
from llm_users.record import STAGE_COLUMNS, RequestRecord, StageRecord
from llm_users.wiring.load_search import SearchStages
from tests.system.runs.conftest import Finished, Locust
from tests.system.runs.test_distributed import ports
from tests.unit.reports.conftest import record, write_csv, write_rows

pytestmark = pytest.mark.slow

CAPACITY = 10
KNEE = 1.25 * CAPACITY
SIMULATOR = f"ttft=10ms,itl=16ms,capacity={CAPACITY}"
FIND = ("--llm-find", "tpot_p95<0.020", "--llm-requests", "75", "--llm-output-tokens", "fixed:8", "--llm-ramp", "0.1s",
        "--llm-stage-time", "3s")  # fmt: skip


def find(locust: Locust, *more: str, spec: str = SIMULATOR) -> Finished:
    return locust.run(*FIND, "--llm-simulator", spec, *more, timeout_s=120)


def test_the_knee_is_found_within_five_percent(locust: Locust) -> None:
    for _ in range(3):  # a machine that is busy with other things is a slower endpoint
        done = find(locust, "--llm-sweep", "4,64")
        found = done.manifest["find"]
        if found["found"] is not None and abs(found["found"] / KNEE - 1) <= 0.05:
            break
    assert done.code == 0, done.err
    assert abs(found["found"] / KNEE - 1) <= 0.05, done.out
    assert (found["found"], found["fails"]) == (12, 13)
    stages = done.rows("stages")
    assert len(stages) <= 12
    assert sorted(stage for point in found["points"] for stage in point["stages"]) == [int(s["stage"]) for s in stages]
    assert f"The highest load that meets tpot_p95<0.020: 12 users (between 12 and 13; {len(stages)} stages)" in done.out
    table = [line for line in done.out.split("## Summary")[0].splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(found["points"])
    assert max(map(len, table)) <= 80
    # Early: at 16 users and more every answer is too slow, so the stage does not last its 3 s.
    hopeless = [stage for stage in stages if int(stage["concurrency"]) >= 16]
    assert hopeless
    assert all(float(stage["measure_s"]) < 3 for stage in hopeless)
    assert all(float(stage["measure_s"]) >= 3 for stage in stages if int(stage["concurrency"]) <= 12)
    assert all(int(stage["requests_measured"]) >= 75 for stage in stages if int(stage["concurrency"]) <= 12)
    assert "ends early: tpot_p95<0.020 is missed by" in done.err
    assert not [note for note in done.manifest["notes"] if "were not started" in note]
    assert f"{len(done.rows())}" == f"{sum(int(stage['requests_started']) for stage in stages)}"
    _report_agrees(done)


def _report_agrees(done: Finished) -> None:
    run = llm_reports.load(done.prefix)
    text = llm_reports.report_runs([run], formats=("md", "html")).text
    assert text.startswith("## The highest load")
    printed = done.out[done.out.index("## The highest load") :]
    assert text.split("\n## ")[0].rstrip() == printed.split("\n## ")[0].rstrip()
    assert "12 (limit" in Path(f"{done.prefix}_report/report.md").read_text()
    assert "The highest load that meets" in Path(f"{done.prefix}_report/report.html").read_text()
    lines = done.rows("find")
    assert [float(line["level"]) for line in lines] == [point["level"] for point in done.manifest["find"]["points"]]
    assert {line["passed"] for line in lines if float(line["level"]) <= 12} == {"1"}
    # Of a level with one stage, and one that was not repeated, the gate of reports says the same as the search.
    gate = llm_reports.gate(llm_reports.groups([run]), llm_reports.parse_objectives("tpot_p95<0.020")).frame()
    for line in lines:
        stages = line["stages"].split()
        if len(stages) == 1:
            row = gate[gate["stage"] == int(stages[0])].iloc[0]
            assert row["estimate"] == pytest.approx(float(line["value"]), rel=1e-8)
            assert row["outcome"] == line["outcome"]


def test_a_lowest_load_that_fails_is_no_result(locust: Locust) -> None:
    done = find(locust, "--llm-sweep", "4,16", spec="ttft=10ms,itl=30ms")
    assert done.code == 3
    assert "No load was found that meets tpot_p95<0.020: below 4 users (1 stage)" in done.out
    assert "--llm-find: No load was found" in done.err
    assert done.manifest["find"]["found"] is None
    assert float(done.rows("stages")[0]["measure_s"]) < 3


def test_two_processes_search_together_and_print_the_result_before_the_tables(locust: Locust) -> None:
    done = find(locust, "--llm-sweep", "4,8", "--processes", "2", *ports(), "--llm-report", spec="ttft=10ms,itl=5ms")
    # On a busy machine the client itself may be the limit at every level, and then nothing is decided.
    decided = any(point["decided"] for point in done.manifest["find"]["points"])
    assert done.code == (0 if decided else 3), done.err
    assert "at least 8 users (the highest that was allowed; " in done.out
    assert done.out.index("## The highest load") < done.out.index("## Time to First Token")
    assert done.out.count("## The highest load") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--llm-find", "ttft<0.5"), "--llm-find: 'ttft<0.5': ttft needs a statistic"),
        (
            ("--llm-find", "ttft_p95<0.5", "--llm-sweep", "1,2,4"),
            "--llm-sweep: with --llm-find it says where to search",
        ),
        (("--llm-find", "ttft_p95<0.5", "--llm-sweep", "8,2"), "--llm-sweep: with --llm-find it says where to search"),
    ],
)
def test_what_cannot_be_searched_is_refused(locust: Locust, options: tuple[str, ...], said: str) -> None:
    done = locust.run("--llm-simulator", *options)
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize("name", KINDS)
def test_every_objective_is_judged_as_by_the_gate(name: str, tmp_path: Path) -> None:
    """The search keeps a part of each row; its judgement is that of the gate, which reads whole rows from the files."""
    kind = KINDS[name]
    objective = f"{name}<0.2" if not kind.unit else f"{name}_p90{'<' if kind.less_is_better else '>'}1"
    search = SearchStages(Options(find=objective, rates=(10.0, 20.0), requests=300))
    search.next(None)
    rows = []
    for i in range(300):
        value = 0.1 + 0.8 * (i * 37 % 100) / 100
        bad = i % 50 == 0
        rows.append(record(
            i, stage=1, concurrency=0, rate_per_s=10.0, started_at=1.7e9 + i / 10, queue_s=value / 100,
            ttft_s=value / 2,
            ttfat_s=value / 2, end_to_end_latency_s=value, tpot_s=value / 50, output_tokens=50, connect_s=0.0,
            corrected_ttft_s=value / 2, corrected_end_to_end_latency_s=value, expected_answer="7",
            answer_match=int(not bad), answer_strict_match=int(not bad), error_code="500" if i % 90 == 1 else None,
        ))  # fmt: skip
    for each in rows:
        search.seen(each)
    stage = StageRecord(1, 0, 1.7e9, 30.0, rate_per_s=10.0, requests_measured=300, health="ok", steadiness="steady")
    search.next(stage)
    names = [column.name for column in STAGE_COLUMNS]
    write_rows(tmp_path / "run_llm_requests.csv", rows)
    write_csv(tmp_path / "run_llm_stages.csv", names, [[getattr(stage, column) for column in names]])
    gate = llm_reports.gate(
        llm_reports.groups([llm_reports.load(tmp_path / "run")]), llm_reports.parse_objectives(objective)
    )
    outcome = {"met": "passed", "missed": "failed", "refused": "undecided"}.get(gate.outcome, gate.outcome)
    point = search.entry()["points"][0]
    assert (point["passed"], point["decided"]) == (True, True), point["reason"]
    assert outcome == "passed", gate.reasons
    assert point["reason"] == gate.judgements[0].reason


def test_an_unsteady_stage_counts_as_failed() -> None:
    search = SearchStages(Options(find="e2e_p95<3", rates=(10.0, 200.0)))
    search.next(None)
    for i in range(300):
        search.seen(record(i, stage=1, concurrency=0, rate_per_s=10.0, started_at=1.7e9 + i / 10))
    assert search.next(StageRecord(1, 0, 1.7e9, 30.0, rate_per_s=10.0, health="ok", steadiness="unsteady")) is None
    assert "No load was found" in search.conclusion
    assert "unsteady" in search.entry()["points"][0]["reason"]


@pytest.mark.parametrize(
    ("options", "requests", "seconds"),
    [
        ({}, 100, 30.0),
        ({"find": "e2e_p95<5,ttft_p95<0.5", "requests": 400}, 400, 50.0),
        ({"stage_s": 2.0}, 1, 2.0),
        ({"stage_s": 2.0, "requests": 40}, 40, 2.0),
    ],
)
def test_a_stage_has_a_minimum_of_requests_and_of_time(options: dict[str, Any], requests: int, seconds: float) -> None:
    """At least 30 s, and ten times the largest latency limit; --llm-stage-time says another time."""
    of_users = SearchStages(Options(**{"find": "ttft_p95<0.5", **options})).next(None)
    of_rates = SearchStages(Options(**{"find": "ttft_p95<0.5", "rates": (40.0,), **options})).next(None)
    assert of_users is not None
    assert of_rates is not None
    assert of_users.minimum == of_rates.minimum == Minimum(requests, seconds)
    assert of_users.requests is None
    assert of_rates.requests == max(requests, 40 * seconds)


def test_judging_takes_no_time() -> None:
    """Between stages nothing waits long for it: a thousand rows are judged in well under a second."""
    search = SearchStages(Options(find="ttft_p95<0.5,tpot_p95<0.05,errors<0.01", requests=1000))
    search.next(None)
    taken = []
    for stage in (1, 2, 3):
        for n in range(1000):
            search.seen(RequestRecord(stage=stage, measured=1, concurrency=4**stage, ttft_s=0.1 + n * 1e-5, tpot_s=0.01,
                                      end_to_end_latency_s=1.0, output_tokens=9))  # fmt: skip
        began = time.perf_counter()
        level = search.next(StageRecord(stage=stage, concurrency=4**stage, measure_s=1.0, health="ok"))
        taken.append(time.perf_counter() - began)
        assert level is not None
        assert level.users == 4**stage
    assert min(taken[1:]) < 0.5
