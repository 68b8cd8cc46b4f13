"""Users at the admission gate: the permit to start one request, the state of a user, and which users are present.

``admission_gate`` has the rules. The module does not depend on stages or requests.
"""

from __future__ import annotations

from typing import Any

from gevent.event import Event

from llm_users.load.protocol.stage import StagePlan

MOST_FAILED_TASKS = 5
"""Stages do not wait for a user whose tasks fail this many times in a row without a request. With the pauses between
them this takes 3 s."""


class Permit:
    """Permission to start one request. ``AdmissionGate.enter`` gives it, ``AdmissionGate.leave`` takes it back."""

    __slots__ = (
        "arrival", "begun", "behind_ns", "held_ns", "intended_ns", "measured", "measurement", "phase", "plan", "prompt",
        "sequence",
    )  # fmt: skip

    def __init__(self, plan: StagePlan, phase: str, intended_ns: int, sequence: int, *, measured: bool) -> None:
        self.plan = plan
        self.phase = phase
        self.measured = measured
        self.intended_ns = intended_ns
        self.behind_ns = 0  # how long the user's last answer waited for its row before the user came
        self.held_ns = 0  # the part of the wait that --llm-max-in-flight caused
        self.sequence = sequence
        self.prompt: Any = None  # the arrival's own prompt, if it has one
        self.measurement: Any = None  # the measurement of the request's stage
        self.begun = False  # whether it counts among the requests in flight
        self.arrival = True  # False: in an open loop, a request that follows from the request of an arrival


class UserState:
    """The state of one user at the gate. A user may have several calls at once, waiting or in flight."""

    __slots__ = (
        "backoff_s", "behind_ns", "dismissed", "due_ns", "failed_tasks", "gone", "held", "in_flight", "prompt",
        "releases", "resting", "stage", "task_backoff_s", "warmups_left",
    )  # fmt: skip

    def __init__(self) -> None:
        self.stage = -1
        self.warmups_left = 0
        self.due_ns = 0  # intended start of its next request; 0: as soon as it comes
        self.behind_ns = 0  # how long its last answer, after its end, waited for an idle event loop
        self.backoff_s = 0.0
        self.prompt: Any = None  # the prompt of its present permit
        self.releases: set[Event] = set()  # one for each call that waits at the gate
        self.held = 0  # number of calls and pauses of the user at the gate
        self.in_flight = 0  # requests that have started and not ended
        self.resting = False  # between two requests, in its own pause
        self.failed_tasks = 0  # failed tasks since its last call
        self.task_backoff_s = 0.0
        self.dismissed = False  # Locust has told it to stop
        self.gone = False

    def take_prompt(self) -> Any:
        """Return the present permit's own prompt once, or None if it has none."""
        prompt, self.prompt = self.prompt, None
        return prompt


class UserPresence:
    """Counts users and remembers what happened to missing ones."""

    def __init__(self) -> None:
        self._users: set[UserState] = set()
        self._left = 0
        self._failure: str | None = None

    def begin_stage(self) -> None:
        """Forget what happened in earlier stages."""
        self._left, self._failure = 0, None
        for user_state in self._users:
            user_state.failed_tasks = 0

    def come(self, user_state: UserState) -> None:
        self._users.add(user_state)

    def leave(self, user_state: UserState) -> None:
        """Remove a user that has ended. A user that Locust has stopped does not count as missing."""
        if user_state in self._users:
            self._users.discard(user_state)
            self._left += not user_state.dismissed

    def fail(self, user_state: UserState, what: str) -> None:
        """Count a failed task or ``on_start`` of the user. ``what`` names the task and the exception."""
        user_state.failed_tasks += 1
        self._failure = what

    @property
    def left(self) -> int:
        """Return the number of users that have ended on their own since the stage was announced."""
        return self._left

    @property
    def able(self) -> int:
        """Return the number of users that may still send a request."""
        return sum(user_state.failed_tasks < MOST_FAILED_TASKS for user_state in self._users)

    @property
    def empty(self) -> bool:
        return not self._users

    def why_no_user_comes(self, stage: int | None = None) -> str | None:
        """Return why no user can send the next request (of this stage only), or None while one can.

        Also None if no user failed or left.
        """
        if any(
            user_state.failed_tasks < MOST_FAILED_TASKS and (stage is None or user_state.stage == stage)
            for user_state in self._users
        ):
            return None
        if self._failure is not None:
            return f"no user can send a request: {self._failure}"
        if self._left:
            return "all users have ended (StopUser, or the end of their tasks)"
        return None
