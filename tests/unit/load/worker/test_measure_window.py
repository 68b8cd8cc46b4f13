"""The MEASURE window on one worker: its borders, when it is widened, and the load inside it."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import pytest

from llm_users.collect.stage_stats import StageBook, describe, union_s, widening
from llm_users.load.protocol.stage import MEASURE, WARMUP, StagePlan, StageTotals
from llm_users.load.worker.admission_gate import AdmissionGate
from llm_users.load.worker.permits import Permit, UserState
from llm_users.load.worker.stage_measurement import Measurement, MeasureWindow
from llm_users.record import RequestRecord, StageLoad, load_of
from tests.system.truth.throughput import gate_stage

NS = 1_000_000_000


def window_of(*spans: tuple[int, int]) -> MeasureWindow:
    window = MeasureWindow()
    for start_ns, end_ns in spans:
        window.open(start_ns)
        window.close(end_ns)
    return window


def test_a_moment_at_the_border_of_two_windows_counts_in_one_of_them() -> None:
    stamps = [10, 20, 30]
    assert window_of((10, 20)).count_inside(stamps) + window_of((20, 30)).count_inside(stamps) == 2
    assert window_of((0, 30)).share_of(stamps, 31) == 1.0


@pytest.mark.parametrize(
    ("sent_ns", "ended_ns", "inside_ns"), [(50, 90, 0), (50, 150, 50), (120, 150, 30), (150, 900, 50), (210, 290, 0)]
)
def test_a_request_is_in_flight_from_sending_to_the_end_of_its_answer(
    sent_ns: int, ended_ns: int, inside_ns: int
) -> None:
    """The parts inside a window from 100 to 200 ns follow from the definition of ``concurrency_actual``."""
    window = window_of((100, 200))
    window.count(+1, 10)  # admitted long before, and its row is made long after
    window.add_call(sent_ns, ended_ns)
    window.count(-1, 1000)
    assert window.in_flight_s == pytest.approx(inside_ns * 1e-9)


@pytest.mark.alone
def test_a_late_client_adds_nothing_to_the_requests_in_flight() -> None:
    """Of 0.3 s per request, 0.1 s is between sending and the end of the answer."""
    done = list[StageTotals]()
    gate = AdmissionGate(on_finished=done.append)

    def ask() -> None:
        user_state = UserState()
        while True:
            permit = gate.enter(user_state)
            gevent.sleep(0.1)  # the client is late with sending
            start_ns = time.monotonic_ns()
            gevent.sleep(0.1)
            end_ns = time.monotonic_ns()
            gevent.sleep(0.1)  # and with the row
            gate.account(permit, start_ns, end_ns, [end_ns], ok=True)
            gate.leave(permit, user_state, None)

    user = gevent.spawn(ask)
    gevent.sleep(0)
    gate.prepare(StagePlan(1, StageLoad(1), measure_s=3.0))
    gevent.sleep(0.01)
    gate.go(None)
    gevent.sleep(3.5)
    gevent.kill(user)
    assert done[0].in_flight_s / done[0].window_s == pytest.approx(1 / 3, rel=0.1)


def test_without_chunk_times_an_answer_counts_at_its_end() -> None:
    window = window_of((100, 200), (300, 400))
    assert [window.share_of([], end_ns) for end_ns in (100, 150, 250, 400, 401)] == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert window.share_of([], 0) is None, "it never ended"
    assert window.share_of([50, 150, 350, 450], 460) == 0.5


def test_what_arrives_before_the_window_opens_is_outside_of_it() -> None:
    window = MeasureWindow()
    assert window.share_of([10, 20], 20) == 0.0
    window.open(15)
    assert window.share_of([10, 20], 20) == 0.5
    assert window.share_of([20, 30], 30) == 1.0


@pytest.mark.parametrize(("users", "requests"), [(4, 4), (4, 3), (1, 1), (4, 1)])
def test_a_stage_with_as_many_requests_as_users_has_a_widened_window(users: int, requests: int) -> None:
    record, latencies = gate_stage(users, requests, 0.15)
    assert record.window_widened == 1
    assert record.measure_s is not None
    assert record.measure_s > 0.9 * max(latencies), "it ends with the last request, not with the last start"
    assert record.requests_measured == requests
    # Little's law with the users that were active: the tails of the warm-up requests are part of the window.
    law = (record.request_throughput_per_s or 0.0) * sum(latencies) / len(latencies)
    assert law == pytest.approx(record.concurrency_actual, rel=0.1)


def test_a_stage_of_several_latencies_is_not_widened() -> None:
    record, latencies = gate_stage(4, 20, 0.05)
    assert record.window_widened == 0
    assert record.measure_s == pytest.approx(4 * sum(latencies) / len(latencies), rel=0.3)


def asking(
    gate: AdmissionGate, stay_s: float, *, before_s: float = 0.0, pause_s: float = 0.0, error: str | None = None
) -> Callable[[], None]:  # fmt: skip
    """A user: waits for the client itself, is inside a call, is read, and pauses."""

    def ask() -> None:
        user_state = UserState()
        while True:
            permit = gate.enter(user_state)
            gevent.sleep(before_s)
            start_ns = time.monotonic_ns()
            gevent.sleep(stay_s)
            end_ns = time.monotonic_ns()
            gate.account(permit, start_ns, end_ns, [end_ns], ok=error is None)
            gate.leave(permit, user_state, error)
            gevent.sleep(pause_s)

    return ask


def run_gate(plan: StagePlan, user: Callable[[AdmissionGate], Callable[[], None]]) -> StageTotals:
    done = list[StageTotals]()
    gate = AdmissionGate(on_finished=done.append)
    greenlets = [gevent.spawn(user(gate)) for _ in range(plan.users)]
    gevent.sleep(0)
    gate.prepare(plan)
    gevent.sleep(0.01)
    gate.go(plan.requests)
    limit = time.monotonic() + 20
    while not done and time.monotonic() < limit:
        gevent.sleep(0.01)
    gevent.killall(greenlets)
    return done[0]


def test_a_stage_by_time_that_is_over_before_anything_ended_is_widened() -> None:
    totals = run_gate(StagePlan(1, StageLoad(2), measure_s=0.05), lambda gate: asking(gate, 0.4))
    assert totals.widened == 1
    assert totals.window_s == pytest.approx(0.4, abs=0.1)
    assert totals.measured == 2


def test_a_stage_by_time_that_is_long_enough_ends_in_time() -> None:
    totals = run_gate(StagePlan(1, StageLoad(2), measure_s=0.5), lambda gate: asking(gate, 0.1))
    assert totals.widened == 0
    assert totals.window_s == pytest.approx(0.5, abs=0.05)


def test_failures_say_nothing_about_the_latency() -> None:
    measurement, permit = Measurement(), Permit(StagePlan(1, StageLoad(1)), MEASURE, 0, 0, measured=True)
    measurement.begin(permit.plan, (0, 0), 0)
    for _ in range(2):
        measurement.started(NS, NS)
    measurement.account(permit, NS, NS + 1000, [], ok=False)  # refused at once
    measurement.ended(permit)
    measurement.end(2 * NS)
    assert measurement.window.lingers, "the other request may take an hour"
    measurement.account(permit, NS, 9 * NS, [], ok=True)
    measurement.ended(permit)
    assert measurement.totals.windows == [(1.0, 8.0)]


def test_the_load_counts_calls_and_own_pauses_but_no_wait_for_the_client() -> None:
    # Of 0.4 s, 0.1 s is inside the call, 0.1 s an own pause, 0.2 s a wait for the client.
    plan = StagePlan(1, StageLoad(2), measure_s=2.0)
    totals = run_gate(plan, lambda gate: asking(gate, 0.1, before_s=0.2, pause_s=0.1))
    assert totals.load_s / totals.window_s == pytest.approx(2 * 0.5, rel=0.1)
    # A request that waits for the client is not in flight: docs/metrics.md, and the log of a server.
    assert totals.in_flight_s / totals.window_s == pytest.approx(2 * 0.25, rel=0.1)


def test_the_pause_after_a_failure_is_no_wait_for_the_client() -> None:
    """Else a report blames the client for a load that the endpoint's failures kept away."""
    totals = run_gate(StagePlan(1, StageLoad(2), measure_s=1.0), lambda gate: asking(gate, 0.02, error="500"))
    assert totals.load_s / totals.window_s == pytest.approx(2, rel=0.1)
    assert totals.in_flight_s / totals.window_s < 0.8, "most of the time they pause"


