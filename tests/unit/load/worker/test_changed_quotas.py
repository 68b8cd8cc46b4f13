"""The admission gate when the quota of its worker changes: more or less to do while the stage runs and after it."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from llm_users.load.protocol.stage import StagePlan, StageTotals
from llm_users.load.worker.admission_gate import AdmissionGate, StartControl, UserState
from llm_users.record import StageLoad


class Control(StartControl):
    allowed = True

    def may_start(self) -> bool:
        return self.allowed


class Users:
    """Users of a gate that do nothing for a few milliseconds, again and again."""

    def __init__(self, count: int) -> None:
        self.done: list[StageTotals] = []
        self.control = Control()
        self.gate = AdmissionGate(on_finished=self.done.append, control=self.control)
        self.measured = 0
        self._greenlets = [gevent.spawn(self._ask) for _ in range(count)]
        gevent.sleep(0)

    def _ask(self) -> None:
        user_state = UserState()
        while True:
            permit = self.gate.enter(user_state)
            self.measured += permit.measured
            gevent.sleep(0.002)
            self.gate.leave(permit, user_state, None)

    def begin(self, quota: int | None) -> None:
        self.gate.prepare(StagePlan(1, StageLoad(len(self._greenlets))))
        gevent.sleep(0.01)
        self.gate.go(quota)

    def end(self) -> None:
        gevent.killall(self._greenlets)


@pytest.fixture
def users() -> Any:
    made = Users(3)
    yield made
    made.end()


def test_more_to_do_while_the_stage_runs(users: Users) -> None:
    users.begin(10)
    users.gate.change_quota(25)
    gevent.sleep(0.2)
    assert users.measured == 25
    assert [totals.quota for totals in users.done] == [25]


def test_more_to_do_when_the_own_share_was_done(users: Users) -> None:
    users.begin(10)
    gevent.sleep(0.2)
    first = users.done[0].window_s
    users.gate.change_quota(14)
    gevent.sleep(0.2)
    assert users.measured == 14
    last = users.done[-1]
    assert (last.measured, last.quota) == (14, 14)
    assert len(last.windows) == 2
    assert last.windows[1][0] > 0.15, "the window goes on with the next start"
    assert first < last.window_s < first + 0.1, "the time without anything to do is not part of it"


def test_less_to_do_ends_the_stage(users: Users) -> None:
    users.begin(1000)
    gevent.sleep(0.05)
    users.gate.change_quota(2)
    gevent.sleep(0.1)
    assert 2 < users.measured < 1000
    assert users.done[-1].quota == 2


def test_a_user_that_goes_without_its_warm_up_does_not_keep_a_share_open_that_was_cut_and_grew_again() -> None:
    done: list[tuple[int | None, int]] = []
    gate = AdmissionGate(on_finished=lambda totals: done.append((totals.quota, totals.measured)))
    user_states = [UserState(), UserState()]
    users = [gevent.spawn(gate.enter, user_state) for user_state in user_states]
    gevent.sleep(0)
    gate.prepare(StagePlan(1, StageLoad(2), ramp_s=60.0, warmup_requests=1))
    gate.go(5)
    gevent.sleep(0.01)
    gate.leave(users[0].get(timeout=1), user_states[0], None)  # its warm-up; the other one is still in the ramp
    gate.change_quota(0)  # this process was silent, and others have its share
    gate.change_quota(1)  # and now a part of that of yet others
    gate.gone(user_states[1])
    users[1].kill()
    permit = gate.enter(user_states[0])
    gate.leave(permit, user_states[0], None)
    assert permit.measured
    assert done == [(0, 0), (1, 1)]


def test_more_to_do_after_the_stage_was_ended_is_answered_but_not_done(users: Users) -> None:
    users.begin(1000)
    gevent.sleep(0.05)
    users.gate.end_measure()
    gevent.sleep(0.05)
    started = users.measured
    users.gate.change_quota(2000)
    gevent.sleep(0.05)
    assert users.measured == started
    assert users.done[-1].quota == 2000


def test_nothing_starts_without_the_word(users: Users) -> None:
    users.control.allowed = False
    users.begin(5)
    gevent.sleep(0.05)
    assert users.measured == 0
    users.control.allowed = True
    users.gate.change_quota(5)
    gevent.sleep(0.1)
    assert users.measured == 5
