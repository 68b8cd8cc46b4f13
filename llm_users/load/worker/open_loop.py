"""The open loop of one load process: arrivals on their schedule, and users that take them.

A dispatcher stands at the gate like a user and turns the schedule into tickets; each ticket goes to a user that is at
leisure, or to a new one. So a locustfile's tasks run as in a closed loop, and no answer ever delays the next arrival.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.pool import Group

from llm_users.load.worker.context import Arrivals, Runtime
from llm_users.load.worker.permits import Ticket, UserSeat
from llm_users.outcome import ABORTED, OVERFLOW

LEAD_NS = 25_000_000
"""A request is built so long before it is due, and then waits ready: 5 ms more than its start may wait for a quiet loop
(``transport.quiet``)."""

_NS = 1_000_000_000


class _Desk:
    """Where the users of one class come for tickets."""

    def __init__(self, user_class: Any) -> None:
        self.user_class = user_class
        self.credit = 0.0
        self.idle: list[AsyncResult[Ticket]] = []
        self.waiting: deque[Ticket] = deque()  # for a user that is on its way


class OpenLoop:
    """One per load process and run; made by the first user that comes for a request."""

    def __init__(self, runtime: Runtime, clerk: Any) -> None:
        """``clerk`` is any user of this process: it writes the rows of requests that no user could send."""
        self._runtime = runtime
        self._clerk = clerk
        classes = [c for c in clerk.environment.user_classes if hasattr(c, "prepare_process")]
        self._desks = {c: _Desk(c) for c in classes or [type(clerk)]}
        self._group = Group()
        self._seat = UserSeat()
        self._begun = 0
        self._held: deque[Ticket] = deque()
        self._closed = False
        self._dispatcher = gevent.spawn(self._dispatch)

    def take(self, user: Any) -> Ticket:
        """Wait for a ticket. The user has to call ``over`` when its request has ended."""
        desk = self._desks[type(user)]
        if desk.waiting:
            return desk.waiting.popleft()
        turn: AsyncResult[Ticket] = AsyncResult()
        desk.idle.append(turn)
        try:
            ticket = turn.get()
            assert ticket is not None
            return ticket
        except BaseException:  # this user is stopped
            if turn in desk.idle:
                desk.idle.remove(turn)
            elif turn.ready() and turn.value is not None:  # its ticket is another's
                self._serve(desk, turn.value)
            raise

    def follow(self, first: Ticket) -> Ticket:
        """A ticket for what belongs to a request that has begun; no limit holds it up."""
        self._begun += 1
        return self._runtime.gate.follow(first)

    def over(self) -> None:
        """A request has ended: there is a place for one that was held."""
        self._begun -= 1
        self.begin_held()

    def begin_held(self) -> None:
        """Begin requests that were held, as many as the limit allows; it may have changed."""
        most = self._runtime.gate.max_in_flight
        while self._held and (most is None or self._begun < most):
            ticket = self._held.popleft()
            ticket.held_ns = max(0, time.monotonic_ns() - ticket.intended_ns)
            self._begin(ticket)

    def close(self) -> None:
        """The run is over: requests in flight are cut, and requests that were never sent get their rows."""
        self._closed = True
        self._dispatcher.kill()
        waiting = [ticket for desk in self._desks.values() for ticket in desk.waiting]
        for desk in self._desks.values():
            desk.waiting.clear()
        for ticket in [*waiting, *self._held]:
            self._clerk.never_sent(ticket, ABORTED, "the run ended before this request's turn came")
        self._held.clear()
        self._group.kill(timeout=10)

    # Inside.

    def _dispatch(self) -> None:
        gate, scheduled = self._runtime.gate, None
        while True:
            plan = gate.await_stage(self._seat)
            schedule = self._runtime.arrivals()
            if plan is scheduled:  # it was over and has more to do after all: what was missed meanwhile stays so
                while (missed_ns := self._due_ns(schedule)) is not None and missed_ns < time.monotonic_ns():
                    schedule.take()
            scheduled = plan
            self._follow(schedule)

    def _follow(self, schedule: Arrivals) -> None:
        """Start what is due until the stage takes no more."""
        gate, runtime = self._runtime.gate, self._runtime
        while True:
            gate.sleep_until(lambda: self._due_ns(schedule), LEAD_NS)
            if not gate.takes_more:
                return
            due_ns = self._due_ns(schedule)
            if due_ns is None:  # a trace has an end, and so has the part of a worker that was taken for dead
                gate.end_measure()
                return
            number = schedule.take()[0]
            ticket = gate.arrive(self._seat, due_ns)
            if ticket is None:
                return
            if runtime.prompt_of_arrival is not None:
                ticket.prompt = runtime.prompt_of_arrival(number)
            self._admit(ticket)

    def _due_ns(self, schedule: Arrivals) -> int | None:
        arrival = schedule.next
        return None if arrival is None else self._runtime.gate.origin_ns + int(arrival[1] * _NS)

    def _admit(self, ticket: Ticket) -> None:
        most = self._runtime.gate.max_in_flight
        if most is None or self._begun < most:
            self._begin(ticket)
        elif self._runtime.options.overflow == "drop":
            text = f"{most} requests were in flight, as many as --llm-max-in-flight allows this load process"
            self._clerk.never_sent(ticket, OVERFLOW, text)
        else:
            self._held.append(ticket)

    def _begin(self, ticket: Ticket) -> None:
        self._begun += 1
        self._runtime.gate.begin(ticket)
        self._serve(self._next_desk(), ticket)

    def _serve(self, desk: _Desk, ticket: Ticket) -> None:
        if desk.idle:
            desk.idle.pop().set(ticket)  # the one that came last: so the others are not needed and stay at leisure
        else:
            desk.waiting.append(ticket)
            if not self._closed:
                self._hire(desk)

    def _hire(self, desk: _Desk) -> None:
        user = desk.user_class(self._clerk.environment)
        user.start(self._group).link(lambda _greenlet: self._on_left(desk))

    def _on_left(self, desk: _Desk) -> None:
        """A user has ended, which may have been the one that a ticket waits for (an error in its ``on_start``)."""
        if self._closed or not desk.waiting:
            return
        ticket = desk.waiting.popleft()
        self._clerk.never_sent(ticket, ABORTED, f"the {desk.user_class.__name__} that should have sent it ended before")
        self.over()

    def _next_desk(self) -> _Desk:
        """By the weights of the classes, exactly and evenly mixed."""
        desks = list(self._desks.values())
        if len(desks) == 1:
            return desks[0]
        for desk in desks:
            desk.credit += desk.user_class.weight
        chosen = max(desks, key=lambda desk: desk.credit)
        chosen.credit -= sum(desk.user_class.weight for desk in desks)
        return chosen
