"""The client beside the server, on rows and histograms of the same requests whose difference is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import llm_reports
from llm_reports.server_metrics.stages import ServerStage, TimeComparison, server_stages
from llm_users.record import RequestRecord, ServerMetricRecord
from tests.unit.reports.rows_on_disk import record
from tests.unit.reports.server_on_disk import histogram, metric

Write = Callable[..., Path]
OFFSET_S = 0.0015
RESOLUTION_S = 1e-7
"""Files have nine digits, so two means of up to 10 s differ by up to 1e-8 s more."""


def requests(dice: random.Random, count: int, **values: object) -> list[RequestRecord]:
    rows = []
    for index in range(count):
        ttft_s, tokens = 0.02 + dice.lognormvariate(-2.5, 0.8), dice.randint(2, 200)
        tpot_s = dice.uniform(0.005, 0.03)
        end_s = ttft_s + tpot_s * (tokens - 1)
        row = record(index, ttft_s=ttft_s, ttfat_s=ttft_s, output_tokens=tokens, tpot_s=tpot_s, last_token_s=end_s)
        row.end_to_end_latency_s = end_s + 0.0001
        for name, value in values.items():
            setattr(row, name, value)
        row.request_id = f"{dice.random()}"
        rows.append(row)
    return rows


def server_of(
    answered: Sequence[RequestRecord], cut: Sequence[RequestRecord] = (), offset_s: float = OFFSET_S
) -> list[ServerMetricRecord]:
    """What vLLM counts: cut-off answers in TTFT only, and each time without the offset, which comes before."""
    gaps = [value for row in answered for value in [row.tpot_s or 0.0] * ((row.output_tokens or 0) - 1)]
    return [
        histogram("ttft_s", [(row.ttft_s or 0.0) - offset_s for row in (*answered, *cut)]),
        histogram("tpot_s", [row.tpot_s or 0.0 for row in answered]),
        histogram("itl_s", gaps),
        histogram("e2e_s", [(row.end_to_end_latency_s or 0.0) - offset_s for row in answered]),
        metric("requests_finished", "counter", increase=float(len(answered))),
        metric("prompt_tokens", "counter", increase=float(sum(row.input_tokens or 0 for row in (*answered, *cut)))),
        metric("generation_tokens", "counter", increase=float(sum(row.output_tokens or 0 for row in answered))),
    ]


def stage_of(prefix: Path) -> ServerStage:
    (stage,) = server_stages(llm_reports.groups([llm_reports.load(prefix)]))
    return stage


def compared(stage: ServerStage) -> dict[str, TimeComparison]:
    return {comparison.metric: comparison for comparison in stage.comparisons}


@pytest.mark.parametrize("seed", range(8))
def test_the_difference_of_random_stages_is_the_offset(write_run: Write, seed: int) -> None:
    dice = random.Random(seed)
    # The warm-up is slower, as with a cold cache: without its requests the difference would be wrong.
    warm_up = requests(dice, dice.randint(1, 30), measured=0, phase="warmup")
    for row in warm_up:
        row.ttft_s = (row.ttft_s or 0.0) + 1.0
        row.last_token_s = (row.last_token_s or 0.0) + 1.0
        row.end_to_end_latency_s = (row.end_to_end_latency_s or 0.0) + 1.0
    late = requests(dice, dice.randint(0, 5), measured=0, phase="drain")
    answered = [*warm_up, *requests(dice, dice.randint(1, 200)), *late]
    cut = requests(
        dice, dice.randint(0, 20), error_code="aborted", end_to_end_latency_s=None, tpot_s=None, output_tokens=None
    )
    unanswered = requests(
        dice, dice.randint(0, 5), error_code="500", ttft_s=None, end_to_end_latency_s=None, tpot_s=None
    )
    offset_s = dice.uniform(0, 0.01)
    prefix = write_run([*answered, *cut, *unanswered], server=server_of(answered, cut, offset_s))
    times = compared(stage_of(prefix))
    assert times["ttft_s"].difference_s == pytest.approx(offset_s, abs=RESOLUTION_S)
    assert times["e2e_s"].difference_s == pytest.approx(offset_s, abs=RESOLUTION_S)
    assert times["tpot_s"].difference_s == pytest.approx(0, abs=RESOLUTION_S)
    assert times["itl_s"].difference_s == pytest.approx(0, abs=RESOLUTION_S)
    assert times["ttft_s"].client.n == len(answered) + len(cut)
    for time in times.values():
        assert time.outside == []
        for name, value in time.client.quantiles.items():
            assert time.server.bounds[name].excess(value) <= offset_s + RESOLUTION_S
    assert not any(counts.differ for counts in stage_of(prefix).token_counts)


def test_an_engine_that_counts_only_whole_answers(write_run: Write) -> None:
    dice = random.Random(1)
    answered, cut = requests(dice, 50), requests(dice, 10, error_code="aborted", end_to_end_latency_s=None)
    times = compared(stage_of(write_run([*answered, *cut], server=server_of(answered))))
    assert times["ttft_s"].client.n == 50
    assert times["ttft_s"].difference_s == pytest.approx(OFFSET_S, abs=RESOLUTION_S)


def test_answers_of_one_token_have_a_tpot_of_0_on_the_server(write_run: Write) -> None:
    answered = requests(random.Random(2), 20)
    single = requests(random.Random(3), 20, output_tokens=1, tpot_s=None)
    times = compared(stage_of(write_run([*answered, *single], server=server_of([*answered, *single]))))
    assert times["tpot_s"].client.n == 40
    assert times["tpot_s"].difference_s == pytest.approx(0, abs=RESOLUTION_S)


def test_requests_of_others_make_the_sides_incomparable(write_run: Write) -> None:
    rows = requests(random.Random(4), 40)
    stage = stage_of(write_run(rows[:30], server=server_of(rows)))
    assert stage.used_by_others
    assert (stage.seen, stage.sent) == (40, 30)
    assert all(math.isnan(time.difference_s) for time in stage.comparisons)


def test_requests_that_were_sent_again_are_not_those_of_others(write_run: Write) -> None:
    rows = requests(random.Random(4), 40)
    rows[0].reconnects, rows[1].retries = 1, 1
    again = [*rows, rows[0], rows[1]]
    stage = stage_of(write_run(rows, server=server_of(again)))
    assert not stage.used_by_others
    assert not any(counts.differ for counts in stage.token_counts)


def test_requests_that_were_never_sent_do_not_count_as_sent(write_run: Write) -> None:
    rows = requests(random.Random(5), 10)
    unsent = requests(random.Random(6), 9, error_code="overflow", ttft_s=None, end_to_end_latency_s=None)
    unsent[0].error_code = "connect"
    assert stage_of(write_run([*rows, *unsent], server=server_of(rows))).sent == 10


def test_times_of_buffered_answers_are_not_compared(write_run: Write) -> None:
    rows = requests(random.Random(7), 20)
    server = server_of(rows)
    for row in rows[:5]:
        row.error_code = "buffered"
    times = compared(stage_of(write_run(rows, server=server)))
    assert (times["ttft_s"].client.n, times["ttft_s"].server.n) == (15, 20)
    assert math.isnan(times["ttft_s"].difference_s)
    assert times["e2e_s"].difference_s == pytest.approx(OFFSET_S, abs=RESOLUTION_S)


def test_several_servers_are_one_set_of_requests(write_run: Write) -> None:
    rows = requests(random.Random(8), 90)
    server = server_of(rows[:30])
    for own in server_of(rows[30:]):
        own.server = "http://127.0.0.1:8001/metrics"
        server.append(own)
    stage = stage_of(write_run(rows, server=server))
    times = compared(stage)
    assert stage.seen == stage.sent == 90
    assert times["ttft_s"].difference_s == pytest.approx(OFFSET_S, abs=RESOLUTION_S)
    assert times["ttft_s"].outside == []


def test_a_percentile_outside_the_bounds_of_the_server(write_run: Write) -> None:
    rows = requests(random.Random(9), 100)
    server = server_of(rows)
    # A request waits 60 s before the server: the mean difference is 0.6 s, and P99 is far outside.
    for row in sorted(rows, key=lambda row: row.ttft_s or 0.0)[-2:]:
        row.ttft_s = (row.ttft_s or 0.0) + 60
        row.end_to_end_latency_s = (row.end_to_end_latency_s or 0.0) + 60
        row.last_token_s = (row.last_token_s or 0.0) + 60
    times = compared(stage_of(write_run(rows, server=server)))
    assert times["ttft_s"].difference_s == pytest.approx(OFFSET_S + 1.2, abs=RESOLUTION_S)
    assert times["ttft_s"].outside == ["p99"]
    assert times["tpot_s"].outside == []


@pytest.mark.parametrize(("factor", "differs"), [(1.0, False), (1.009, False), (1.011, True), (0.989, True)])
def test_token_counts_may_differ_by_one_percent(write_run: Write, factor: float, differs: bool) -> None:
    rows = requests(random.Random(10), 50)
    server = server_of(rows)
    server[-1].increase = (server[-1].increase or 0.0) * factor
    prompt, output = stage_of(write_run(rows, server=server)).token_counts
    assert not prompt.differ
    assert output.differ == differs


def test_stages_between_which_requests_were_in_flight_are_not_compared(write_run: Write) -> None:
    dice = random.Random(5)
    first, second = requests(dice, 40), requests(dice, 30, stage=2)
    ramp = requests(dice, 3, stage=2, phase="ramp", measured=0)
    metrics = server_of(first)
    for one in server_of([*second, *ramp]):
        one.stage = 2
        metrics.append(one)
    metrics[4].increase = 43.0  # the server finished three requests of the second stage before the reading
    prefix = write_run([*first, *ramp, *second], server=metrics)
    stages = server_stages(llm_reports.groups([llm_reports.load(prefix)]))
    assert [stage.overlaps for stage in stages] == [True, True]
    assert not any(stage.used_by_others for stage in stages)
    assert all(math.isnan(time.difference_s) for stage in stages for time in stage.comparisons)
