"""A load process's pulse: it tells once a second what it has started, and starts requests only while it is answered.

The coordinator gives the share of a silent load process to the others, and neither side can know why the other is
silent: the network may stall, the process may have been stopped (SIGSTOP, a suspended machine), the coordinator may be
gone. So each answer to a COUNT is a lease: for ``LEASE_S`` after it sent that COUNT the process may start requests. The
coordinator waits a little longer than that before it gives the share away, so no request is ever started twice. Once
the lease has run out, only the answer to a question that was asked afterwards (BACK) begins a new one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import gevent

from llm_users.collect.spool import StartCounts
from llm_users.load.protocol import messages
from llm_users.load.protocol.messages import LEASE_S, WAIT_S
from llm_users.load.worker.admission_gate import StageGate

_BEAT_S = 0.25
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


class Pulse:
    """One per load process; ``about`` adds what the process knows of its spool and of its stage."""

    def __init__(self, gate: StageGate, send: Callable[[str, dict[str, Any]], None]) -> None:
        self._gate = gate
        self._send = send
        self._counts = StartCounts("", 0, shared=False)
        self._lease = Lease()
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._parent = os.getppid()
        self._paused = False
        self.about: Callable[[], dict[str, Any]] = lambda: {"held": 0, "shards": [], "host": ""}
        self.about_stage: Callable[[], dict[str, Any]] = dict
        self.watches_parent = self.parent_is_gone = False
        """True when this process is to end with the one that has started it."""
        self.on_beat: Callable[[], None] = lambda: None
        self.on_alone: Callable[[str], None] = lambda _why: None
        """The coordinator does not come back, and why that is clear. Called once, in a greenlet that may end."""
        self.on_pause: Callable[[float], None] = lambda _silent_s: None
        """The coordinator answers again after such a silence, in which nothing was started for some time."""

    def begin(self, run_id: str, worker: int, *, distributed: bool) -> None:
        """A run begins: count from 0; beat when there is a master to hear it."""
        self.stop()
        self._lease = Lease()
        self._paused = False
        self._counts.remove()
        self._counts = StartCounts(run_id, worker, shared=distributed)
        self._gate.on_start = self._counts.add
        if distributed:
            self._gate.may_start = lambda: self._lease.holds(_now())
            self._greenlet = gevent.spawn(self._beat)

    def stop(self) -> None:
        if self._greenlet is not None and self._greenlet is not gevent.getcurrent():
            self._greenlet.kill(block=False)
        self._greenlet = None
        self._gate.may_start = lambda: True

    def forget(self) -> None:
        """The counts are not needed any more."""
        self._counts.remove()

    def acknowledged(self, number: int) -> None:
        """The coordinator has heard the COUNT with this number."""
        held = self._lease.holds(_now())
        if self._lease.answered(number, _now()) and not held:
            self._gate.look_again()

    def answered(self, number: int) -> None:
        """The coordinator has answered the BACK with this number: requests may start again, if it was quick."""
        now, ended_at = _now(), self._lease.ended_at
        if self._lease.answered(number, now, anew=True) and ended_at is not None:
            self.on_pause(now - ended_at + LEASE_S)

    def tell(self) -> None:
        """What was started so far."""
        counts = self._counts
        told = {
            "number": self._lease.ask(_now()),
            "stage": counts.stage,
            "started": counts.started,
            "measured": counts.measured,
            "total": counts.total,
            "counts": str(counts.path) if counts.path is not None else None,
        }
        self._send(messages.COUNT, told | self.about() | self.about_stage())

    # Inside.

    def _beat(self) -> None:
        told_at = 0.0
        beat_at = _now()
        while True:
            self.on_beat()
            now = _now()
            if now - beat_at > LEASE_S:
                self._lease.heard_at = now  # this process stood still: an answer could not be heard
            beat_at = now
            if self.watches_parent and os.getppid() != self._parent:
                self.parent_is_gone = True
                self._end("the process that started this worker is gone")
                return
            cut_off = not self._lease.holds(now) and self._lease.ended_at is not None
            silent_s = now - (self._lease.ended_at or now)
            if cut_off and not self._paused:
                self._gate.interrupt(time.monotonic_ns() - int(silent_s * 1e9))
            self._paused = cut_off
            if cut_off and now - max(now - silent_s, self._lease.heard_at) > WAIT_S:
                self._end(f"the master has not answered for {WAIT_S + LEASE_S:g} s")
                return
            if now - told_at >= _TELL_S:
                told_at = now
                if cut_off:
                    self._ask()
                else:
                    self.tell()
            gevent.sleep(_BEAT_S)

    def _ask(self) -> None:
        """May this process go on?"""
        stage = self._gate.plan.stage
        measured = self._counts.measured if self._counts.stage == stage else 0
        self._send(messages.BACK, {"number": self._lease.ask(_now()), "stage": stage, "measured": measured})

    def _end(self, why: str) -> None:
        self._greenlet = None
        gevent.spawn(self.on_alone, why)
