"""Who is late at the gate: a user whose last answer waited for its row, but not one that had to wait anyway."""

from __future__ import annotations

import time

import gevent
import pytest

from llm_users.load.protocol.stage import RAMP, StagePlan, StageTotals
from llm_users.load.worker.admission_gate import GIVE_UP_AFTER, AdmissionGate
from llm_users.load.worker.permits import Permit, UserState
from llm_users.record import StageLoad, load_of

BEHIND_NS = 400_000_000


def enter_at_the_start(gate: AdmissionGate, user_state: UserState) -> Permit:
    """The permit of a user that stood at the gate when the stage began."""
    came = gevent.spawn(gate.enter, user_state)
    gevent.sleep(0)
    gate.prepare(StagePlan(1, StageLoad(1)))
    gevent.sleep(0.01)
    gate.go(None)
    permit: Permit = came.get(timeout=2)
    return permit


def test_only_the_request_right_after_it_is_behind() -> None:
    gate, user_state = AdmissionGate(), UserState()
    user_state.behind_ns = BEHIND_NS
    permit = enter_at_the_start(gate, user_state)
    assert permit.behind_ns == 0  # it waited for the stage
    behind = []
    for lost_ns in (BEHIND_NS, 0):
        gate.leave(permit, user_state, None)
        user_state.behind_ns += lost_ns
        permit = gate.enter(user_state)
        behind.append(permit.behind_ns)
    assert behind == [BEHIND_NS, 0]


@pytest.mark.parametrize("rate_per_s", [None, 5.0])
def test_a_pause_begins_when_the_answer_was_read(rate_per_s: float | None) -> None:
    gate, user_state = AdmissionGate(), UserState()
    gate.prepare(StagePlan(1, load_of(1, rate_per_s)))
    user_state.behind_ns = BEHIND_NS
    begun_s = time.monotonic()
    gate.rest(user_state, 0.6)
    assert 0.19 <= time.monotonic() - begun_s < 0.55
    assert user_state.behind_ns == 0


def test_a_user_in_its_wait_time_is_present_when_a_stage_comes() -> None:
    ready: list[tuple[int, int]] = []
    gate, user_state = AdmissionGate(lambda stage, users: ready.append((stage, users))), UserState()
    user = gevent.spawn(gate.pause, user_state, 30.0)
    gevent.sleep(0)
    gate.prepare(StagePlan(1, StageLoad(1)))
    assert ready[-1] == (1, 1)
    gate.go(None, users_in_all=1)
    assert gate.totals.users == 1
    begun_s = time.monotonic()
    user.kill()
    assert time.monotonic() - begun_s < 1, "a user in a pause can be stopped at once"


def test_while_locust_starts_users_those_that_have_left_are_not_all() -> None:
    gate, user_state = AdmissionGate(), UserState()
    gate.prepare(StagePlan(1, StageLoad(2), free=True))
    gate.come(user_state)
    gate.gone(user_state)
    assert gate.no_users_reason is None
    gate.users_spawned()
    assert gate.no_users_reason is not None


def test_the_next_request_is_not_due_at_the_end_of_the_wait_time() -> None:
    """Else what a task does before its request would count as the client's delay."""
    gate, user_state = AdmissionGate(), UserState()
    gate.prepare(StagePlan(1, StageLoad(1), free=True))
    gate.go(None)
    gate.pause(user_state, 0.01)
    gevent.sleep(0.1)
    entered_ns = time.monotonic_ns()
    assert gate.enter(user_state).intended_ns >= entered_ns


def test_requests_of_a_free_stage_belong_to_it_when_another_one_begins() -> None:
    done = list[StageTotals]()
    gate, user_state = AdmissionGate(on_finished=done.append), UserState()
    gate.prepare(StagePlan(1, StageLoad(1), free=True))
    gate.go(None, users_in_all=1)
    first = gate.enter(user_state)
    gevent.sleep(0.05)
    gate.prepare(StagePlan(2, StageLoad(2), free=True))
    ramp = gate.enter(UserState())
    assert (ramp.phase, ramp.measured, done) == (RAMP, False, [])
    now_ns = time.monotonic_ns()
    share = gate.account(first, now_ns - 40_000_000, now_ns, [now_ns - 30_000_000, now_ns], ok=True)
    assert share == 0.5, "only what arrived before the second stage began is in the window of the first one"
    gate.leave(first, user_state, None)
    assert [(totals.stage, totals.measured) for totals in done] == [(1, 1)]
    gate.go(None, users_in_all=2)
    assert gate.enter(user_state).plan == StagePlan(2, StageLoad(2), free=True)
    assert gate.in_flight == 2


def failing(gate: AdmissionGate, requests: int, *, connected: int | None = None) -> None:
    """So many requests at once fail to connect; one of them, by its number, has had a connection."""
    user_states = [UserState() for _ in range(requests)]
    came = [gevent.spawn(gate.enter, user_state) for user_state in user_states]
    gevent.sleep(0)
    gate.prepare(StagePlan(1, StageLoad(requests)))
    gevent.sleep(0.01)
    gate.go(10 * requests)
    permits = [each.get(timeout=2) for each in came]
    if connected is not None:
        gate.reached(permits[connected])
    for number, (permit, user_state) in enumerate(zip(permits, user_states, strict=True)):
        if number != connected:
            gate.leave(permit, user_state, "connect", "nobody listens")


def test_a_stage_is_given_up_when_nothing_connected() -> None:
    gate = AdmissionGate()
    failing(gate, GIVE_UP_AFTER)
    assert gate.totals.given_up == "nobody listens"


def test_a_stage_is_not_given_up_while_a_request_has_a_connection() -> None:
    """It may take minutes to its first token, while those that found no connection fail at once."""
    gate = AdmissionGate()
    failing(gate, 3 * GIVE_UP_AFTER, connected=3 * GIVE_UP_AFTER - 1)
    assert gate.totals.given_up is None
