"""The open loop of one worker: arrivals on their schedule, and users that send their requests.

A dispatcher comes to the admission gate like a user and turns each arrival into a permit; the permit goes to an idle
user, or to a new one. So a locustfile's tasks run as in a closed loop, and no answer ever delays the next arrival.
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
"""A request is built so long before it is due, and then waits ready: 5 ms more than its start may wait for a quiet loop
(``transport.quiet``)."""

_NS = 1_000_000_000


class _UserQueue:
    """The users of one class that wait for permits, and the permits that wait for users."""

    def __init__(self, user_class: Any) -> None:
        self.user_class = user_class
        self.credit = 0.0
        self.idle: list[AsyncResult[Permit]] = []
        self.waiting: deque[Permit] = deque()  # for a user that is being started


class OpenLoop:
    """One per worker and run; made by the first user that comes for a request."""

    def __init__(self, run_context: RunContext, row_writer: Any) -> None:
        """``row_writer``: any user of this worker; it writes the rows of requests that no user could send."""
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
        """Wait for a permit. The user has to call ``over`` when its request has ended."""
        queue = self._queues[type(user)]
        if queue.waiting:
            return queue.waiting.popleft()
        turn: AsyncResult[Permit] = AsyncResult()
        queue.idle.append(turn)
        try:
            permit = turn.get()
            assert permit is not None
            return permit
        except BaseException:  # this user is stopped
            if turn in queue.idle:
                queue.idle.remove(turn)
            elif turn.ready() and turn.value is not None:  # its permit is another's
                self._serve(queue, turn.value)
            raise

    def follow(self, first: Permit) -> Permit:
        """A permit for what belongs to a request that has begun; no limit holds it up."""
        self._begun += 1
        return self._run_context.gate.follow(first)

    def over(self) -> None:
        """A request has ended: there is a place for one that was held."""
        self._begun -= 1
        self.begin_held()

    def begin_held(self) -> None:
        """Begin requests that were held, as many as the limit allows; it may have changed."""
        most = self._run_context.gate.max_in_flight
        while self._held and (most is None or self._begun < most):
            permit = self._held.popleft()
            permit.held_ns = max(0, time.monotonic_ns() - permit.intended_ns)
            self._begin(permit)

    def close(self) -> None:
        """The run is over: requests in flight are cut, and requests that were never sent get their rows."""
        self._closed = True
        self._dispatcher.kill()
        waiting = [permit for queue in self._queues.values() for permit in queue.waiting]
        for queue in self._queues.values():
            queue.waiting.clear()
        for permit in [*waiting, *self._held]:
            self._row_writer.never_sent(permit, ABORTED, "the run ended before this request's turn came")
        self._held.clear()
        self._group.kill(timeout=10)

    # Inside.

    def _dispatch(self) -> None:
        gate, scheduled = self._run_context.gate, None
        while True:
            plan = gate.await_stage(self._user_state)
            schedule = self._run_context.arrivals()
            if plan is scheduled:  # it was over and has more to do after all: what was missed meanwhile stays so
                while (missed_ns := self._due_ns(schedule)) is not None and missed_ns < time.monotonic_ns():
                    schedule.take()
            scheduled = plan
            self._follow(schedule)

    def _follow(self, schedule: Arrivals) -> None:
        """Start what is due until the stage takes no more."""
        gate, run_context = self._run_context.gate, self._run_context
        while True:
            gate.sleep_until(lambda: self._due_ns(schedule), LEAD_NS)
            if not gate.takes_more:
                return
            due_ns = self._due_ns(schedule)
            if due_ns is None:  # a trace has an end, and so has the part of a worker that was taken for dead
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
            queue.idle.pop().set(permit)  # the one that came last, so that the others stay idle
        else:
            queue.waiting.append(permit)
            if not self._closed:
                self._start_user(queue)

    def _start_user(self, queue: _UserQueue) -> None:
        user = queue.user_class(self._row_writer.environment)
        user.start(self._group).link(lambda _greenlet: self._on_left(queue))

    def _on_left(self, queue: _UserQueue) -> None:
        """A user has ended, which may have been the one that a permit waits for (an error in its ``on_start``)."""
        if self._closed or not queue.waiting:
            return
        permit = queue.waiting.popleft()
        self._row_writer.never_sent(
            permit, ABORTED, f"the {queue.user_class.__name__} that should have sent it ended before"
        )
        self.over()

    def _next_queue(self) -> _UserQueue:
        """By the weights of the classes, exactly and evenly mixed."""
        queues = list(self._queues.values())
        if len(queues) == 1:
            return queues[0]
        for queue in queues:
            queue.credit += queue.user_class.weight
        chosen = max(queues, key=lambda queue: queue.credit)
        chosen.credit -= sum(queue.user_class.weight for queue in queues)
        return chosen
