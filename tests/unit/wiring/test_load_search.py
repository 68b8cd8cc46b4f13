"""How the load search judges stages: as the gate does, within a moment, and only with enough requests and time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.slo.objectives import KINDS
from llm_users.load.coordinator.stages import Minimum
from llm_users.options.parsers import rates
from llm_users.options.table import Options
from llm_users.record import STAGE_COLUMNS, RequestRecord, StageRecord
from llm_users.wiring.load_search import SearchStages
from tests.unit.reports.rows_on_disk import record, write_csv, write_rows


@pytest.mark.parametrize("name", KINDS)
def test_every_objective_is_judged_as_by_the_gate(name: str, tmp_path: Path) -> None:
    """The search keeps a part of each row; its judgement is that of the gate, which reads whole rows from the files."""
    kind = KINDS[name]
    objective = f"{name}<0.2" if not kind.unit else f"{name}_p90{'<' if kind.less_is_better else '>'}1"
    search = SearchStages(Options(find=objective, rate=rates("10,20"), requests=300))
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
    point = search.entry()["points"][0]
    assert (point["passed"], point["decided"]) == (True, True), point["reason"]
    assert gate.verdict == "passed", gate.reasons
    assert point["reason"] == gate.judgements[0].reason


def test_an_unsteady_stage_counts_as_failed() -> None:
    search = SearchStages(Options(find="e2e_p95<3", rate=rates("10,200")))
    search.next(None)
    for i in range(300):
        search.seen(record(i, stage=1, concurrency=0, rate_per_s=10.0, started_at=1.7e9 + i / 10))
    assert search.next(StageRecord(1, 0, 1.7e9, 30.0, rate_per_s=10.0, health="ok", steadiness="unsteady")) is None
    assert "No load was found" in search.conclusion
    assert "the queue grew" in search.entry()["points"][0]["reason"]


@pytest.mark.parametrize(
    ("options", "requests", "seconds"),
    [
        ({}, 100, 30.0),
        ({"find": "e2e_p95<5,ttft_p95<0.5", "requests": 400}, 400, 50.0),
        ({"stage_time_s": 2.0}, 1, 2.0),
        ({"stage_time_s": 2.0, "requests": 40}, 40, 2.0),
    ],
)
def test_a_stage_has_a_minimum_of_requests_and_of_time(options: dict[str, Any], requests: int, seconds: float) -> None:
    """At least 30 s, and ten times the largest latency limit; --llm-stage-time says another time."""
    of_users = SearchStages(Options(**{"find": "ttft_p95<0.5", **options})).next(None)
    of_rates = SearchStages(Options(**{"find": "ttft_p95<0.5", "rate": rates("40"), **options})).next(None)
    assert of_users is not None
    assert of_rates is not None
    assert of_users.minimum == of_rates.minimum == Minimum(requests, seconds)
    assert of_users.requests is None
    assert of_rates.requests == max(requests, 40 * seconds)


@pytest.mark.alone
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
        assert level.load.users == 4**stage
    assert min(taken[1:]) < 0.5


def _answers(search: SearchStages, stage: int, rate_per_s: float, latency_s: float, requests: int = 100) -> None:
    for i in range(requests):
        search.seen(record(
            i, stage=stage, concurrency=0, rate_per_s=rate_per_s, started_at=1.7e9 + 1000 * stage + i / rate_per_s,
            end_to_end_latency_s=latency_s + 1e-3 * (i * 37 % 100), ttft_s=0.2, tpot_s=0.015, queue_s=0.0,
        ))  # fmt: skip


def _stage(number: int, rate_per_s: float, steadiness: str | None = "steady") -> StageRecord:
    stage = StageRecord(number, 0, 1.7e9 + 1000 * number, 50.0, rate_per_s=rate_per_s, health="ok")
    stage.steadiness = steadiness
    return stage


def test_the_stage_time_follows_the_latency_of_the_first_stage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    search = SearchStages(Options(find="ttft_p95<1", rate=rates("1,64")))
    first = search.next(None)
    assert first is not None
    assert first.minimum == Minimum(100, 30.0)
    assert first.goal == "the highest rate that meets ttft_p95<1"
    _answers(search, 1, 1.0, 4.0)
    second = search.next(_stage(1, 1.0))
    assert second is not None
    assert second.minimum == Minimum(100, 49.0)  # 12 x 4.0495 s
    assert "each further stage lasts at least 49 s" in caplog.text


def test_a_stage_time_that_is_too_short_causes_a_warning_with_a_sufficient_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    search = SearchStages(Options(find="ttft_p95<1", rate=rates("1,64"), stage_time_s=15.0))
    search.next(None)
    _answers(search, 1, 1.0, 4.0)
    second = search.next(_stage(1, 1.0))
    assert second is not None
    assert second.minimum == Minimum(1, 15.0)
    assert "--llm-stage-time 15s is too short" in caplog.text
    assert "give --llm-stage-time 49s or more" in caplog.text


@pytest.mark.parametrize(("steadiness", "found"), [("steady", 10.0), (None, None), ("unsteady", None)])
def test_a_load_is_confirmed_only_if_its_queue_is_known_to_be_steady(
    steadiness: str | None, found: float | None
) -> None:
    """100 requests in 10 s that take 4 s: too short for the steadiness to be known from the rows."""
    search = SearchStages(Options(find="ttft_p95<1", rate=rates("10,11"), find_stages=1))
    search.next(None)
    _answers(search, 1, 10.0, 4.0)
    search.next(_stage(1, 10.0, steadiness))
    assert search.entry()["found"] == found
    assert search.conclusive == (found is not None)
    if steadiness is None:
        assert search.conclusion == "No load is confirmed to meet ttft_p95<1: 10 is undecided (requests/s; 1 stage)"
        assert "too short to show whether its queue grows" in search.reservations[0]


def test_a_first_stage_shorter_than_eight_answers_is_measured_again(caplog: pytest.LogCaptureFixture) -> None:
    """100 requests in 25 s that take 4 s: 8 of them take 33 s. The stage at 4/s says so and does not count."""
    caplog.set_level("INFO")
    search = SearchStages(Options(find="ttft_p95<1", rate=rates("4,8")))
    search.next(None)
    _answers(search, 1, 4.0, 4.0)
    short = _stage(1, 4.0, None)
    short.measure_s = 25.0
    again = search.next(short)
    assert again is not None
    assert (again.load.rate_per_s, again.minimum.seconds) == (4.0, 49.0)
    assert "4 requests/s: measured again for 49 s" in caplog.text
    _answers(search, 2, 4.0, 4.0, requests=200)
    search.next(_stage(2, 4.0))
    assert [(point["level"], point["stages"]) for point in search.entry()["points"]] == [(4.0, [2])]
    assert search.entry()["found"] == 4.0


def test_a_stage_shorter_than_eight_answers_is_named_as_the_reason() -> None:
    search = SearchStages(Options(find="ttft_p95<1", rate=rates("4,8"), find_stages=1))
    search.next(None)
    _answers(search, 1, 4.0, 4.0)
    short = _stage(1, 4.0, None)
    short.measure_s = 25.0
    search.next(short)
    assert "the stage (25 s) is shorter than 8 answers (33 s)" in search.reservations[0]
    assert "95 % confidence. Longer" not in search.reservations[0]


def test_the_run_time_is_named_as_the_end_of_a_search() -> None:
    search = SearchStages(Options(find="ttft_p95<1", rate=rates("1,64")))
    search.next(None)
    search.ended_by_run_time(20.0)
    assert not search.conclusive
    assert search.said == (
        "No stage was complete, so there is no result for ttft_p95<1. --run-time 20s ended the search in stage 1 of at "
        "most 12. A stage lasts at least 30 s, so the search can take 6 minutes or more. Give --run-time 8m, or omit "
        "it, because a search ends by itself."
    )
