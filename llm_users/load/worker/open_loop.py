"""The open loop of one worker: arrivals on their schedule, and users that send their requests.

A dispatcher comes to the admission gate like a user and gets a permit for each arrival. The permit goes to an idle
user, or to a new one. Therefore a locustfile's tasks run as in a closed loop, and an answer never delays the next
arrival.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.pool import Group

from llm_users.load.worker.context import Arrivals, RunContext
from llm_users.load.worker.permits import Permit, UserState
from llm_users.outcome import ABORTED, OVERFLOW

LEAD_NS = 25_000_000
"""A request is built this long before it is due, and then waits. The time is 5 ms longer than a start may wait for an
idle event loop (``transport.idle_queue``)."""

_NS = 1_000_000_000


class _UserQueue:
    """The idle users of one class, and the permits that wait for users."""

    def __init__(self, user_class: Any) -> None:
        self.user_class = user_class
        self.credit = 0.0
        self.idle: list[AsyncResult[Permit]] = []
        self.waiting: deque[Permit] = deque()  # permits for users that are starting


class OpenLoop:
    """The open loop of one worker in one run. The first user that needs a request creates it."""

    def __init__(self, run_context: RunContext, row_writer: Any) -> None:
        """Start the dispatcher.

        ``row_writer`` is any user of this worker; it writes the rows of requests that were not sent.
        """
        self._run_context = run_context
        self._row_writer = row_writer
        classes = [c for c in row_writer.environment.user_classes if hasattr(c, "prepare_process")]
        self._queues = {c: _UserQueue(c) for c in classes or [type(row_writer)]}
        self._group = Group()
        self._user_state = UserState()
        self._begun = 0
        self._held: deque[Permit] = deque()
        self._closed = False
        self._dispatcher = gevent.spawn(self._dispatch)

    def take(self, user: Any) -> Permit:
        """Wait for a permit. The user must call ``over`` when its request has ended."""
        queue = self._queues[type(user)]
        if queue.waiting:
            return queue.waiting.popleft()
        result: AsyncResult[Permit] = AsyncResult()
        queue.idle.append(result)
        try:
            permit = result.get()
            assert permit is not None
            return permit
        except BaseException:  # this user is being stopped
            if result in queue.idle:
                queue.idle.remove(result)
            elif result.ready() and result.value is not None:  # give its permit to another user
                self._serve(queue, result.value)
            raise

    def follow(self, first: Permit) -> Permit:
        """Return a permit for a request that follows from one that has begun. The limit in flight does not apply."""
        self._begun += 1
        return self._run_context.gate.follow(first)

    def over(self) -> None:
        """Note that a request has ended, and begin a held request."""
        self._begun -= 1
        self.begin_held()

    def begin_held(self) -> None:
        """Begin as many held requests as the limit in flight allows. The limit may have changed."""
        most = self._run_context.gate.max_in_flight
        while self._held and (most is None or self._begun < most):
            permit = self._held.popleft()
            permit.held_ns = max(0, time.monotonic_ns() - permit.intended_ns)
            self._begin(permit)

    def close(self) -> None:
        """End the run: cut off requests in flight, and write rows for requests that were never sent."""
        self._closed = True
        self._dispatcher.kill()
        waiting = [permit for queue in self._queues.values() for permit in queue.waiting]
        for queue in self._queues.values():
            queue.waiting.clear()
        for permit in [*waiting, *self._held]:
            self._row_writer.never_sent(permit, ABORTED, "the run ended before this request was sent")
        self._held.clear()
        self._group.kill(timeout=10)

    # Internal methods.

    def _dispatch(self) -> None:
        gate, scheduled = self._run_context.gate, None
        while True:
            plan = gate.await_stage(self._user_state)
            schedule = self._run_context.arrivals()
            if plan is scheduled:  # a finished stage has got a larger share: skip the arrivals that were missed
                while (missed_ns := self._due_ns(schedule)) is not None and missed_ns < time.monotonic_ns():
                    schedule.take()
            scheduled = plan
            self._follow(schedule)

    def _follow(self, schedule: Arrivals) -> None:
        """Start requests when they are due, until the stage takes no more."""
        gate, run_context = self._run_context.gate, self._run_context
        while True:
            gate.sleep_until(lambda: self._due_ns(schedule), LEAD_NS)
            if not gate.takes_more:
                return
            due_ns = self._due_ns(schedule)
            if due_ns is None:  # the trace has ended, or the worker was considered lost and has no share
                gate.end_measure()
                return
            number = schedule.take()[0]
            permit = gate.arrive(self._user_state, due_ns)
            if permit is None:
                return
            if run_context.prompt_of_arrival is not None:
                permit.prompt = run_context.prompt_of_arrival(number)
            self._admit(permit)

    def _due_ns(self, schedule: Arrivals) -> int | None:
        arrival = schedule.next
        return None if arrival is None else self._run_context.gate.origin_ns + int(arrival[1] * _NS)

    def _admit(self, permit: Permit) -> None:
        most = self._run_context.gate.max_in_flight
        if most is None or self._begun < most:
            self._begin(permit)
        elif self._run_context.options.overflow == "drop":
            text = f"{most} requests were in flight, as many as --llm-max-in-flight allows this worker"
            self._row_writer.never_sent(permit, OVERFLOW, text)
        else:
            self._held.append(permit)

    def _begin(self, permit: Permit) -> None:
        self._begun += 1
        self._run_context.gate.begin(permit)
        self._serve(self._next_queue(), permit)

    def _serve(self, queue: _UserQueue, permit: Permit) -> None:
        if queue.idle:
            queue.idle.pop().set(permit)  # the user that came last, so that the others stay idle
        else:
            queue.waiting.append(permit)
            if not self._closed:
                self._start_user(queue)

    def _start_user(self, queue: _UserQueue) -> None:
        user = queue.user_class(self._row_writer.environment)
        user.start(self._group).link(lambda _greenlet: self._on_left(queue))

    def _on_left(self, queue: _UserQueue) -> None:
        """Write a row for a permit whose user ended before it took the permit (an error in its ``on_start``)."""
        if self._closed or not queue.waiting:
            return
        permit = queue.waiting.popleft()
        self._row_writer.never_sent(
            permit, ABORTED, f"the {queue.user_class.__name__} for this request ended before it sent it"
        )
        self.over()

    def _next_queue(self) -> _UserQueue:
        """Choose the class of the next user by the weights of the classes, exactly and evenly mixed."""
        queues = list(self._queues.values())
        if len(queues) == 1:
            return queues[0]
        for queue in queues:
            queue.credit += queue.user_class.weight
        chosen = max(queues, key=lambda queue: queue.credit)
        chosen.credit -= sum(queue.user_class.weight for queue in queues)
        return chosen