def test_a_user_that_is_gone_does_not_pause_any_more() -> None:
    gate, user_state = AdmissionGate(), UserState()
    gate.prepare(StagePlan(1, StageLoad(1), free=True))
    gate.go(None)
    gate.leave(gate.enter(user_state), user_state, None)
    gate.gone(user_state)
    gevent.sleep(0.1)
    gate.end_measure()
    assert gate.totals.load_s < 0.05


def test_a_ramp_without_a_warm_up_is_not_measured() -> None:
    phases: list[str] = []

    def user(gate: AdmissionGate) -> Callable[[], None]:
        ask = asking(gate, 0.05)
        entered = gate.enter

        def enter(user_state: UserState) -> Permit:
            permit = entered(user_state)
            phases.append(permit.phase)
            return permit

        gate.enter = enter  # type: ignore[method-assign]
        return ask

    totals = run_gate(StagePlan(1, StageLoad(1), ramp_s=0.3, requests=10), user)
    assert phases.count(MEASURE) == 10
    assert phases.count(WARMUP) >= 3, "what is sent during the ramp is warm-up"
    assert totals.windows[0][0] == pytest.approx(0.3, abs=0.1), "the window opens at the end of the ramp"


@pytest.mark.alone
@pytest.mark.parametrize("warmups", [0, 1])
def test_all_users_are_active_in_the_whole_window(warmups: int) -> None:
    ramp_s = 0.2 if warmups else 0.0
    plan = StagePlan(1, StageLoad(4), ramp_s=ramp_s, warmup_requests=warmups, requests=40)
    totals = run_gate(plan, lambda gate: asking(gate, 0.05))
    assert totals.in_flight_s / totals.window_s == pytest.approx(4, rel=0.03)


