"""The stage a load process is in: its phases, its budget of requests, the gate that every request passes.

Decides on this worker alone; what the stages are and when they begin is the coordinator's business (``load``).
Knows gevent, not Locust.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from llm_users.plan import StagePlan, StageTotals
from llm_users.quantile import DurationHistogram

IDLE, RAMP, WARMUP, MEASURE, DRAIN = "idle", "ramp", "warmup", "measure", "drain"

_NS = 1_000_000_000

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 2.0
"""After a failed request a user waits this long, doubling: a dead server must not be hammered."""

GIVE_UP_AFTER = 20
"""A stage whose first so many requests all fail to connect is ended."""


class Ticket:
    """Permission to start one request. Handed out by ``StageGate.enter`` and given back to ``StageGate.leave``."""

    __slots__ = ("intended_ns", "measured", "phase", "plan", "sequence")

    def __init__(self, plan: StagePlan, phase: str, intended_ns: int, sequence: int) -> None:
        self.plan = plan
        self.phase = phase
        self.measured = phase == MEASURE
        self.intended_ns = intended_ns
        self.sequence = sequence


class UserSeat:
    """What the gate remembers of one user."""

    __slots__ = ("backoff_s", "due_ns", "released", "stage", "warmups_left")

    def __init__(self) -> None:
        self.stage = -1
        self.warmups_left = 0
        self.due_ns = 0  # when its next request is meant to start; 0: as soon as it comes
        self.backoff_s = 0.0
        self.released = Event()


class StageGate:
    """Lets requests of this process through, phase by phase. One per load process."""

    def __init__(self) -> None:
        self.plan = StagePlan(stage=0, concurrency=0)
        self.phase = IDLE
        self.totals = StageTotals(0, 0)
        self.on_finished: Callable[[StageTotals], None] = lambda totals: None
        self.on_ready: Callable[[int, int], None] = lambda stage, waiting: None
        self.counters: Callable[[], tuple[int, int]] = lambda: (0, 0)  # (starts, forced starts) so far
        self.on_start: Callable[[int, bool], None] = lambda stage, measured: None  # told before each request
        self.may_start: Callable[[], bool] = lambda: True  # False: wait for the coordinator's word
        self.closed = False
        self._quota: int | None = 0
        self._measured_started = 0
        self._warmups_left = 0  # warm-up requests that the stage's users have not started yet
        self._ended = 0
        self._failed_to_connect = 0
        self._waiting: list[UserSeat] = []
        self._ended_early = False  # by the end of the time, or because it was told to
        self._sequence = 0
        self._in_flight = 0
        self._in_flight_mark_ns = 0
        self._window: tuple[int, int | None] | None = None
        self._cpu_mark_s = 0.0
        self._counter_marks = (0, 0)
        self._lag = DurationHistogram()
        self._gaps = DurationHistogram()
        self._timer: Any = None

    # What the coordinator says.

    def prepare(self, plan: StagePlan) -> None:
        """A new stage is coming: hold every request back until ``go`` (``free``: let them through as ramp)."""
        self._cancel_timer()
        self.plan = plan
        self.totals = StageTotals(plan.stage, plan.worker)
        self.closed = False
        self._quota = plan.free_quota if plan.free else 0
        self._measured_started = 0
        self._warmups_left = 0
        self._ended = self._failed_to_connect = 0
        self._window = None
        self._lag = DurationHistogram()
        self._gaps = DurationHistogram()
        self._counter_marks = self.counters()
        self.phase = RAMP
        if plan.free:
            self._release_all()
        else:
            self.on_ready(plan.stage, len(self._waiting))

    def go(self, quota: int | None) -> None:
        """Start the stage: ``quota`` measured requests on this worker (None: until the time is over)."""
        plan = self.plan
        self._quota = quota
        users = self._waiting
        self.totals.users = len(users)
        if not users:
            self.phase = DRAIN
            self._finish_if_over()
            return
        self._warmups_left = plan.warmup_requests * len(users)
        self.phase = WARMUP if self._warmups_left or plan.warmup_s else MEASURE
        now_ns = time.monotonic_ns()
        for place, seat in enumerate(users):
            seat.stage = plan.stage
            seat.warmups_left = plan.warmup_requests
            # Even over the ramp, and the workers' users between each other's.
            offset = plan.worker % plan.workers / plan.workers
            seat.due_ns = now_ns + int(plan.ramp_s * (place + offset) / len(users) * _NS)
        if plan.warmup_s:
            self._after(plan.warmup_s, self._begin_measure)
        elif self.phase == MEASURE and quota is None:
            self._begin_measure()
        self._release_all()
        self._finish_if_over()

    def change_quota(self, quota: int | None) -> None:
        """The coordinator's word on this process's share while the stage runs, or after it: what others left undone.

        Lets those go on who had to wait for it. A share that is used up, or comes too late, is answered like the end
        of a stage.
        """
        if quota is not None and self._quota is not None:
            self._quota = quota
            if self._measured_started >= quota:
                self._warmups_left = 0
                self.end_measure()
            elif self.phase == IDLE and not self._ended_early and not self.closed:
                self._reopen()
            elif self.phase == IDLE:
                self._report()
        self._release_all()

    def target_reached(self) -> None:
        """Without a sweep: the wanted number of users runs, so measuring begins."""
        if self.plan.free and self.phase == RAMP:
            self._begin_measure()

    def end_measure(self) -> None:
        """Nothing more starts; what is in flight goes on. Harmless when repeated."""
        if self.phase in (IDLE, DRAIN):
            return
        self._cancel_timer()
        self._close_window()
        self.phase = DRAIN
        self._finish_if_over()

    def close(self) -> None:
        """The test is over: nothing starts any more, whoever waits stays waiting."""
        self.closed = True
        self.end_measure()

    # What users do.

    def enter(self, seat: UserSeat) -> Ticket:
        """Wait until the user may start a request, and count it as started."""
        if seat.backoff_s:
            gevent.sleep(seat.backoff_s)
        if (ticket := self._try_enter(seat)) is not None:
            return ticket
        seat.due_ns = 0  # the end of a pause: whoever has to wait for another reason is not late
        while True:
            ticket = self._try_enter(seat)
            if ticket is not None:
                return ticket
            seat.released.clear()
            self._waiting.append(seat)
            try:
                self._report_ready()
                seat.released.wait()
                wait_ns = seat.due_ns - time.monotonic_ns()
                if wait_ns > 0:
                    gevent.sleep(wait_ns / _NS)
            finally:
                self._waiting.remove(seat)
                self._report_ready()

    def rest(self, seat: UserSeat, seconds: float) -> None:
        """A user's pause before its next request, spent here: a stage that begins meanwhile finds the user present."""
        due_ns = time.monotonic_ns() + int(seconds * _NS)
        seat.due_ns = 0
        self._waiting.append(seat)
        try:
            self._report_ready()
            while (wait_ns := max(due_ns, seat.due_ns) - time.monotonic_ns()) > 0:
                gevent.sleep(wait_ns / _NS)
        finally:
            self._waiting.remove(seat)
            self._report_ready()
        seat.due_ns = max(due_ns, seat.due_ns)

    def leave(self, ticket: Ticket, seat: UserSeat, error_code: str | None, error_message: str | None = None) -> None:
        """The request has ended, however it did."""
        self._count(-1)
        if error_code is None:
            seat.backoff_s = 0.0
        else:
            seat.backoff_s = min(BACKOFF_MOST_S, seat.backoff_s * 2) or BACKOFF_FIRST_S
        if ticket.plan.stage != self.plan.stage:
            return
        self._ended += 1
        self._failed_to_connect += error_code == "connect"
        if self._ended == self._failed_to_connect == GIVE_UP_AFTER:
            self.totals.given_up = error_message or "no connection"
            self.end_measure()
        self._finish_if_over()

    def window_share(self, stamps_ns: list[int]) -> int:
        """How many of these arrival stamps lie inside the MEASURE window, as far as it is known."""
        if self._window is None:
            return 0
        start_ns, end_ns = self._window
        if end_ns is None:
            end_ns = time.monotonic_ns()
        if stamps_ns and start_ns <= stamps_ns[0] and stamps_ns[-1] <= end_ns:
            return len(stamps_ns)
        return sum(start_ns <= stamp_ns <= end_ns for stamp_ns in stamps_ns)

    def add_gap_counts(self, gaps_s: list[float]) -> None:
        """Add a measured request's chunk gaps to the stage's histogram."""
        add = self._gaps.add
        for gap_s in gaps_s:
            add(gap_s)

    def add_lag(self, lag_s: float) -> None:
        """How late a short sleep woke up (the lag probe)."""
        if self._window is not None and self._window[1] is None:
            self._lag.add(lag_s)

    @property
    def waiting(self) -> int:
        """Users held back at the gate."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def measured_s(self) -> float | None:
        """How long this process has been measuring in the stage, in seconds; None before and after."""
        if self._window is None or self._window[1] is not None:
            return None
        return (time.monotonic_ns() - self._window[0]) / _NS

    # Inside.

    def _try_enter(self, seat: UserSeat) -> Ticket | None:
        plan = self.plan
        if self.closed or self.phase in (IDLE, DRAIN) or not self.may_start():
            return None
        if plan.free and seat.stage != plan.stage:
            seat.stage = plan.stage
            seat.warmups_left = plan.warmup_requests
        if seat.stage != plan.stage or (self.phase == RAMP and not plan.free):
            return None  # not part of the stage yet
        if plan.free and (self.phase == RAMP or seat.warmups_left):
            seat.warmups_left = max(0, seat.warmups_left - 1)
            return self._ticket(seat, RAMP if self.phase == RAMP else WARMUP)
        if self.phase == WARMUP:
            if plan.warmup_s:
                return self._ticket(seat, WARMUP)
            if not seat.warmups_left:
                return None  # others still have warm-up requests to start
            seat.warmups_left -= 1
            self._warmups_left -= 1
            ticket = self._ticket(seat, WARMUP)
            if not self._warmups_left:
                self._begin_measure()
            return ticket
        if self._quota is not None:
            if self._measured_started >= self._quota:
                return None
            self._measured_started += 1
        ticket = self._ticket(seat, MEASURE)
        self.totals.measured += 1
        if self._window is None:
            self._open_window()
        if self._quota is not None and self._measured_started == self._quota:
            self._close_window()
        return ticket

    def _ticket(self, seat: UserSeat, phase: str) -> Ticket:
        due_ns, seat.due_ns = seat.due_ns, 0
        self._sequence += 1
        self._count(+1)
        self.totals.started += 1
        self.on_start(self.plan.stage, phase == MEASURE)
        return Ticket(self.plan, phase, due_ns or time.monotonic_ns(), self._sequence)

    def _begin_measure(self) -> None:
        self.phase = MEASURE
        if self._quota is None:
            self._open_window()
        # Whoever waited for the border goes on, one after the other: all at one instant would be a wave.
        spacing_ns = int(self.plan.ramp_s / max(1, self.plan.concurrency) * _NS)
        now_ns = time.monotonic_ns()
        for place, seat in enumerate(self._waiting):
            if not seat.due_ns:  # those of the ramp have their time already
                seat.due_ns = now_ns + place * spacing_ns
        self._release_all()
        if self._quota == 0:
            self._finish_if_over()

    def _open_window(self) -> None:
        start_ns = time.monotonic_ns()
        self._window = (start_ns, None)
        self.totals.measure_started_at = time.time()
        self._in_flight_mark_ns = start_ns
        self.totals.in_flight_s = 0.0
        self._cpu_mark_s = time.process_time()
        if self.plan.measure_s is not None:
            self._after(self.plan.measure_s, self.end_measure)

    def _close_window(self) -> None:
        if self._window is None or self._window[1] is not None:
            return
        self._count(0)
        end_ns = time.monotonic_ns()
        start_ns = self._window[0]
        self._window = (start_ns, end_ns)
        self.totals.window_s = (end_ns - start_ns) / _NS
        self.totals.cpu_s = time.process_time() - self._cpu_mark_s

    def _count(self, change: int) -> None:
        if self._window is not None and self._window[1] is None:
            moment_ns = time.monotonic_ns()
            self.totals.in_flight_s += self._in_flight * (moment_ns - self._in_flight_mark_ns) / _NS
            self._in_flight_mark_ns = moment_ns
        self._in_flight += change

    def _finish_if_over(self) -> None:
        """Report the stage when nothing more will start and nothing is in flight."""
        if self._in_flight or self.phase in (IDLE, RAMP):
            return
        all_started = self._quota is not None and self._measured_started >= self._quota and not self._warmups_left
        if self.phase != DRAIN and not all_started:
            return
        self._cancel_timer()
        self._close_window()
        self._ended_early = self.phase == DRAIN
        self.phase = IDLE
        self._report()

    def _report(self) -> None:
        starts, forced = self.counters()
        self.totals.starts = starts - self._counter_marks[0]
        self.totals.forced = forced - self._counter_marks[1]
        self.totals.lag_counts = dict(self._lag.counts)
        self.totals.gap_counts = dict(self._gaps.counts)
        self.totals.quota = None if self.closed else self._quota
        self.on_finished(self.totals)

    def _reopen(self) -> None:
        """More to do after all; the window goes on as if it had never been closed."""
        self.phase = MEASURE
        if self._window is None:
            return
        start_ns, now_ns = self._window[0], time.monotonic_ns()
        self._window = (start_ns, None)
        self._in_flight_mark_ns = now_ns
        if self.plan.measure_s is not None:
            self._after(max(0.0, self.plan.measure_s - (now_ns - start_ns) / _NS), self.end_measure)

    def _report_ready(self) -> None:
        if self.phase == RAMP and not self.plan.free:
            self.on_ready(self.plan.stage, len(self._waiting))

    def _release_all(self) -> None:
        for seat in self._waiting:
            seat.released.set()

    def _after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = gevent.spawn_later(delay_s, action)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer is not gevent.getcurrent():
            timer.kill(block=False)
