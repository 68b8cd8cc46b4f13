"""What coordinator and load processes tell each other about a stage: its plan before, its totals after.

Plain data that travels; knows nothing of how either is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_users.record import StageLoad

IDLE, RAMP, WARMUP, MEASURE, DRAIN = "idle", "ramp", "warmup", "measure", "drain"
"""The phases of a stage, on each worker and for the whole run."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a worker is told about a stage before its users are spawned. Times in seconds."""

    stage: int
    load: StageLoad
    """Over all workers. Its users are first those that were asked for, and from the word to start on those that
    came."""
    worker: int = 0
    workers: int = 1
    ramp_s: float = 0.0
    warmup_requests: int = 0
    warmup_s: float = 0.0
    measure_s: float | None = None
    requests: int | None = None
    """Measured requests of the stage over all workers; None: as many as fit into ``measure_s``."""
    free: bool = False
    """True without a sweep: users come and go as Locust says, nothing is held back."""
    concurrency_asked: int | None = None
    """Users that were asked for, those of classes that send no LLM requests left out; None: unknown, or open loop."""
    place: int = 0
    """This worker's place among those of the stage, from 0; ``worker`` is its rank in the run."""
    max_in_flight: int | None = None
    """Requests that this worker may have in flight at a time in an open loop; None: as many as arrive."""

    @property
    def users(self) -> int:
        """Locust users over all workers: those of a closed loop; in an open loop one dispatcher per worker."""
        return self.workers if self.load.is_open else self.load.concurrency

    @property
    def timed_warmup_s(self) -> float:
        """How long the warm-up lasts where a time ends it; 0 where counted requests do, or where there is none.

        It lasts as long as the ramp at least, so that all users run when measuring begins.
        """
        ramp_s = 0.0 if self.warmup_requests else self.ramp_s
        return max(self.warmup_s, ramp_s)


def plan_from(data: Mapping[str, Any]) -> StagePlan:
    """The plan in a message's fields."""
    return StagePlan(**{**data, "load": StageLoad(**data["load"])})


@dataclass(slots=True)
class StageTotals:
    """What a worker reports when its part of a stage is over. Travels as a dictionary."""

    stage: int
    worker: int
    users: int = 0
    started: int = 0
    measured: int = 0
    window_s: float = 0.0
    windows: list[list[float]] = field(default_factory=list)
    """Start and length in seconds of each part of the window, on the worker's monotonic clock. Starts count from the
    moment when the worker heard that the stage begins, so the clocks of the machines need not agree."""
    widened: int = 0
    """1: the window was too short and stayed open until the last measured request had ended."""
    cpu_s: float = 0.0
    in_flight_s: float = 0.0  # integral of the requests in flight over the window
    load_s: float = 0.0  # integral over the window of the users inside a call or in a pause of their own
    present_s: float = 0.0  # integral over the window of the users in a request or between two
    sent: int = 0
    """Measured requests that were really sent; in an open loop those that began with an arrival."""
    first_sent_s: float | None = None  # when the first of them was, counted like the windows
    last_sent_s: float | None = None
    told_at: float = 0.0  # unix s on the coordinator's clock: when it said that the stage begins; 0: unknown
    starts: int = 0
    forced: int = 0
    measure_started_at: float | None = None  # unix s
    lag_counts: dict[int, int] = field(default_factory=dict)
    gap_counts: dict[int, int] = field(default_factory=dict)
    given_up: str | None = None  # why the stage was ended early: nobody could connect
    users_ended: int = 0  # users that have ended by themselves since the stage was announced
    no_users_reason: str | None = None  # why the stage was ended early: no user of this process could go on
    lag_own_counts: dict[int, int] = field(default_factory=dict)  # the same without waiting for a CPU; empty: unknown
    machine: str = ""  # the same for all workers of a machine
    machine_cores: int = 0
    machine_busy_share: float | None = None  # of all its cores over the window; None: unknown
    machine_steal_share: float | None = None
    quota: int | None = None  # the share that it knew of; None: none, or the process leaves
