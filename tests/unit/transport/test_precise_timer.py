"""Waking at a given moment: how late, in which order, and when whoever waits is killed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import gevent
import pytest

from llm_users.transport.precise_timer import PreciseTimer

pytestmark = pytest.mark.alone


@pytest.fixture
def timer() -> Iterator[PreciseTimer]:
    made = PreciseTimer()
    yield made
    made.close()


def test_many_wake_each_at_its_own_moment(timer: PreciseTimer) -> None:
    start_ns = time.monotonic_ns() + 20_000_000
    late_ns: dict[int, int] = {}

    def wait(place: int) -> None:
        due_ns = start_ns + place * 700_000
        timer.wait_until(due_ns)
        late_ns[place] = time.monotonic_ns() - due_ns

    gevent.joinall([gevent.spawn(wait, place) for place in reversed(range(300))])
    assert list(late_ns) == sorted(late_ns)
    assert min(late_ns.values()) >= 0
    # The loop's own timers are half a millisecond late on average, since epoll counts whole ones.
    assert statistics.median(late_ns.values()) < 200_000
    # And whoever leaves the last of the way to the kernel's timer alone is late by 30 us at the best of times.
    assert statistics.quantiles(late_ns.values(), n=10)[0] < 20_000


def test_the_loop_gets_no_turn_between_two_that_are_due_almost_together(timer: PreciseTimer) -> None:
    due_ns = time.monotonic_ns() + 1_500_000
    order: list[str] = []

    def wait(name: str, moment_ns: int) -> None:
        timer.wait_until(moment_ns)
        order.append(name)
        gevent.spawn(order.append, "turn")  # runs in the next turn of the loop

    gevent.joinall([gevent.spawn(wait, "first", due_ns), gevent.spawn(wait, "second", due_ns + 80_000)], timeout=2)
    gevent.sleep(0.01)
    assert order == ["first", "second", "turn", "turn"]


def test_a_moment_that_has_passed_is_no_wait(timer: PreciseTimer) -> None:
    switched = []
    gevent.spawn(switched.append, 1)
    timer.wait_until(time.monotonic_ns() - 1)
    assert not switched


def test_whoever_is_killed_does_not_keep_the_others_waiting(timer: PreciseTimer) -> None:
    now_ns = time.monotonic_ns()
    first = gevent.spawn(timer.wait_until, now_ns + 10_000_000)
    second = gevent.spawn(timer.wait_until, now_ns + 30_000_000)
    gevent.sleep(0.009)
    first.kill()
    assert second.get(timeout=2) is None
    assert 30_000_000 <= time.monotonic_ns() - now_ns < 200_000_000


def test_an_earlier_moment_that_comes_later_goes_first(timer: PreciseTimer) -> None:
    now_ns = time.monotonic_ns()
    woken: list[str] = []

    def wait(name: str, moment_ns: int) -> None:
        timer.wait_until(moment_ns)
        woken.append(name)

    late = gevent.spawn(wait, "late", now_ns + 60_000_000)
    gevent.sleep(0)
    early = gevent.spawn(wait, "early", now_ns + 20_000_000)
    gevent.joinall([late, early], timeout=2)
    assert woken == ["early", "late"]
