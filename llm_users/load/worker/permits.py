"""What the admission gate knows of one user, and the permit that it gives to start one request.

Plain data; ``admission_gate`` has the rules.
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
        self.behind_ns = 0  # what its user lost before it came: its last answer waited here for its row
        self.held_ns = 0  # of the wait since then, that for a place among the requests in flight
        self.sequence = sequence
        self.prompt: Any = None  # the arrival's own, where it has one
        self.measurement: Any = None  # of the stage that the request belongs to
        self.begun = False  # it counts among the requests in flight
        self.arrival = True  # False: in an open loop, a request that follows from one that an arrival has begun


class UserState:
    """What the gate remembers of one user. It may have several calls at once, waiting or in flight."""

    __slots__ = (
        "backoff_s", "behind_ns", "dismissed", "due_ns", "failed_tasks", "gone", "held", "in_flight", "prompt",
        "releases", "resting", "stage", "task_backoff_s", "warmups_left",
    )  # fmt: skip

    def __init__(self) -> None:
        self.stage = -1
        self.warmups_left = 0
        self.due_ns = 0  # when its next request is meant to start; 0: as soon as it comes
        self.behind_ns = 0  # how long its last answer, read to its end, waited for an idle event loop
        self.backoff_s = 0.0
        self.prompt: Any = None  # of its present permit
        self.releases: set[Event] = set()  # one for each call that waits at the gate
        self.held = 0  # calls, and pauses of the user, that are at the gate: the user is present
        self.in_flight = 0  # requests that have started and not ended
        self.resting = False  # between two requests, in a pause of its own
        self.failed_tasks = 0  # since its last call
        self.task_backoff_s = 0.0
        self.dismissed = False  # Locust has told it to stop
        self.gone = False

    def take_prompt(self) -> Any:
        """The present permit's own prompt, once; None where it has none."""
        prompt, self.prompt = self.prompt, None
        return prompt
