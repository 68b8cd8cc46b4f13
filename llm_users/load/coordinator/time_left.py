"""Estimates of the time that a stage and the rest of a run still take, for the progress line.

The estimates assume that the latency stays as it is. It grows with the load, so a later stage can take longer.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_users.load.coordinator.stages import StageSpec
from llm_users.load.protocol.stage import StagePlan


def stage_left_s(plan: StagePlan, done: int, passed_s: float) -> float | None:
    """Return the rest of a stage that has measured for ``passed_s`` and has ``done`` measured requests, or None.

    The limit that is reached first counts: the time of the stage or the number of its requests.
    """
    left = [] if plan.measure_s is None else [plan.measure_s - passed_s]
    if plan.requests is not None and done:
        left.append((plan.requests - done) * passed_s / done)
    return max(0.0, min(left)) if left else None


def latency_s(plan: StagePlan, done: int, passed_s: float) -> float | None:
    """Return the mean latency in a closed loop by Little's law, or None if it is unknown."""
    return plan.load.concurrency * passed_s / done if done and not plan.load.is_open else None


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
