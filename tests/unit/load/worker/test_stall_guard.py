"""The lease of a worker: how long it starts requests without an answer, and when it goes on alone."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from llm_users.collect.spool import StartCounts
from llm_users.load.worker import stall_guard
from llm_users.load.worker.stall_guard import Lease, MasterLink


def test_a_lease_runs_out_and_only_a_later_question_begins_another() -> None:
    lease = Lease()
    assert not lease.holds(100.0)
    first, second = lease.ask(100.0), lease.ask(101.0)
    assert lease.answered(first, 100.5)
    assert lease.holds(104.9)
    assert not lease.holds(105.0), "5 s after the question, however late the answer"
    assert lease.ended_at == 105.0
    assert not lease.answered(second, 105.1), "the answer to what was asked before has been on its way for long"
    question = lease.ask(110.0)
    assert not lease.answered(question, 110.1), "a COUNT that was heard says nothing about what is left to do"
    question = lease.ask(111.0)
    assert not lease.answered(question, 116.0, anew=True), "too late"
    assert lease.heard_at == 116.0, "but somebody is there"
    question = lease.ask(117.0)
    assert lease.answered(question, 117.2, anew=True)
    assert lease.holds(121.9)
    assert not lease.holds(122.0)


@pytest.mark.parametrize("answers_late", [True, False])
def test_a_coordinator_that_answers_late_is_not_gone(monkeypatch: pytest.MonkeyPatch, answers_late: bool) -> None:
    now, left, numbers = [100.0], list[str](), list[int]()
    monkeypatch.setattr(stall_guard, "_now", lambda: now[0])

    class Link(MasterLink):
        def on_alone(self, why: str) -> None:
            left.append(why)

    class Worker:
        def send(self, _message: Any) -> None:
            pass

        def count_message(self, number: int, _counts: StartCounts) -> Any:
            numbers.append(number)

        back_message = count_message

        def on_lease_ended(self, since_ns: int) -> None:
            pass

        def on_lease_held(self) -> None:
            pass

        def on_pause(self, silent_s: float) -> None:
            pass

    guard = stall_guard.StallGuard(Worker(), Link())

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if answers_late and len(numbers) > 6:
            guard.answered(numbers[-7])
        if left or now[0] > 300:
            raise gevent.GreenletExit

    at_once = SimpleNamespace(sleep=sleep, spawn=lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(stall_guard, "gevent", at_once)
    with contextlib.suppress(gevent.GreenletExit):
        guard._run()
    assert left == ([] if answers_late else ["the master has not answered for 65 s"])


def test_a_first_question_without_an_answer_is_a_lease_that_ran_out() -> None:
    lease = Lease()
    lease.ask(10.0)
    assert not lease.holds(14.0)
    assert lease.ended_at is None
    assert not lease.holds(15.0)
    assert lease.ended_at == 15.0
