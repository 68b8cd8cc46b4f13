"""The state of a user at the admission gate, and the permit to start one request.

These classes contain only data; ``admission_gate`` has the rules.
"""

from __future__ import annotations

from typing import Any

from gevent.event import Event

from llm_users.load.protocol.stage import StagePlan


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
