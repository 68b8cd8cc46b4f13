"""A stage is called failed early only when it has failed: counts that settle it, counts that chance does not give."""

from __future__ import annotations

import random

from llm_users.load.early import FailureWatch, improbable
from llm_users.options import Options
from llm_users.record import RequestRecord
from llm_users.wiring.limit_search import LimitSearch
from reports.intervals import order_ranks, quantile_interval


def rows(search: LimitSearch, values: list[float]) -> int | None:
    """At which row the stage is called failed."""
    assert search.next(None) is not None
    for place, value in enumerate(values, 1):
        if search.seen(RequestRecord(stage=1, measured=1, ttft_s=value, end_to_end_latency_s=value, output_tokens=4)):
            return place
    return None


def search(expression: str, requests: int = 100) -> LimitSearch:
    return LimitSearch(Options(find=expression, requests=requests))


def test_the_verdict_is_settled_at_the_same_row_as_the_interval_settles_it() -> None:
    low, _ = order_ranks(100, 0.95)
    needed = 100 - low + 1
    spread = [0.9 if place % 6 == 0 else 0.1 for place in range(100)]
    at = rows(search("ttft_p95<0.5"), spread)
    assert at is not None
    assert spread[:at].count(0.9) == needed
    # Whatever the others are, at best nothing: the interval's lower end is beyond the limit.
    best_case = sorted([*spread[:at], *[0.0] * (100 - at)])
    assert quantile_interval(best_case, 0.95).low > 0.5
    one_less = sorted([*spread[: at - 1], *[0.0] * (101 - at)])
    assert quantile_interval(one_less, 0.95).low < 0.5


def test_a_stage_that_could_still_pass_goes_on() -> None:
    assert rows(search("ttft_p95<0.5"), [0.9] * 3 + [0.1] * 97) is None
    assert rows(search("ttft_p95<0.5"), [0.1] * 100) is None


def test_a_stage_in_which_everything_is_too_slow_ends_after_some_rows() -> None:
    at = rows(search("ttft_p95<0.5", requests=10_000), [0.9] * 200)
    assert at is not None
    assert at <= 12


def test_throughput_fails_below_its_limit() -> None:
    slow = rows(search("throughput_p5>20"), [1.0] * 100)  # 4 tokens/s
    assert slow is not None
    assert rows(search("throughput_p5>2"), [1.0] * 100) is None


def test_errors_decide_too_and_without_an_objective_five_percent_are_let_pass() -> None:
    def failures(expression: str) -> int:
        one = search(expression)
        one.next(None)
        failed = RequestRecord(stage=1, measured=1, error_code="500")
        return next(n for n in range(1, 101) if one.seen(failed))

    assert failures("ttft_p95<0.5") == 6
    assert failures("ttft_p95<0.5,errors<0.5") >= 20


def test_rows_that_are_not_measured_or_of_another_stage_say_nothing() -> None:
    one = search("ttft_p95<0.5")
    one.next(None)
    for stage, measured in ((1, 0), (0, 1), (2, 1)):
        record = RequestRecord(stage=stage, measured=measured, ttft_s=9.0)
        assert not any(one.seen(record) for _ in range(100))


def test_good_stages_are_not_called_failed_by_chance() -> None:
    """A share of 4 % beyond a P95 is allowed; looking at every row must not find it too much."""
    luck = random.Random(7)
    for _ in range(300):
        values = [0.9 if luck.random() < 0.04 else 0.1 for _ in range(300)]
        broken = 0
        for n, value in enumerate(values, 1):
            broken += value > 0.5
            assert n < 10 or not improbable(broken, n, 0.05)


def test_nothing_is_judged_without_allowances() -> None:
    assert FailureWatch([]).add(RequestRecord(ttft_s=100.0)) is None
