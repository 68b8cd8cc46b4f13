"""Starting and finishing wait for reading: one greenlet per quiet turn of the loop, forced after 20 ms."""

from __future__ import annotations

import time

import gevent
import pytest

from llm_users.transport.idle_queue import MAX_WAIT_NS, IdleQueue
from llm_users.transport.precise_timer import PreciseTimer


def busy(until: list[bool], work_s: float = 0.0005) -> None:
    """Keep the loop from ever being quiet, as streams under full load do."""
    while not until:
        end_s = time.perf_counter() + work_s
        while time.perf_counter() < end_s:
            pass
        gevent.sleep(0)


@pytest.mark.alone
def test_a_quiet_loop_lets_start_at_once() -> None:
    queue = IdleQueue()
    started_ns = time.monotonic_ns()
    assert queue.wait() is True
    assert time.monotonic_ns() - started_ns < MAX_WAIT_NS
    assert (queue.passed, queue.forced) == (1, 0)


def test_starts_are_in_order_and_one_per_turn() -> None:
    queue = IdleQueue()
    order: list[str] = []

    def start(number: int) -> None:
        queue.wait()
        order.append(f"start {number}")
        gevent.spawn(order.append, f"turn {number}")  # runs in the next turn of the loop
        gevent.sleep(0)

    gevent.joinall([gevent.spawn(start, number) for number in range(5)], timeout=2)
    assert order == [f"{what} {number}" for number in range(5) for what in ("start", "turn")]
    assert (queue.passed, queue.forced) == (5, 0)


@pytest.mark.alone
def test_under_full_load_a_start_is_forced_and_counted() -> None:
    queue = IdleQueue()
    stop: list[bool] = []
    load = gevent.spawn(busy, stop)
    gevent.sleep(0)
    started_ns = time.monotonic_ns()
    quiet = queue.wait()
    waited_ns = time.monotonic_ns() - started_ns
    stop.append(True)
    load.join()
    assert quiet is False
    assert (queue.passed, queue.forced) == (1, 1)
    assert MAX_WAIT_NS <= waited_ns < 10 * MAX_WAIT_NS


def test_nothing_begins_right_before_somebody_is_due() -> None:
    timer = PreciseTimer()
    queue = IdleQueue(timer)
    due_ns = time.monotonic_ns() + 1_900_000
    rang = gevent.spawn(timer.wait_until, due_ns)
    gevent.sleep(0)
    assert queue.wait() is True
    assert not rang.ready()
    while time.monotonic_ns() < due_ns - 400_000:
        pass
    assert queue.wait() is True
    assert time.monotonic_ns() >= due_ns
    rang.get(timeout=2)
    timer.close()


@pytest.mark.alone
def test_under_full_load_a_long_queue_goes_faster_where_it_may() -> None:
    def drain_s(queue: IdleQueue) -> float:
        stop: list[bool] = []
        load = gevent.spawn(busy, stop)
        begun_s = time.perf_counter()
        gevent.joinall([gevent.spawn(queue.wait) for _ in range(64)], timeout=10)
        taken_s = time.perf_counter() - begun_s
        stop.append(True)
        load.join()
        assert queue.forced == 64
        return taken_s

    assert drain_s(IdleQueue(one_more_per=16)) < 0.6 * drain_s(IdleQueue())


def test_a_greenlet_killed_while_it_waits_leaves_the_queue_to_the_others() -> None:
    queue = IdleQueue()
    waiting = [gevent.spawn(queue.wait) for _ in range(3)]
    gevent.spawn(waiting[0].kill, block=False)  # in the same turn: nobody has started yet
    gevent.joinall(waiting, timeout=2)
    assert isinstance(waiting[0].value, gevent.GreenletExit)
    assert [w.value for w in waiting[1:]] == [True, True]
    assert queue.passed == 2


@pytest.mark.alone
def test_a_queue_left_by_all_costs_nothing() -> None:
    queue = IdleQueue()
    waiting = gevent.spawn(queue.wait)
    gevent.spawn(waiting.kill, block=False)
    waiting.join(timeout=2)
    assert queue.passed == 0
    cpu_s = time.process_time()
    gevent.sleep(0.2)
    assert time.process_time() - cpu_s < 0.1
    assert queue.wait() is True


def test_a_start_that_fails_does_not_stop_the_next() -> None:
    queue = IdleQueue()

    def fail() -> None:
        queue.wait()
        raise ValueError("expected by the test")

    failing = gevent.Greenlet(fail)
    failing.link_exception(lambda _: None)
    failing.start()
    after = gevent.spawn(queue.wait)
    gevent.joinall([failing, after], timeout=2)
    assert after.value is True
