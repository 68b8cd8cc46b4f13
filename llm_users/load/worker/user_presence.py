"""The users of one worker: who is here, who has left, who cannot go on, and why.

``admission_gate`` asks it when nothing is in flight in a stage. It knows nothing of stages or requests.
"""

from __future__ import annotations

from llm_users.load.worker.permits import UserState

MOST_FAILED_TASKS = 5
"""Stages do not wait for a user whose tasks fail this many times in a row without one request. With the pauses between
them this takes 3 s."""


class UserPresence:
    """Counts users and remembers what happened to those that are missing."""

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
        """The user has ended. One that Locust has stopped is not missing."""
        if user_state in self._users:
            self._users.discard(user_state)
            self._left += not user_state.dismissed

    def fail(self, user_state: UserState, what: str) -> None:
        """A task of the user, or its ``on_start``, has raised: ``what`` names both."""
        user_state.failed_tasks += 1
        self._failure = what

    @property
    def left(self) -> int:
        """Users that have ended by themselves since the stage was announced."""
        return self._left

    @property
    def able(self) -> int:
        """Users that may come with a request."""
        return sum(user_state.failed_tasks < MOST_FAILED_TASKS for user_state in self._users)

    @property
    def empty(self) -> bool:
        return not self._users

    def why_no_user_comes(self, stage: int | None = None) -> str | None:
        """Why no user can send the next request (of this stage only); None while one can, or when nothing happened."""
        if any(
            user_state.failed_tasks < MOST_FAILED_TASKS and (stage is None or user_state.stage == stage)
            for user_state in self._users
        ):
            return None
        if self._failure is not None:
            return f"no user can send a request: {self._failure}"
        if self._left:
            return "all users have left (StopUser, or the end of their tasks)"
        return None
