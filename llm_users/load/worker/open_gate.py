"""The gate as an open loop needs it: arrivals in place of users that ask when they have an answer.

The phases and the budget are the stage's own (``stage``); the schedule is the dispatcher's (``users.open_loop``).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_users.load.protocol.stage import StagePlan
from llm_users.load.worker.admission_gate import StageGate
from llm_users.load.worker.permits import Ticket, UserSeat

_NS = 1_000_000_000


class OpenGate(StageGate):
    """What every load process has; in a closed loop it is the stage's gate and nothing else."""

    max_in_flight: int | None = None
    """Requests that this worker may have in flight at a time in the stage; None: as many as arrive."""

    @property
    def origin_ns(self) -> int:
        """The moment that the arrivals of the stage are counted from."""
        return self._origin_ns

    def await_stage(self, seat: UserSeat) -> StagePlan:
        """Stand at the gate until a stage begins, and wants something started."""
        while seat.stage != self.plan.stage or not self._takes_more():
            self._park(seat)
        return self.plan

    def arrive(self, seat: UserSeat, due_ns: int) -> Ticket | None:
        """A ticket for the request that is meant to be sent then; None when the stage takes no more."""
        plan = self.plan
        while self.plan is plan and self._takes_more():
            seat.due_ns = due_ns
            ticket = self._try_enter(seat)
            if ticket is not None:
                return ticket
            seat.due_ns = 0
            self._park(seat)
        return None

    @property
    def takes_more(self) -> bool:
        """Whether anything can still start in the stage."""
        return self._takes_more()

    def reschedule(self) -> None:
        """The schedule has changed: the dispatcher looks again when its next arrival is due."""
        self._border.set()

    def sleep_until(self, due_ns: Callable[[], int | None], early_ns: int) -> None:
        """Until ``early_ns`` before the next arrival is due, or until nothing more can start in the stage.

        ``due_ns`` is asked again when the schedule has changed; None: there is no next one.
        """
        plan = self.plan
        while self.plan is plan and self._takes_more():
            moment_ns = due_ns()
            wait_ns = 0 if moment_ns is None else moment_ns - early_ns - time.monotonic_ns()
            if wait_ns <= 0:
                return
            self._border.clear()
            self._border.wait(wait_ns / _NS)

    def begin(self, ticket: Ticket) -> None:
        """A ticket's request is on its way to be sent, ``intended_ns`` at the earliest."""
        self._count_in(ticket)

    def follow(self, first: Ticket) -> Ticket:
        """A ticket for a request that belongs to one that an arrival has begun: due now, and no arrival itself."""
        self._unfinished += 1
        self.totals.started += 1
        self.on_start(self.plan.stage, False)
        self._sequence += 1
        ticket = Ticket(self.plan, self.phase, time.monotonic_ns(), self._sequence, measured=first.measured)
        ticket.arrival = False
        ticket.measurement = self._measurement
        if ticket.measured:
            self._measurement.followed()
        self._count_in(ticket)
        return ticket

    def linger(self) -> None:
        """Something goes on between two requests that the stage has to wait for; ``depart`` ends it."""
        self._unfinished += 1

    def depart(self) -> None:
        self._unfinished -= 1
        self._finish_if_over()
