"""The messages' description of a stage: its plan before it runs, and its totals afterwards.

States of a stage on a worker (``load.worker.admission_gate``)::

    IDLE ---STAGE arrives---> RAMP ---GO, with a warm-up---> WARMUP
      ^                         |                              |  the last counted warm-up request starts,
      |                         |                              |  or the time of the warm-up is over
      |                         +---GO, without a warm-up---> MEASURE
      |                                                        |  the measuring time is over, END or FINISH arrives,
      |                                                        |  no user can continue, or no request can connect
      +---the last request in flight ends (DONE is sent)---- DRAIN

    RAMP     Users come to the admission gate and wait. Without a sweep (``free``) their requests pass, unmeasured.
    WARMUP   Requests start and are not measured. With ``ramp_s`` the first requests of the users are spread over it.
    MEASURE  Requests start and are measured. A stage with a quota returns from here to IDLE, without DRAIN, when its
             last measured request has ended.
    DRAIN    Nothing starts; requests in flight continue.
    IDLE     Nothing is to be done. QUOTA with a larger share returns the stage to MEASURE, unless time or END ended it.
             A worker without users goes from RAMP through DRAIN to IDLE when GO arrives.

States of a stage on the coordinator (``load.coordinator.coordinator``)::

    announced ---every expected worker has sent READY and all users came,---> running
        |        or GATHER_S is over (GO is sent)                                |
        |                                                                        |  the budget, a search or the run time
        |  no user can come (the run ends)                                       |  ends it early (END is sent)
        v                                                                        v
      (end)  <---no stage is left (FINISH is sent)--- closed <---all DONE--- ending
                                                        |
                                                        +---the next stage---> announced

    Unless something ends it early, a stage goes from running to closed: each worker ends its own part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from llm_users.distributions import ArrivalGap
from llm_users.load.protocol.arrivals import arrival_times_s, ramp_times_s
from llm_users.record import StageLoad

Phase = Literal["idle", "ramp", "warmup", "measure", "drain"]
PHASES: tuple[Phase, ...] = get_args(Phase)
IDLE, RAMP, WARMUP, MEASURE, DRAIN = PHASES
"""The phases of a stage, on each worker and for the whole run."""

Whole = Annotated[int, Meta(ge=0, le=2**53)]
Number = Annotated[float, Meta(ge=-1e15, le=1e15)]
"""A finite number. The bounds exclude NaN too."""
Seconds = Annotated[float, Meta(ge=0, le=1e15)]
MOST_BUCKETS = 20_000
"""Maximum buckets of a ``DurationHistogram``: durations up to 7 years. One second of values rarely has more than a few
hundred."""
Bucket = Annotated[int, Meta(ge=-1, le=MOST_BUCKETS)]
Histogram = Annotated[dict[Bucket, Whole], Meta(max_length=MOST_BUCKETS)]
"""Bucket counts of a ``DurationHistogram``."""
MOST_GAP_MODELS = 1000
"""Maximum models of a stage that have a histogram of chunk gaps of their own."""


class StagePlan(msgspec.Struct, frozen=True):
    """The description of a stage that a worker receives before the stage's users spawn. Times are in seconds."""

    stage: Whole
    load: StageLoad
    """Load over all workers. Its users are the requested users at first, and from GO on the users that were ready."""
    worker: Whole = 0
    workers: Whole = 1
    ramp_s: Seconds = 0.0
    warmup_requests: Whole = 0
    warmup_s: Seconds = 0.0
    measure_s: Seconds | None = None
    requests: Whole | None = None
    """Measured requests of the stage over all workers. None: as many as fit into ``measure_s``."""
    free: bool = False
    """True without a sweep: users come and go as Locust decides, and no request is held back."""
    concurrency_asked: Whole | None = None
    """Requested users, without users of classes that send no LLM requests. None: unknown, or open loop."""
    place: Whole = 0
    """The index of this worker among the workers of the stage, from 0. ``worker`` is its rank in the run."""
    max_in_flight: Whole | None = None
    """Requests that this worker may have in flight in an open loop. None: no limit."""

    @property
    def users(self) -> int:
        """Return the number of Locust users over all workers. An open loop has one dispatcher per worker."""
        return self.workers if self.load.is_open else self.load.concurrency

    @property
    def timed_warmup_s(self) -> float:
        """Return the length of a timed warm-up, or 0 if counted requests end the warm-up or if there is none.

        The warm-up lasts at least as long as the ramp, so that all users run when measuring begins.
        """
        ramp_s = 0.0 if self.warmup_requests else self.ramp_s
        return max(self.warmup_s, ramp_s)


class StageTotals(msgspec.Struct):
    """A worker's report at the end of its part of a stage. The worker fills it while the stage runs."""

    stage: Whole
    worker: Whole
    users: Whole = 0
    started: Whole = 0
    measured: Whole = 0
    window_s: Number = 0.0
    windows: Annotated[list[tuple[Number, Seconds]], Meta(max_length=10_000)] = []
    """Start and length in seconds of each part of the window, on the worker's monotonic clock. Starts count from the
    moment when the worker received GO, so the clocks of the machines need not agree. There is one more part each time
    that the worker takes over requests of others."""
    widened: Whole = 0
    """1 if the window was too short and stayed open until the last measured request had ended."""
    cpu_s: Number = 0.0
    in_flight_s: Number = 0.0  # integral of the requests in flight over the window
    load_s: Number = 0.0  # integral over the window of the users inside a call or in their own pause
    present_s: Number = 0.0  # integral over the window of the users in a request or between two
    sent: Whole = 0
    """Measured requests that were really sent. In an open loop, only requests that began with an arrival."""
    first_sent_s: Number | None = None  # when the first of them was sent, counted like the windows
    last_sent_s: Number | None = None
    told_at: Number = 0.0  # unix s on the coordinator's clock: when it sent GO; 0: unknown
    starts: Whole = 0
    forced: Whole = 0
    measure_started_at: Number | None = None  # unix s
    lag_counts: Histogram = {}
    gap_counts: Annotated[dict[str, Histogram], Meta(max_length=MOST_GAP_MODELS)] = {}  # by model
    given_up: str | None = None  # why the stage ended early: no request could connect
    users_ended: Whole = 0  # users that have ended on their own since the stage was announced
    no_users_reason: str | None = None  # why the stage ended early: no user of this worker could continue
    lag_own_counts: Histogram = {}  # lags without the wait for a CPU; empty: unknown
    machine: str = ""  # identity of the machine, equal for all its workers
    machine_cores: Whole = 0
    machine_busy_share: Number | None = None  # share of all its cores over the window; None: unknown
    machine_steal_share: Number | None = None
    quota: Whole | None = None  # the share that it had received; None: no share, or the worker leaves


def arrival_times_of(
    plan: StagePlan, arrivals: ArrivalGap, seed: int, trace_times_s: Sequence[float] | None
) -> Iterable[float]:
    """Return all arrivals of an open loop's stage, over all workers, in seconds from its origin.

    The trace gives them if there is one. Otherwise each worker draws the same ones from the seed.
    """
    if trace_times_s is not None:
        return trace_times_s[: plan.requests]
    assert plan.load.rate_per_s is not None
    name = f"{seed}:{plan.stage}:arrivals"
    if plan.load.ramp is None:
        return arrival_times_s(arrivals, plan.load.rate_per_s, name)
    assert plan.measure_s is not None
    warmup = plan.warmup_requests * plan.workers
    return ramp_times_s(arrivals, plan.load.ramp, plan.measure_s, name, warmup=warmup, warmup_s=plan.timed_warmup_s)