# Several workers.


def test_the_length_of_a_union() -> None:
    assert union_s([(0, 2), (1, 2), (5, 1), (5.5, 0.25)]) == 4
    assert union_s([]) == 0


def stage_of(
    totals: list[StageTotals], rows: list[RequestRecord], rate_per_s: float | None = None
) -> dict[str, object]:
    book = StageBook()
    for row in rows:
        book.add(row)
    record = book.record(1, load_of(8, rate_per_s), totals)
    return {name: getattr(record, name) for name in record.__slots__}


def row(share: float, tokens: int = 100, **values: object) -> RequestRecord:
    record = RequestRecord(stage=1, measured=1, output_tokens=tokens, **values)  # type: ignore[arg-type]
    record.count_in_window(share)
    return record


def test_rates_of_several_workers_are_over_the_union_of_their_windows() -> None:
    one = StageTotals(1, 0, window_s=10, windows=[(1.0, 10.0)], in_flight_s=40, load_s=38, told_at=1000.0)
    # Its clock counts from when it was told, so no difference between clocks is in it. It joined the load later.
    two = StageTotals(1, 1, window_s=8, windows=[(1.0, 4.0), (7.0, 4.0)], in_flight_s=32, load_s=30, told_at=1002.0)
    stage = stage_of([one, two], [row(1.0), row(0.5), row(0.25, phase="warmup"), row(0.0)])
    # From 1001 to 1011 and from 1003 to 1007, 1009 to 1013.
    assert stage["measure_s"] == 12.0
    assert stage["request_throughput_per_s"] == pytest.approx(1.75 / 12)
    assert stage["output_throughput_token_per_s"] == pytest.approx(175 / 12)
    assert stage["concurrency_actual"] == pytest.approx(72 / 12)
    assert stage["load_actual"] == pytest.approx(68 / 12)


def test_requests_times_mean_tokens_are_tokens() -> None:
    totals = StageTotals(1, 0, window_s=10, windows=[(0.0, 10.0)])
    stage = stage_of([totals], [row(0.5, 40), row(1.0, 40), row(0.1, 40)])
    assert stage["output_throughput_token_per_s"] == pytest.approx(40 * stage["request_throughput_per_s"])  # type: ignore[operator]


def test_tokens_of_requests_that_failed_are_a_figure_of_their_own() -> None:
    totals = StageTotals(1, 0, window_s=1, windows=[(0.0, 1.0)])
    failing = [row(1.0, 100, error_code=code) for code in ("timeout", "truncated", "aborted")]
    stage = stage_of([totals], [*failing, row(1.0, 7, error_code="buffered")])
    assert (stage["window_tokens"], stage["failed_window_tokens"]) == (7.0, 300.0)
    assert stage["output_throughput_token_per_s"] == 7.0
    assert stage["request_throughput_per_s"] == 1.0
    only_failed = StageBook()
    for record in failing:
        only_failed.add(record)
    assert "0 tokens/s" in describe(only_failed.record(1, StageLoad(1), [totals]))


def test_an_answer_of_unknown_length_counts_as_a_request_without_tokens() -> None:
    record = RequestRecord(stage=1, measured=1)
    record.count_in_window(1.0)
    assert (record.window_share, record.window_tokens) == (1.0, None)


