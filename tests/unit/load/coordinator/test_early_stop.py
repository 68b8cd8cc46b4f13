"""A search stage ends early only when it has failed in several periods, each longer than any latency."""

from __future__ import annotations

import random

import pytest

from llm_users.load.coordinator.early_stop import Allowance, FailureWatch, improbable
from llm_users.options.parsers import rates
from llm_users.options.table import Options
from llm_users.quantile import quantile
from llm_users.record import RequestRecord
from llm_users.wiring.load_search import SearchStages

OPEN = {"rate": rates("10,20")}


def search(expression: str, **options: object) -> SearchStages:
    made = SearchStages(Options(**{"find": expression, "requests": 100, **options}))  # type: ignore[arg-type]
    assert made.next(None) is not None
    return made


def row(at: float, value: float | None, **more: object) -> RequestRecord:
    values = {"ttft_s": value, "end_to_end_latency_s": value, "corrected_ttft_s": value, "queue_s": value,
              "corrected_end_to_end_latency_s": value, "tpot_s": value, "output_tokens": 4}  # fmt: skip
    return RequestRecord(**{"stage": 1, "measured": 1, "started_at": at, **values, **more})  # type: ignore[arg-type]


def ended_at(watched: SearchStages, rows: list[RequestRecord]) -> int | None:
    """At which row the stage is called failed."""
    return next((place for place, each in enumerate(rows, 1) if watched.seen(each)), None)


@pytest.mark.parametrize(
    "objective",
    ["ttft_p95<0.5", "ttfat_p95<0.5", "e2e_p95<0.5", "corrected_ttft_p95<0.5", "corrected_e2e_p95<0.5",
     "queue_p95<0.5", "tpot_p95<0.5", "throughput_p5>20", "errors<0.05"],
)  # fmt: skip
def test_every_objective_on_single_requests_ends_a_hopeless_stage(objective: str) -> None:
    failing = {"error_code": "500"} if objective.startswith("errors") else {"ttfat_s": 0.9}
    at = ended_at(search(objective), [row(0.05 * i, 0.9, **failing) for i in range(1000)])
    assert at is not None
    assert at <= 150  # 4 to 5 periods of 1 s, 20 requests in each


def test_a_failed_request_is_beyond_every_limit_and_a_cancelled_one_says_nothing() -> None:
    def ends(code: str) -> int | None:
        return ended_at(search("ttft_p50<0.5,errors<0.9"), [row(0.05 * i, None, error_code=code) for i in range(1000)])

    assert ends("timeout") is not None
    assert ends("cancelled") is None
    assert ends("aborted") is None


def test_one_stall_that_hits_all_requests_in_flight_does_not_end_the_stage() -> None:
    """64 users, latency 0.1 s, one stall of 3 s: 64 of 2,000 requests are late, 3.2 %; a P95 allows 5 %."""
    for stalled_wave in range(31):
        rows, now = [], 0.0
        for wave in range(31):
            latency_s = 3.0 if wave == stalled_wave else 0.1
            rows += [row(now + 0.001 * user, latency_s) for user in range(64)]
            now += latency_s
        assert ended_at(search("ttft_p95<0.5", requests=2000), rows) is None, stalled_wave
        assert ended_at(search("ttft_p95<0.5", requests=2000, **OPEN), rows) is None, stalled_wave


def test_in_an_open_loop_a_count_that_settles_the_figure_ends_the_stage_after_three_periods() -> None:
    """300 arrivals: 16 beyond a P95's limit are both values that it is interpolated between, whatever the others do."""
    rows = [row(0.1 * i, 0.9 if i % 10 == 0 else 0.1) for i in range(300)]
    at = ended_at(search("ttft_p95<0.5", **OPEN), rows)
    assert at is not None
    broken = sum(each.ttft_s == 0.9 for each in rows[:at])
    assert broken >= 16
    best_case = sorted([0.0] * (300 - 16) + [0.9] * 16)
    assert quantile(best_case, 0.95) == 0.9
    assert quantile(sorted([0.0] * (300 - 14) + [0.9] * 14), 0.95) == 0.0
    assert ended_at(search("ttft_p95<0.5"), rows) is None, "of a closed loop nobody knows how many requests follow"


def test_a_stage_that_could_still_pass_goes_on() -> None:
    assert ended_at(search("ttft_p95<0.5"), [row(0.1 * i, 0.1) for i in range(2000)]) is None
    luck = random.Random(7)
    for _ in range(50):
        rows = [row(0.1 * i, 0.9 if luck.random() < 0.04 else 0.1) for i in range(1000)]
        assert ended_at(search("ttft_p95<0.5"), rows) is None


def test_rows_that_are_not_measured_or_of_another_stage_say_nothing() -> None:
    for stage, measured in ((1, 0), (0, 1), (2, 1)):
        watched = search("ttft_p95<0.5")
        assert ended_at(watched, [row(0.05 * i, 9.0, stage=stage, measured=measured) for i in range(1000)]) is None


def test_the_bound_on_chance_is_the_binomial_one() -> None:
    assert improbable(5, 5, 0.05, 1e-6)  # 0.05 ** 5 = 3e-7
    assert not improbable(4, 4, 0.05, 1e-6)  # 6e-6
    assert not improbable(1, 20, 0.05, 1e-4), "as many as there may be"


def test_nothing_is_judged_without_allowances() -> None:
    assert FailureWatch([]).add(RequestRecord(ttft_s=100.0)) is None
    assert FailureWatch([Allowance("x", lambda _: None, 0.05)]).add(RequestRecord()) is None
