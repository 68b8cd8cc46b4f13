"""A worker's side of the lease: it reports started requests once per second, and starts requests only while answered.

The coordinator reassigns the share of a silent worker, and neither side can know why the other one is silent: the
network may stall, the process may have been stopped (SIGSTOP, a suspended machine), the coordinator may be gone.
Therefore each answer to a COUNT is a lease: for ``LEASE_S`` after it sent that COUNT, the worker may start requests.
The coordinator waits slightly longer before it reassigns the share, so no request is ever started twice. After the
lease has run out, only the answer to a later question (BACK) begins a new one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

import gevent

from llm_users.collect.spool import StartCounts
from llm_users.load.protocol.messages import LEASE_S, WAIT_S, Back, Count, WorkerMessage

_LOOK_S = 0.25
_TELL_S = 1.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # also counts while the machine is suspended


def _now() -> float:
    return time.clock_gettime(_CLOCK)


class Lease:
    """The time until which this process may start requests. Moments are seconds of one clock."""

    def __init__(self) -> None:
        self.ended_at: float | None = None
        """When the lease ran out. None while there is a lease, and before the first one."""
        self.heard_at = 0.0
        """When the last answer arrived, also if it was late."""
        self._until: float | None = None
        self._sent: dict[int, float] = {}
        self._number = 0
        self._began_at = 0.0

    def ask(self, now: float) -> int:
        """Return the number of a question that is sent now."""
        self._began_at = self._began_at or now
        self._number += 1
        self._sent[self._number] = now
        while len(self._sent) > 2 * WAIT_S:
            del self._sent[next(iter(self._sent))]
        return self._number

    def holds(self, now: float) -> bool:
        """Return whether a request may start."""
        if self._until is not None and now >= self._until:
            self.ended_at, self._until = self._until, None
        if self._until is None and self.ended_at is None and self._began_at and now >= self._began_at + LEASE_S:
            self.ended_at = self._began_at + LEASE_S  # the first question had no answer in time
        return self._until is not None

    def answered(self, number: int, now: float, *, anew: bool = False) -> bool:
        """Process the answer to a question, and return whether a lease holds.

        ``anew``: the answer may begin a lease after one that ran out.
        """
        held = self.holds(now)
        sent_at = self._sent.pop(number, None)
        if sent_at is not None:
            self.heard_at = now
        if sent_at is None or (not held and self.ended_at is not None and not anew) or sent_at + LEASE_S <= now:
            return held
        self._until = max(self._until or 0.0, sent_at + LEASE_S)
        self.ended_at = None
        return True


class MasterLink:
    """The parts of a worker that the stall guard needs. Here for the only process, without a master and a spool."""

    watches_parent = False
    """Whether the process ends with its parent process."""

    def spool_state(self) -> tuple[int, list[str], str]:
        """Return the number of rows that are only in the spool, its files, and the name of this machine."""
        return 0, [], ""

    def on_look(self) -> None:
        """Called four times per second during a run."""

    def on_alone(self, why: str) -> None:
        """The coordinator does not come back, for the given reason. Called once, in a greenlet that may end."""


class GuardedWorker(Protocol):
    """The worker's interface for the stall guard."""

    send: Callable[[WorkerMessage], None]
    """Sends a message to the coordinator."""

    def count_message(self, number: int, counts: StartCounts) -> Count:
        """Return the COUNT with this number: the started requests, and the worker's position in the run."""

    def back_message(self, number: int, counts: StartCounts) -> Back:
        """Return the BACK with this number, which asks whether this worker may continue."""

    def on_lease_ended(self, since_ns: int) -> None:
        """Nothing may start since this moment of the monotonic clock."""

    def on_lease_held(self) -> None:
        """Requests may start from now on."""

    def on_pause(self, silent_s: float) -> None:
        """The coordinator answers again after a silence in which nothing was started for some time."""


class StallGuard:
    """Counts started requests, reports them, and decides whether a request may start. One per worker."""

    def __init__(self, worker: GuardedWorker, link: MasterLink) -> None:
        self._worker = worker
        self._link = link
        self._is_limited = False  # by the lease, during a distributed run
        self._counts = StartCounts("", 0, shared=False)
        self._lease = Lease()
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._parent = os.getppid()
        self._paused = False
        self.parent_is_gone = False
        """True after the parent process has ended, with which this process must end."""

    def begin(self, run_id: str, worker: int, *, distributed: bool) -> None:
        """Begin a run: reset the counts, and report to the master if there is one."""
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
        """Return whether a request may start now."""
        return not self._is_limited or self._lease.holds(_now())

    def count(self, stage: int, measured: bool) -> None:
        """Count a request of the stage that starts."""
        self._counts.add(stage, measured)

    def forget(self) -> None:
        """Delete the counts, which are no longer needed."""
        self._counts.remove()

    def acknowledged(self, number: int) -> None:
        """Process the answer to the COUNT with this number."""
        held = self._lease.holds(_now())
        if self._lease.answered(number, _now()) and not held:
            self._worker.on_lease_held()

    def answered(self, number: int) -> None:
        """Process the answer to the BACK with this number. Requests may start again if it was quick enough."""
        now, ended_at = _now(), self._lease.ended_at
        if self._lease.answered(number, now, anew=True) and ended_at is not None:
            self._worker.on_pause(now - ended_at + LEASE_S)

    def tell(self) -> None:
        """Report the requests that were started so far."""
        self._worker.send(self._worker.count_message(self._lease.ask(_now()), self._counts))

    # Internal methods.

    def _run(self) -> None:
        told_at = 0.0
        looked_at = _now()
        while True:
            self._link.on_look()
            now = _now()
            if now - looked_at > LEASE_S:
                self._lease.heard_at = now  # this process stood still and could not receive an answer
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
