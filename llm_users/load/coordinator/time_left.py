"""Estimates of the time that a stage and the rest of a run still take, for the progress line.

The estimates assume that the latency stays as it is. It grows with the load, so a later stage can take longer. A closed
loop takes requests x cycle / users, where the cycle is the time of a user from one request to the next (Little's law).
The number of finished requests alone would give a wrong and unsteady rate at first: between two ends, nothing is
counted although all users are at work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llm_users.load.coordinator.stages import StageSpec
from llm_users.load.protocol.stage import StagePlan

_WAVES = 5
"""With this number of finished requests for each user, their rate is accurate to 20 % and limits the estimate. It
includes pauses that the cycle does not, such as those between the tasks of a locustfile."""


def stage_left_s(plan: StagePlan, done: int, passed_s: float, cycle_s: float | None = None) -> float | None:
    """Return the rest of a stage that has measured for ``passed_s`` and has ``done`` measured requests, or None.

    The limit that is reached first counts: the time of the stage or the number of its requests. ``cycle_s`` is the mean
    cycle of the finished requests, if it is known.
    """
    left = [] if plan.measure_s is None else [plan.measure_s - passed_s]
    if plan.requests is not None and (rate_per_s := _rate_per_s(plan, done, passed_s, cycle_s)):
        not_started = 0 if plan.load.is_open else plan.requests - done - plan.load.concurrency
        left.append(max(plan.requests / rate_per_s - passed_s, not_started / rate_per_s))
    return max(0.0, min(left)) if left else None


def latency_s(plan: StagePlan, done: int, passed_s: float, cycle_s: float | None = None) -> float | None:
    """Return the mean cycle of a user in a closed loop, or None if it is unknown."""
    rate_per_s = None if plan.load.is_open else _rate_per_s(plan, done, passed_s, cycle_s)
    return plan.load.concurrency / rate_per_s if rate_per_s else None


def _rate_per_s(plan: StagePlan, done: int, passed_s: float, cycle_s: float | None) -> float | None:
    """Return the requests per second of a stage, or None if they are unknown."""
    load = plan.load
    if load.rate_per_s is not None and load.ramp is None:
        return load.rate_per_s
    if not done or not passed_s > 0:
        return None
    if load.is_open or not cycle_s:
        return done / passed_s
    most_per_s = (done + load.concurrency) / passed_s if done >= _WAVES * load.concurrency else math.inf
    return min(load.concurrency / cycle_s, most_per_s)


def later_s(specs: Sequence[StageSpec], plan: StagePlan, latency: float | None) -> float | None:
    """Return how long the stages after that of ``plan`` take together, or None if it is unknown.

    All stages of a run have the same number of requests, time, warm-up and ramp, unless a stage has its own number.
    """
    total_s = 0.0
    for spec in specs:
        requests = spec.requests or plan.requests
        lengths = [] if plan.measure_s is None else [plan.measure_s]
        if requests is not None and spec.load.rate_per_s:
            lengths.append(requests / spec.load.rate_per_s)
        elif requests is not None and latency is not None:
            lengths.append(max(1.0, requests / max(1, spec.load.concurrency)) * latency)
        if not lengths:
            return None
        total_s += min(lengths) + plan.ramp_s + plan.warmup_s + plan.warmup_requests * (latency or 0.0)
    return total_s
