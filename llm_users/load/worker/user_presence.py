"""The users of one worker: which are present, have left, or cannot continue, and why.

``admission_gate`` uses it when no request of a stage is in flight. The module does not depend on stages or requests.
"""

from __future__ import annotations

from llm_users.load.worker.permits import UserState

MOST_FAILED_TASKS = 5
"""Stages do not wait for a user whose tasks fail this many times in a row without a request. With the pauses between
them this takes 3 s."""


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