def test_the_started_rate_is_over_all_workers_without_the_first_request() -> None:
    one = StageTotals(1, 0, window_s=9, windows=[(0.0, 9.0)], sent=5, first_sent_s=0.0, last_sent_s=8.0, told_at=100.0)
    two = StageTotals(1, 1, window_s=9, windows=[(0.0, 9.0)], sent=5, first_sent_s=1.5, last_sent_s=9.5, told_at=99.5)
    stage = stage_of([one, two], [row(0.5)] * 10, rate_per_s=1.0)
    assert stage["started_rate_per_s"] == pytest.approx(9 / 9)
    assert stage["load_actual"] is None, "there are no users"
    assert (
        stage_of([StageTotals(1, 0, sent=1, first_sent_s=0.0, last_sent_s=0.0)], [], 1.0)["started_rate_per_s"] is None
    )


def test_a_worker_that_was_killed_counts_with_its_rows() -> None:
    """It told no totals; the windows of the others say how long the stage was."""
    told = StageTotals(1, 0, window_s=10, windows=[(0.0, 10.0)], in_flight_s=40, load_s=40, present_s=40, told_at=100.0)
    rows = [row(1.0, worker=worker, end_to_end_latency_s=2.0) for worker in (0, 0, 1, 1, 1)]
    rows += [row(0.0, worker=1, error_code="connection"), row(0.5, worker=1, phase="warmup", end_to_end_latency_s=2.0)]
    rows[-1].measured = 0
    stage = stage_of([told], rows)
    for name in ("concurrency_actual", "load_actual", "users_actual"):
        assert stage[name] == pytest.approx(4 + 0.6), name
    told.sent, told.first_sent_s, told.last_sent_s = 8, 0.0, 10.0
    assert stage_of([told], rows, rate_per_s=1.0)["started_rate_per_s"] == pytest.approx((8 + 3 - 1) / 10)
    late = StageTotals(1, 1, window_s=10, windows=[(0.0, 10.0)], in_flight_s=10, told_at=100.0)
    assert stage_of([told, late], rows)["concurrency_actual"] == 5.0, "its own figures are better"


def test_a_widened_window_is_explained() -> None:
    totals = StageTotals(1, 0, window_s=1, windows=[(0.0, 1.0)], widened=1)
    stage = StageBook().record(3, StageLoad(8), [totals])
    assert stage.window_widened == 1
    assert "stage 3: the window was widened" in widening(stage)


def test_users_are_counted_by_the_time_that_they_were_there() -> None:
    """Of 8 users, 3 of one worker and 1 of the other end by themselves; a third worker took 2 users with it.

    By hand: 30 user-seconds in 10 s and 12 in the other worker's own 8 s, which had a share of the requests.
    """
    one = StageTotals(1, 0, users=3, users_ended=3, window_s=10, windows=[(0.0, 10.0)], present_s=30, told_at=100.0)
    two = StageTotals(
        1, 1, users=3, users_ended=1, window_s=8, windows=[(2.0, 8.0)], present_s=12, quota=5, told_at=100.0
    )
    stage = stage_of([one, two], [row(1.0, worker=0), row(1.0, worker=1)])
    assert stage["measure_s"] == 10.0
    assert stage["users_actual"] == pytest.approx(30 / 10 + 12 / 8)
    assert stage["users_ended"] == 3 + 1 + (8 - 6)


def test_counts_of_requests_are_of_measured_ones_only() -> None:
    """Of 4 requests that were sent again and of 5 that hit this machine's limit, one of each is a warm-up request."""
    rows = [row(1.0, reconnects=times) for times in (1, 2, 1)] + [row(1.0)] * 3
    rows += [row(0.0, error_code="client_limit") for _ in range(4)] + [row(0.0, error_code="connect")]
    for warmup in (row(1.0, reconnects=1), row(0.0, error_code="client_limit")):
        warmup.measured = 0
        rows.append(warmup)
    stage = stage_of([StageTotals(1, 0, window_s=10, windows=[(0.0, 10.0)])], rows)
    names = ("requests_started", "requests_measured", "requests_failed", "requests_resent", "requests_client_limited")
    assert tuple(stage[name] for name in names) == (13, 11, 5, 3, 4)


@pytest.mark.parametrize(("rate_per_s", "asked"), [(None, 8), (5.0, None)])
def test_the_users_that_were_asked_for_stand_in_the_stage(rate_per_s: float | None, asked: int | None) -> None:
    plan = StagePlan(1, load_of(6, rate_per_s), concurrency_asked=8)
    assert StageBook().record(1, plan.load, [], asked=plan.concurrency_asked).concurrency_asked == asked
