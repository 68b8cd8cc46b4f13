"""Users at the admission gate: the permit to start one request, the state of a user, and which users are present.

``admission_gate`` has the rules. The module does not depend on stages or requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gevent.event import Event

from llm_users.load.protocol.stage import StagePlan

MOST_FAILED_TASKS = 5
"""Stages do not wait for a user whose tasks fail this many times in a row without a request. With the pauses between
them this takes 3 s."""


@dataclass(slots=True, eq=False)
class Permit:
    """Permission to start one request. ``AdmissionGate.enter`` gives it, ``AdmissionGate.leave`` takes it back."""

    plan: StagePlan
    phase: str
    intended_ns: int
    sequence: int
    measured: bool = field(kw_only=True)
    behind_ns: int = 0  # how long the user's last answer waited for its row before the user came
    held_ns: int = 0  # the part of the wait that --llm-max-in-flight caused
    prompt: Any = None  # the arrival's own prompt, if it has one
    measurement: Any = None  # the measurement of the request's stage
    begun: bool = False  # whether it counts among the requests in flight
    arrival: bool = True  # False: in an open loop, a request that follows from the request of an arrival


@dataclass(slots=True, eq=False)
class UserState:
    """The state of one user at the gate. A user may have several calls at once, waiting or in flight."""

    stage: int = -1
    warmups_left: int = 0
    due_ns: int = 0  # intended start of its next request; 0: as soon as it comes
    behind_ns: int = 0  # how long its last answer, after its end, waited for an idle event loop
    backoff_s: float = 0.0
    prompt: Any = None  # the prompt of its present permit
    releases: list[Event] = field(default_factory=list)  # one for each call that waits at the gate
    held: int = 0  # number of calls and pauses of the user at the gate
    in_flight: int = 0  # requests that have started and not ended
    resting: bool = False  # between two requests, in its own pause
    failed_tasks: int = 0  # failed tasks since its last call
    task_backoff_s: float = 0.0
    dismissed: bool = False  # Locust has told it to stop
    gone: bool = False

    def take_prompt(self) -> Any:
        """Return the present permit's own prompt once, or None if it has none."""
        prompt, self.prompt = self.prompt, None
        return prompt


class UserPresence:
    """Counts users and remembers what happened to missing ones."""

    def __init__(self) -> None:
        self._users: set[UserState] = set()
        self.left = 0
        """The number of users that have ended on their own since the stage was announced."""
        self._failure: str | None = None

    def begin_stage(self) -> None:
        """Forget what happened in earlier stages."""
        self.left, self._failure = 0, None
        for user_state in self._users:
            user_state.failed_tasks = 0

    def come(self, user_state: UserState) -> None:
        self._users.add(user_state)

    def leave(self, user_state: UserState) -> None:
        """Remove a user that has ended. A user that Locust has stopped does not count as missing."""
        if user_state in self._users:
            self._users.discard(user_state)
            self.left += not user_state.dismissed

    def fail(self, user_state: UserState, what: str) -> None:
        """Count a failed task or ``on_start`` of the user. ``what`` names the task and the exception."""
        user_state.failed_tasks += 1
        self._failure = what

    @property
    def able(self) -> int:
        """Return the number of users that may still send a request."""
        if self._failure is None:  # the gate calls this for each user that comes, and 10,000 can come together
            return len(self._users)
        return sum(user_state.failed_tasks < MOST_FAILED_TASKS for user_state in self._users)

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
        if self.left:
            return "all users have ended (StopUser, or the end of their tasks)"
        return None
