"""A worker's side of the lease: it reports once a second what it has started, and starts requests only while answered.

The coordinator gives the share of a silent worker to the others, and neither side can know why the other is silent: the
network may stall, the process may have been stopped (SIGSTOP, a suspended machine), the coordinator may be gone. So
each answer to a COUNT is a lease: for ``LEASE_S`` after it sent that COUNT the worker may start requests. The
coordinator waits a little longer than that before it gives the share away, so no request is ever started twice. Once
the lease has run out, only the answer to a question that was asked afterwards (BACK) begins a new one.
"""

from __future__ import annotations

import os
import time
from typing import Protocol

import gevent

from llm_users.collect.spool import StartCounts
from llm_users.load.protocol.messages import LEASE_S, WAIT_S, Back, Count, WorkerMessage

_LOOK_S = 0.25
_TELL_S = 1.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine is suspended


def _now() -> float:
    return time.clock_gettime(_CLOCK)


class Lease:
    """Until when this process may start requests. Moments are seconds of one clock."""

    def __init__(self) -> None:
        self.ended_at: float | None = None
        """When the lease ran out; None while there is one, and while the first is awaited."""
        self.heard_at = 0.0
        """When the last answer came, however late."""
        self._until: float | None = None
        self._sent: dict[int, float] = {}
        self._number = 0
        self._began_at = 0.0

    def ask(self, now: float) -> int:
        """A question is sent now: its number."""
        self._began_at = self._began_at or now
        self._number += 1
        self._sent[self._number] = now
        while len(self._sent) > 2 * WAIT_S:
            del self._sent[next(iter(self._sent))]
        return self._number

    def holds(self, now: float) -> bool:
        """Whether a request may start."""
        if self._until is not None and now >= self._until:
            self.ended_at, self._until = self._until, None
        if self._until is None and self.ended_at is None and self._began_at and now >= self._began_at + LEASE_S:
            self.ended_at = self._began_at + LEASE_S  # the first question had no answer in time
        return self._until is not None

    def answered(self, number: int, now: float, *, anew: bool = False) -> bool:
        """The answer to a question is here; ``anew``: it may begin a lease after one that ran out."""
        held = self.holds(now)
        sent_at = self._sent.pop(number, None)
        if sent_at is not None:
            self.heard_at = now
        if sent_at is None or (not held and self.ended_at is not None and not anew) or sent_at + LEASE_S <= now:
            return held
        self._until = max(self._until or 0.0, sent_at + LEASE_S)
        self.ended_at = None
        return True


class MasterLink(Protocol):
    """What a worker has besides its part in the load: rows in a spool, a master that may go, perhaps a parent."""

    @property
    def watches_parent(self) -> bool:
        """Whether the process ends with the one that has started it."""

    @property
    def held(self) -> int:
        """Rows that are only in the spool."""

    @property
    def spool_paths(self) -> list[str]:
        """The files of the spool."""

    @property
    def host(self) -> str:
        """The name of this machine."""

    def on_look(self) -> None:
        """Called four times a second during a run."""

    def on_alone(self, why: str) -> None:
        """The coordinator does not come back, and why that is clear. Called once, in a greenlet that may end."""


class NoMaster:
    """The link of the only process: it has no master and no spool."""

    watches_parent = False
    held = 0
    host = ""

    @property
    def spool_paths(self) -> list[str]:
        return []

    def on_look(self) -> None:
        pass

    def on_alone(self, why: str) -> None:
        pass


class GuardedWorker(Protocol):
    """What the stall guard asks and tells its worker."""

    def send(self, message: WorkerMessage) -> None:
        """Send a message to the coordinator."""

    def count_message(self, number: int, counts: StartCounts) -> Count:
        """The COUNT of this number."""

    def back_message(self, number: int, counts: StartCounts) -> Back:
        """The BACK of this number."""

    def on_lease_ended(self, since_ns: int) -> None:
        """Nothing may start since this moment of the monotonic clock."""

    def on_lease_held(self) -> None:
        """Requests may start from now on."""

    def on_pause(self, silent_s: float) -> None:
        """The coordinator answers again after this silence, in which nothing was started for some time."""


class StallGuard:
    """One per worker: it counts what is started, reports it, and says whether a request may start."""

    def __init__(self, worker: GuardedWorker, link: MasterLink) -> None:
        self._worker = worker
        self._link = link
        self._is_limited = False  # by the lease, while a distributed run goes on
        self._counts = StartCounts("", 0, shared=False)
        self._lease = Lease()
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._parent = os.getppid()
        self._paused = False
        self.parent_is_gone = False
        """True once the process has ended that this one is to end with."""

    def begin(self, run_id: str, worker: int, *, distributed: bool) -> None:
        """A run begins: count from 0, and report to the master if there is one."""
        self.stop()
        self._lease = Lease()
        self._paused = False
        self._counts.remove()
        self._counts = StartCounts(run_id, worker, shared=distributed)
        self._is_limited = distributed
        if distributed:
            self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        if self._greenlet is not None and self._greenlet is not gevent.getcurrent():
            self._greenlet.kill(block=False)
        self._greenlet = None
        self._is_limited = False

    def may_start(self) -> bool:
        """Whether a request may start now."""
        return not self._is_limited or self._lease.holds(_now())

    def count(self, stage: int, measured: bool) -> None:
        """A request of the stage starts."""
        self._counts.add(stage, measured)

    def forget(self) -> None:
        """The counts are not needed any more."""
        self._counts.remove()

    def acknowledged(self, number: int) -> None:
        """The coordinator has heard the COUNT with this number."""
        held = self._lease.holds(_now())
        if self._lease.answered(number, _now()) and not held:
            self._worker.on_lease_held()

    def answered(self, number: int) -> None:
        """The coordinator has answered the BACK with this number: requests may start again, if it was quick."""
        now, ended_at = _now(), self._lease.ended_at
        if self._lease.answered(number, now, anew=True) and ended_at is not None:
            self._worker.on_pause(now - ended_at + LEASE_S)

    def tell(self) -> None:
        """Report what was started so far."""
        self._worker.send(self._worker.count_message(self._lease.ask(_now()), self._counts))

    # Inside.

    def _run(self) -> None:
        told_at = 0.0
        looked_at = _now()
        while True:
            self._link.on_look()
            now = _now()
            if now - looked_at > LEASE_S:
                self._lease.heard_at = now  # this process stood still: an answer could not be heard
            looked_at = now
            if self._link.watches_parent and os.getppid() != self._parent:
                self.parent_is_gone = True
                self._end("the process that started this worker is gone")
                return
            cut_off = not self._lease.holds(now) and self._lease.ended_at is not None
            silent_s = now - (self._lease.ended_at or now)
            if cut_off and not self._paused:
                self._worker.on_lease_ended(time.monotonic_ns() - int(silent_s * 1e9))
            self._paused = cut_off
            if cut_off and now - max(now - silent_s, self._lease.heard_at) > WAIT_S:
                self._end(f"the master has not answered for {WAIT_S + LEASE_S:g} s")
                return
            if now - told_at >= _TELL_S:
                told_at = now
                if cut_off:
                    self._worker.send(self._worker.back_message(self._lease.ask(_now()), self._counts))
                else:
                    self.tell()
            gevent.sleep(_LOOK_S)

    def _end(self, why: str) -> None:
        self._greenlet = None
        gevent.spawn(self._link.on_alone, why)
