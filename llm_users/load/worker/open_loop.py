"""The open loop of one worker: arrivals on their schedule, and users that send their requests.

A dispatcher comes to the admission gate like a user and gets a permit for each arrival. The permit goes to an idle
user, or to a new one. Therefore a locustfile's tasks run as in a closed loop, and an answer never delays the next
arrival.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.pool import Group

from llm_users.load.protocol.arrivals import ArrivalSchedule, ArrivalShare
from llm_users.load.worker.admission_gate import AdmissionGate
from llm_users.load.worker.permits import Permit, UserState
from llm_users.load.worker.prompt_queue import TracePrompts
from llm_users.load.worker.round_robin import RoundRobin
from llm_users.outcome import ABORTED, OVERFLOW

LEAD_NS = 25_000_000
"""A request is built this long before it is due, and then waits. The time is 5 ms longer than a start may wait for an
idle event loop (``transport.idle_queue``)."""

_NS = 1_000_000_000


class _UserQueue:
    """The idle users of one class, and the permits that wait for users."""

    def __init__(self, user_class: Any) -> None:
        self.user_class = user_class
        self.weight = user_class.weight
        self.idle: list[AsyncResult[Permit]] = []
        self.waiting: deque[Permit] = deque()  # permits for users that are starting


class OpenLoop:
    """The open loop of one worker in one run."""

    def __init__(
        self,
        environment: Any,
        user_classes: Sequence[Any],
        gate: AdmissionGate,
        record_unsent: Callable[[Any, Permit, str, str], None],
        *,
        drops: bool,
        trace_prompts: TracePrompts | None = None,
    ) -> None:
        """Create the loop. Its dispatcher starts with the first user that takes a permit.

        ``record_unsent`` writes the row of a request that was not sent: user class, permit, error code and message.
        ``drops``: requests above the limit in flight are dropped instead of held. ``trace_prompts``: the prompts of the
        arrivals, if they have their own.
        """
        self._environment = environment
        self._gate = gate
        self._record_unsent = record_unsent
        self._drops = drops
        self._trace_prompts = trace_prompts
        self._queues = {user_class: _UserQueue(user_class) for user_class in user_classes}
        self._turns = RoundRobin(list(self._queues.values()))
        self._schedule = ArrivalSchedule((), ())
        self._max_in_flight: int | None = None  # of this worker; None: no limit
        self._group = Group()
        self._user_state = UserState()
        self._begun = 0
        self._held: deque[Permit] = deque()
        self._closed = False
        self._dispatcher: gevent.Greenlet[[], None] | None = None

    # Messages from the coordinator.

    def begin_stage(self, times_s: Iterable[float], shares: Sequence[ArrivalShare], max_in_flight: int | None) -> None:
        """Set the arrival times of a stage, this worker's shares of them, and its limit of requests in flight."""
        self._schedule = ArrivalSchedule(times_s, shares)
        self._change_shares(shares, max_in_flight)

    def change_shares(self, shares: Sequence[ArrivalShare], max_in_flight: int | None) -> None:
        """Change this worker's shares: another worker was lost or this one is back."""
        self._change_shares(shares, max_in_flight)
        self._gate.reschedule()
        self._begin_held()

    def close(self) -> None:
        """End the run: cut off requests in flight, and write rows for requests that were never sent."""
        self._closed = True
        if self._dispatcher is not None:
            self._dispatcher.kill()
        unsent = [(queue.user_class, permit) for queue in self._queues.values() for permit in queue.waiting]
        unsent += [(self._turns.next().user_class, permit) for permit in self._held]
        for queue in self._queues.values():
            queue.waiting.clear()
        self._held.clear()
        for user_class, permit in unsent:
            self._record_unsent(user_class, permit, ABORTED, "the run ended before this request was sent")
        self._group.kill(timeout=10)

    # Calls from users.

    @property
    def is_running(self) -> bool:
        """Return whether a user has taken a permit or waits for one."""
        return self._dispatcher is not None

    def take(self, user_class: Any) -> Permit:
        """Wait for a permit for a user of this class, which must call ``over`` when its request has ended."""
        if self._dispatcher is None:
            self._dispatcher = gevent.spawn(self._dispatch)
        queue = self._queues[user_class]
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
        return self._gate.follow(first)

    def over(self) -> None:
        """Note that a request has ended, and begin a held request."""
        self._begun -= 1
        self._begin_held()

    # Internal methods.

    def _change_shares(self, shares: Sequence[ArrivalShare], max_in_flight: int | None) -> None:
        self._max_in_flight = max_in_flight
        self._schedule.change(shares)
        if self._trace_prompts is not None:
            self._trace_prompts.change(shares, self._gate.plan.requests)

    def _dispatch(self) -> None:
        gate, scheduled = self._gate, None
        while True:
            plan = gate.await_stage(self._user_state)
            schedule = self._schedule
            if plan is scheduled:  # a finished stage has got a larger share: skip the arrivals that were missed
                while (missed_ns := self._due_ns(schedule)) is not None and missed_ns < time.monotonic_ns():
                    schedule.take()
            scheduled = plan
            self._follow(schedule)

    def _follow(self, schedule: ArrivalSchedule) -> None:
        """Start requests when they are due, until the stage takes no more."""
        gate = self._gate
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
            if self._trace_prompts is not None:
                permit.prompt = self._trace_prompts.of(number)
            if self._has_room:
                self._begin(permit)
            elif self._drops:
                limit = self._max_in_flight
                text = f"{limit} requests were in flight, as many as --llm-max-in-flight allows this worker"
                self._record_unsent(self._turns.next().user_class, permit, OVERFLOW, text)
            else:
                self._held.append(permit)

    def _due_ns(self, schedule: ArrivalSchedule) -> int | None:
        arrival = schedule.next
        return None if arrival is None else self._gate.origin_ns + int(arrival.at_s * _NS)

    @property
    def _has_room(self) -> bool:
        return self._max_in_flight is None or self._begun < self._max_in_flight

    def _begin_held(self) -> None:
        """Begin as many held requests as the limit in flight allows. The limit may have changed."""
        while self._held and self._has_room:
            permit = self._held.popleft()
            permit.held_ns = max(0, time.monotonic_ns() - permit.intended_ns)
            self._begin(permit)

    def _begin(self, permit: Permit) -> None:
        self._begun += 1
        self._gate.begin(permit)
        self._serve(self._turns.next(), permit)

    def _serve(self, queue: _UserQueue, permit: Permit) -> None:
        if queue.idle:
            queue.idle.pop().set(permit)  # the user that came last, so that the others stay idle
        else:
            queue.waiting.append(permit)
            if not self._closed:
                user = queue.user_class(self._environment)
                user.start(self._group).link(lambda _greenlet: self._on_left(queue))

    def _on_left(self, queue: _UserQueue) -> None:
        """Write a row for a permit whose user ended before it took the permit (an error in its ``on_start``)."""
        if self._closed or not queue.waiting:
            return
        permit = queue.waiting.popleft()
        text = f"the {queue.user_class.__name__} for this request ended before it sent it"
        self._record_unsent(queue.user_class, permit, ABORTED, text)
        self.over()
