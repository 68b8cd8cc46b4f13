"""The admission gate that every request of a worker passes. It holds requests back until their stage begins.

The gate moves the stage through its phases on this worker (``load.protocol.stage`` has the diagram), counts started
requests against the worker's share, and reports the totals when no request is in flight. In a closed loop, users come
to the gate. In an open loop, the dispatcher comes with one arrival after another (``open_loop``). The coordinator
decides which stages there are and when they begin. This module uses gevent, not Locust.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event
from msgspec.structs import replace

from llm_users.load.protocol.stage import DRAIN, IDLE, MEASURE, RAMP, WARMUP, Phase, StagePlan, StageTotals
from llm_users.load.worker.permits import MOST_FAILED_TASKS, Permit, UserPresence, UserState
from llm_users.load.worker.stage_measurement import Measurement
from llm_users.outcome import CLIENT_LIMIT, NOT_CONNECTED
from llm_users.quantile import DurationHistogram
from llm_users.record import StageLoad

_NS = 1_000_000_000

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.1, 2.0
"""Pause of a user after a failed request. It doubles with each failure, to avoid overloading a server that is down."""

GIVE_UP_AFTER = 20
"""A process ends its part of the stage after this many failed connections if it has never connected in the stage."""

_NOT_CONNECTED = (NOT_CONNECTED, CLIENT_LIMIT)


@dataclass
class _EarlierStage:
    """A free stage that another stage has replaced while its requests were in flight."""

    measurement: Measurement
    unfinished: int
    quota: int | None
    starts: tuple[int, int]


class StartControl:
    """Decides in addition to the stage whether a request may start, and counts started requests. Here: no limits."""

    def may_start(self) -> bool:
        """Return whether a request may start now. If not, the gate waits for ``look_again``."""
        return True

    def on_start(self, stage: int, measured: bool) -> None:
        """Count a request of the stage that starts."""

    def start_counters(self) -> tuple[int, int]:
        """Return the starts and forced starts of the process so far."""
        return 0, 0


class AdmissionGate:
    """Admits the requests of this worker, phase by phase. One gate per worker.

    ``on_ready`` is called with the stage and the number of users at the gate when that number has changed before GO,
    ``on_finished`` with the totals of a stage when no request is in flight.
    """

    def __init__(
        self,
        on_ready: Callable[[int, int], None] = lambda _stage, _users: None,
        on_finished: Callable[[StageTotals], None] = lambda _totals: None,
        control: StartControl | None = None,
    ) -> None:
        self._on_ready = on_ready
        self._on_finished = on_finished
        self._control = control or StartControl()
        self.plan = StagePlan(stage=0, load=StageLoad())
        self.phase: Phase = IDLE
        self._waiting: dict[UserState, None] = {}  # in the order of their arrival
        self._presence = UserPresence()
        self._came: dict[UserState, None] = {}  # users that have been at the gate since the stage was announced
        self._earlier: dict[int, _EarlierStage] = {}
        self._ended_early = False  # by the end of its time, or by END
        self._quota_ended = False  # the new share is smaller than the number of started requests
        self._sequence = 0
        self._unfinished = 0
        self._measurement = Measurement()
        self.origin_ns = 0
        """The origin of the stage's arrivals in an open loop."""
        self._border = Event()
        self._timer: Any = None
        self._begin_stage(self.plan)

    # Messages from the coordinator.

    def prepare(self, plan: StagePlan) -> None:
        """Prepare for a new stage: hold every request back until ``go`` (``free``: admit them as ramp).

        A free stage may replace another one at any time. Requests of the earlier stage continue and belong to it. Any
        other stage is over by now; a process that did not notice its end reports it here.
        """
        self._cancel_timer()
        follows = plan.free and self.plan.free and plan.stage == self.plan.stage + 1
        if follows and self.phase != IDLE:
            # Start nothing more in the present stage. It is reported when its last request has ended.
            stage, measurement = self.plan.stage, self._measurement
            measurement.close(time.monotonic_ns())
            measurement.totals.users_ended = self._presence.left
            self._measurement = measurement.next()
            starts = self._control.start_counters()
            self._earlier[stage] = _EarlierStage(measurement, self._unfinished_here, self.quota, starts)
            self._report_if_ended(stage)
        elif self.admitted and self.phase not in (IDLE, RAMP):
            self._measurement.close(time.monotonic_ns())
            self._report()
        self._begin_stage(plan)
        self.phase = RAMP
        if not follows:
            self._came = dict.fromkeys(self._waiting)
        self._border.set()
        if plan.free:
            self.look_again()
        self._report_ready()

    def _report_if_ended(self, stage: int) -> None:
        earlier = self._earlier[stage]
        if not earlier.unfinished:
            del self._earlier[stage]
            self._on_finished(earlier.measurement.report(earlier.starts, None if self.closed else earlier.quota))

    def _begin_stage(self, plan: StagePlan) -> None:
        self.plan = plan
        self._measurement.begin(plan, self._control.start_counters(), time.monotonic_ns())
        self.totals = self._measurement.totals
        self.closed = False
        self.quota: int | None = 0
        """The number of measured requests in this process's share of the stage; None: no limit."""
        self._ended_early = self._quota_ended = False
        self.admitted = False
        self._measured_started = self._ended = self._failed_to_connect = 0
        self._reached = False  # a request of the stage has connected
        self._warmups_left = 0  # warm-up requests that the stage's users have not started yet
        self._presence.begin_stage()
        self._spawned = False  # Locust has started all users of the stage

    def go(self, quota: int | None, origin_ns: int = 0, users_in_all: int | None = None) -> None:
        """Start the stage with ``quota`` measured requests on this worker (None: until the time is over).

        ``origin_ns`` is the origin of an open loop's arrivals; 0: now. ``users_in_all`` is the number of users that all
        workers admit.
        """
        if users_in_all is not None and not self.plan.load.is_open:
            self.plan = replace(self.plan, load=self.plan.load.with_users(users_in_all))
        plan = self.plan
        self.admitted = True
        self._measurement.told(time.monotonic_ns())
        self.origin_ns = origin_ns or time.monotonic_ns()
        self.quota = quota
        users = list(self._came)
        self.totals.users = len(users)
        if plan.free:
            if self.phase == RAMP:
                self._begin_measure()
                self._look_for_users()
            return
        if not users:
            self.phase = DRAIN
            self._finish_if_over()
            return
        self._warmups_left = plan.warmup_requests * len(users)
        self.phase = WARMUP if self._warmups_left or plan.timed_warmup_s else MEASURE
        now_ns = time.monotonic_ns()
        for index, user_state in enumerate(users):
            user_state.stage = plan.stage
            user_state.warmups_left = plan.warmup_requests
            # Spread users evenly over the ramp, with the users of the workers interleaved.
            offset = plan.worker % plan.workers / plan.workers
            user_state.due_ns = now_ns + int(plan.ramp_s * (index + offset) / len(users) * _NS)
        if plan.timed_warmup_s:
            self._after(plan.timed_warmup_s + max(0.0, (self.origin_ns - now_ns) / _NS), self._begin_measure)
        elif self.phase == MEASURE and quota is None:
            self._begin_measure()
        self.look_again()
        self._finish_if_over()

    def change_quota(self, quota: int | None) -> None:
        """Change this process's share while the stage runs or after it, because other workers left requests.

        Admits users that waited for the change. If the share is used up or the message is late, the gate reports the
        stage as at its end.
        """
        if quota is not None and self.quota is not None:
            self.quota = quota
            more = self._measured_started < quota
            may_reopen = self._quota_ended if self.phase == DRAIN else self.phase == IDLE and not self._ended_early
            if more and not self.closed and may_reopen:
                # The window continues with the next start, because users are idle until then.
                self.phase, self._quota_ended, window = MEASURE, False, self._measurement.window
                if window.exists:
                    now_ns = time.monotonic_ns()
                    self._end_in_time(now_ns - int(window.age_s(now_ns) * _NS))
            elif self.phase == IDLE:
                self._report()
            elif not more:
                self._warmups_left = 0
                self._quota_ended = self._quota_ended or self.phase != DRAIN
                self._drain()
        elif quota is None and self.over:
            self._report()
        self.look_again()

    def interrupt(self, since_ns: int) -> None:
        """Close the window at ``since_ns``: this process may start nothing until it gets a new lease."""
        self._measurement.close(since_ns)

    def look_again(self) -> None:
        """Check again whether waiting requests may start."""
        for user_state in self._waiting:
            for released in user_state.releases:
                released.set()

    def users_spawned(self) -> None:
        """Note that Locust has started all users that it was told to run."""
        self._spawned = True
        self._report_ready()

    def end_measure(self) -> None:
        """Start nothing more. Requests in flight continue. Further calls have no effect."""
        self._quota_ended = False
        self._drain()

    def _drain(self) -> None:
        if self.phase in (IDLE, DRAIN):
            return
        self._cancel_timer()
        self._measurement.end(time.monotonic_ns())
        self.phase = DRAIN
        self._border.set()
        self._finish_if_over()

    def close(self) -> None:
        """End the test: no request starts any more, and waiting users keep waiting."""
        self.closed = True
        self.end_measure()

    # Calls from users.

    def enter(self, user_state: UserState) -> Permit:
        """Wait until the user may start a request, count it as started, and return its permit.

        A user may make several calls at once. Together they count as one user at the gate. While one is in flight, the
        others need not wait for the warm-up of other users.
        """
        user_state.failed_tasks = 0
        self._come(user_state)
        if user_state.backoff_s:  # counts as a normal pause: failures of the endpoint cause it, not a busy client
            gevent.sleep(user_state.backoff_s)
        self._end_rest(user_state)
        # Another call of the user may already wait for the user's start in the ramp.
        if user_state.held and (wait_ns := user_state.due_ns - time.monotonic_ns()) > 0:
            gevent.sleep(wait_ns / _NS)
        if (permit := self._try_enter(user_state)) is not None:
            return permit
        # A user that waits for another reason, or that has paused, is not late.
        user_state.due_ns = user_state.behind_ns = 0
        while True:
            permit = self._try_enter(user_state)
            if permit is not None:
                return permit
            self._park(user_state)

    def rest(self, user_state: UserState, seconds: float) -> None:
        """Spend a user's pause before its next request at the gate.

        A stage that begins in the meantime finds the user present.
        """
        due_ns = time.monotonic_ns() - user_state.behind_ns + int(seconds * _NS)
        user_state.due_ns = user_state.behind_ns = 0
        if self.plan.load.is_open:  # the next arrival does not wait for a user
            gevent.sleep(max(0.0, (due_ns - time.monotonic_ns()) / _NS))
            return
        self._stay(user_state, due_ns)
        user_state.due_ns = max(due_ns, user_state.due_ns)

    def pause(self, user_state: UserState, seconds: float) -> None:
        """Spend a user's ``wait_time`` at the gate.

        What its task does after the pause is not part of it, so the next request is not due at the end of the pause.
        """
        if self.plan.load.is_open:
            gevent.sleep(seconds)
            return
        user_state.due_ns = 0
        self._stay(user_state, time.monotonic_ns() + int(seconds * _NS))
        user_state.due_ns = 0

    def _stay(self, user_state: UserState, until_ns: int) -> None:
        """Stay at the gate until this moment, and until the start of the user's first request in a stage."""
        self._come(user_state)
        self._start_waiting(user_state)
        try:
            while (wait_ns := max(until_ns, user_state.due_ns) - time.monotonic_ns()) > 0:
                gevent.sleep(wait_ns / _NS)
        finally:
            self._stop_waiting(user_state)

    def _come(self, user_state: UserState) -> None:
        if user_state not in self._came and not user_state.gone:
            self._came[user_state] = None
            self._report_ready()

    def reached(self, permit: Permit) -> None:
        """Note that the request has connected to the endpoint, so its stage is not given up."""
        if permit.plan.stage == self.plan.stage:
            self._reached = True

    def leave(
        self, permit: Permit, user_state: UserState, error_code: str | None, error_message: str | None = None
    ) -> None:
        """Process the end of a request, with any outcome."""
        self._unfinished -= 1
        (permit.measurement or self._measurement).ended(permit)
        if permit.begun:
            self._measurement.window.count(-1, time.monotonic_ns())
        if not permit.plan.load.is_open:
            user_state.in_flight -= 1
        if not self.plan.load.is_open and not user_state.resting and not user_state.in_flight and not user_state.gone:
            user_state.resting = True
            self._measurement.window.count_resting(+1, time.monotonic_ns())
        if error_code is None:
            user_state.backoff_s = user_state.task_backoff_s = 0.0
        else:
            user_state.backoff_s = min(BACKOFF_MOST_S, user_state.backoff_s * 2) or BACKOFF_FIRST_S
        if permit.plan.stage != self.plan.stage:
            if (earlier := self._earlier.get(permit.plan.stage)) is not None:
                earlier.unfinished -= 1
                self._report_if_ended(permit.plan.stage)
            return
        self._ended += 1
        self._failed_to_connect += error_code in _NOT_CONNECTED
        # Requests in flight may be connected, however many requests failed before them.
        if self._ended == self._failed_to_connect >= GIVE_UP_AFTER and not (self._reached or self.totals.given_up):
            self.totals.given_up = error_message or "no connection"
            self.end_measure()
        self._finish_if_over()
        self._look_for_users()

    def come(self, user_state: UserState) -> None:
        """Add a user that starts."""
        self._presence.come(user_state)

    def gone(self, user_state: UserState) -> None:
        """Remove a user that will not come back, so that the stage does not wait for it."""
        self._end_rest(user_state)
        user_state.gone = True
        self._presence.leave(user_state)
        self._stop_warming(user_state)
        self._came.pop(user_state, None)
        self._report_ready()
        self._look_for_users()

    def task_failed(self, user_state: UserState, what: str) -> float:
        """Note that a task of the user has raised ``what``. Return the pause for the user in seconds."""
        self._presence.fail(user_state, what)
        user_state.task_backoff_s = min(BACKOFF_MOST_S, user_state.task_backoff_s * 2) or BACKOFF_FIRST_S
        if user_state.failed_tasks >= MOST_FAILED_TASKS:
            self._stop_warming(user_state)
        self._look_for_users()
        return user_state.task_backoff_s

    def account(
        self, permit: Permit, start_ns: int, end_ns: int, stamps_ns: Sequence[int], *, ok: bool
    ) -> float | None:
        """Count a call that has ended, before its row exists. Return its ``window_share`` (``stage_measurement``)."""
        measurement: Measurement = permit.measurement or self._measurement
        # A request of an earlier stage was in flight in this one.
        if measurement is not self._measurement and start_ns and end_ns:
            self._measurement.window.add_call(start_ns, end_ns)
        return measurement.account(permit, start_ns, end_ns, stamps_ns, ok=ok)

    def gaps_of_stage(self, permit: Permit, model: str) -> DurationHistogram:
        """Return the histogram of the chunk gaps of a model in a request's stage."""
        measurement: Measurement = permit.measurement or self._measurement
        return measurement.samples.gaps(model)

    def add_lag(self, lag_s: float, own_s: float | None = None) -> None:
        """Add the delay of a short sleep's wake-up, and the process's own part of it (from the lag probe)."""
        if self._measurement.window.is_open:
            self._measurement.samples.add_lag(lag_s, own_s)

    @property
    def over(self) -> bool:
        """Return whether the stage has begun here and nothing is left to start or in flight."""
        return self.admitted and self.phase == IDLE

    @property
    def waiting(self) -> int:
        """Return the number of users that the gate holds back."""
        return len(self._waiting)

    @property
    def users_here(self) -> int:
        """Return the number of users that have reached the gate since the stage was announced and have not ended."""
        return len(self._came)

    @property
    def all_users_came(self) -> bool:
        """Return whether no further user will reach the gate for the announced stage."""
        return self._spawned and self.phase == RAMP and self.users_here >= self._presence.able

    @property
    def no_users_reason(self) -> str | None:
        """Return why no user reaches the gate for the announced stage, or None while one may."""
        if self.phase != RAMP or self._came or (self.plan.free and not self._spawned):
            return None
        return self._presence.why_no_user_comes()

    @property
    def in_flight(self) -> int:
        """Return the number of requests that were sent, or are about to be sent, and have not ended."""
        return self._measurement.window.in_flight

    @property
    def unfinished(self) -> int:
        """Return the number of requests that were admitted and have not ended, whether or not they were sent."""
        return self._unfinished

    @property
    def measured_s(self) -> float | None:
        """Return how long this process has been measuring in the stage, in seconds, or None before and after."""
        window = self._measurement.window
        return window.age_s(time.monotonic_ns()) if window.is_open else None

    @property
    def takes_more(self) -> bool:
        """Return whether more requests can start in the stage."""
        if self.phase == MEASURE:
            return self.quota is None or self._measured_started < self.quota
        return self.phase == WARMUP

    # Calls from the dispatcher of an open loop.

    def await_stage(self, user_state: UserState) -> StagePlan:
        """Wait at the gate until a stage begins that can start requests, and return its plan."""
        while user_state.stage != self.plan.stage or not self.takes_more:
            self._park(user_state)
        return self.plan

    def arrive(self, user_state: UserState, due_ns: int) -> Permit | None:
        """Return a permit for the request that is due at ``due_ns``, or None when the stage takes no more."""
        plan = self.plan
        while self.plan is plan and self.takes_more:
            user_state.due_ns = due_ns
            permit = self._try_enter(user_state)
            if permit is not None:
                return permit
            user_state.due_ns = 0
            self._park(user_state)
        return None

    def reschedule(self) -> None:
        """Make the dispatcher check again when its next arrival is due, because the schedule has changed."""
        self._border.set()

    def sleep_until(self, due_ns: Callable[[], int | None], early_ns: int) -> None:
        """Sleep until ``early_ns`` before the next arrival is due, or until nothing more can start in the stage.

        ``due_ns`` is called again when the schedule changes. It returns None if no arrival is left.
        """
        plan = self.plan
        while self.plan is plan and self.takes_more:
            moment_ns = due_ns()
            wait_ns = 0 if moment_ns is None else moment_ns - early_ns - time.monotonic_ns()
            if wait_ns <= 0:
                return
            self._border.clear()
            self._border.wait(wait_ns / _NS)

    def begin(self, permit: Permit) -> None:
        """Count a permit's request as in flight. It is sent at ``intended_ns`` at the earliest."""
        permit.begun = True
        self._measurement.window.count(+1, time.monotonic_ns())

    def follow(self, first: Permit) -> Permit:
        """Return a permit for a request that follows from one that an arrival has begun.

        The request is due now and does not count as an arrival.
        """
        self._unfinished += 1
        self.totals.started += 1
        self._control.on_start(self.plan.stage, False)
        self._sequence += 1
        permit = Permit(self.plan, self.phase, time.monotonic_ns(), self._sequence, measured=first.measured)
        permit.arrival = False
        permit.measurement = self._measurement
        if permit.measured:
            self._measurement.followed()
        self.begin(permit)
        return permit

    def linger(self) -> None:
        """Make the stage wait for an activity between two requests. ``depart`` ends the activity."""
        self._unfinished += 1

    def depart(self) -> None:
        """End an activity that ``linger`` announced."""
        self._unfinished -= 1
        self._finish_if_over()

    # Internal methods.

    def _park(self, user_state: UserState) -> None:
        """Wait until something has changed, and then until the user's own start time."""
        released = Event()
        user_state.releases.append(released)
        self._come(user_state)
        self._start_waiting(user_state)
        try:
            released.wait()
            wait_ns = user_state.due_ns - time.monotonic_ns()
            if wait_ns > 0:
                gevent.sleep(wait_ns / _NS)
        finally:
            user_state.releases.remove(released)
            self._stop_waiting(user_state)

    def _start_waiting(self, user_state: UserState) -> None:
        """Add the user, with one more call, to the users at the gate."""
        user_state.held += 1
        if user_state.held == 1:
            self._waiting[user_state] = None

    def _stop_waiting(self, user_state: UserState) -> None:
        user_state.held -= 1
        if not user_state.held:
            del self._waiting[user_state]

    def _try_enter(self, user_state: UserState) -> Permit | None:
        plan = self.plan
        if self.closed or self.phase in (IDLE, DRAIN) or not self._control.may_start():
            return None
        if not self._takes_part(user_state):
            return None
        if plan.free and (self.phase == RAMP or user_state.warmups_left):
            user_state.warmups_left = max(0, user_state.warmups_left - 1)
            return self._permit(user_state, RAMP if self.phase == RAMP else WARMUP)
        if self.phase == WARMUP:
            if plan.timed_warmup_s or user_state.in_flight:
                return self._permit(user_state, WARMUP)
            if not user_state.warmups_left:
                return None  # other users still have warm-up requests to start
            user_state.warmups_left -= 1
            self._warmups_left -= 1
            permit = self._permit(user_state, WARMUP)
            if not self._warmups_left:
                self._begin_measure()
            return permit
        if self.quota is not None:
            if self._measured_started >= self.quota:
                return None
            self._measured_started += 1
        permit = self._permit(user_state, MEASURE)
        self.totals.measured += 1
        now_ns = time.monotonic_ns()
        start_ns = now_ns if not plan.load.is_open else permit.intended_ns
        if not self._measurement.window.exists:
            self._end_in_time(start_ns)
        self._measurement.started(start_ns, now_ns)
        if self.quota is not None and self._measured_started == self.quota:
            self._measurement.end(start_ns)
        return permit

    def _takes_part(self, user_state: UserState) -> bool:
        """Return whether the stage has begun for this user."""
        plan = self.plan
        if not plan.free:
            return user_state.stage == plan.stage and self.phase != RAMP
        if self.phase == RAMP and self._spawned and user_state.stage < 0:
            return False  # all users are ready, so the stage is about to begin and the first request is measured
        if user_state.stage != plan.stage:
            user_state.stage = plan.stage
            user_state.warmups_left = plan.warmup_requests
        return True

    def _stop_warming(self, user_state: UserState) -> None:
        """Do not wait for the warm-up requests that the user has not started."""
        if user_state.stage != self.plan.stage or self.plan.free:
            return
        # The count is already 0 if the share was reduced in the meantime.
        self._warmups_left = max(0, self._warmups_left - user_state.warmups_left)
        user_state.warmups_left = 0
        if self.phase == WARMUP and not self.plan.timed_warmup_s and not self._warmups_left:
            self._begin_measure()

    def _look_for_users(self) -> None:
        """End the stage if none of its users can continue: all have left, or fail before they send a request."""
        plan = self.plan
        if self.phase == RAMP:
            if self.no_users_reason is not None:
                self._report_ready()
            return
        if not plan.load.is_open and self.phase in (WARMUP, MEASURE) and not self._unfinished:
            why = self._presence.why_no_user_comes(None if plan.free else plan.stage)
            if why is not None:  # leave the rest of the stage to other workers
                self.totals.no_users_reason = why
                self._warmups_left = 0
                if self.quota is not None:
                    self.quota = self._measured_started
                self.end_measure()

    def _end_rest(self, user_state: UserState) -> None:
        if user_state.resting:
            user_state.resting = False
            self._measurement.window.count_resting(-1, time.monotonic_ns())

    def _permit(self, user_state: UserState, phase: str) -> Permit:
        due_ns, behind_ns = user_state.due_ns, user_state.behind_ns
        user_state.due_ns = user_state.behind_ns = 0
        self._sequence += 1
        self._unfinished += 1
        self.totals.started += 1
        self._control.on_start(self.plan.stage, phase == MEASURE)
        permit = Permit(self.plan, phase, due_ns or time.monotonic_ns(), self._sequence, measured=phase == MEASURE)
        permit.measurement = self._measurement
        if not self.plan.load.is_open:
            user_state.in_flight += 1
            permit.behind_ns = 0 if due_ns else behind_ns
            self.begin(permit)
        return permit

    def _begin_measure(self) -> None:
        self.phase = MEASURE
        if self.quota is None:
            now_ns = time.monotonic_ns()
            start_ns = max(self.origin_ns, now_ns)
            self._end_in_time(start_ns)
            self._measurement.open(start_ns, now_ns)
        # Waiting users continue at once: a second ramp would lower the load inside the window.
        self.look_again()
        if self.quota == 0:
            self._finish_if_over()

    def _end_in_time(self, start_ns: int) -> None:
        """End measuring when its time is over, if the stage has one. Measuring began at ``start_ns``."""
        if self.plan.measure_s is not None:
            self._after(self.plan.measure_s + (start_ns - time.monotonic_ns()) / _NS, self.end_measure)

    def _finish_if_over(self) -> None:
        """Report the stage when nothing more will start and nothing is in flight."""
        if self._unfinished_here or self.phase in (IDLE, RAMP):
            return
        all_started = self.quota is not None and self._measured_started >= self.quota and not self._warmups_left
        if self.phase != DRAIN and not all_started:
            return
        self._cancel_timer()
        self._measurement.close(time.monotonic_ns())
        self._ended_early = self.phase == DRAIN and not self._quota_ended
        self.phase = IDLE
        self._report()

    def _report(self) -> None:
        self.totals.users_ended = self._presence.left
        self._on_finished(self._measurement.report(self._control.start_counters(), None if self.closed else self.quota))

    @property
    def _unfinished_here(self) -> int:
        """Return the number of requests of the present stage that have not ended."""
        if not self._earlier:
            return self._unfinished
        return self._unfinished - sum(earlier.unfinished for earlier in self._earlier.values())

    def _report_ready(self) -> None:
        if self.phase == RAMP:
            self._on_ready(self.plan.stage, len(self._came))

    def _after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = gevent.spawn_later(max(0.0, delay_s), action)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer is not gevent.getcurrent():
            timer.kill(block=False)
