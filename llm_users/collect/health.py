"""Was the client itself the limit? One verdict per stage, ok, strained or saturated, with reasons and advice.

The limits are calibrated against a native endpoint whose send times are known (docs/accuracy.md): where the verdict
is ``ok``, the p99 of the TTFT error stayed under 2 ms; wherever it was above 10 ms, the verdict was ``saturated``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_users.record import StageRecord

OK, STRAINED, SATURATED = "ok", "strained", "saturated"
_ORDER = (OK, STRAINED, SATURATED)


@dataclass(frozen=True, slots=True)
class _Limit:
    """From where on a figure of the stage strains, and from where on it saturates."""

    name: str
    strained_from: float
    saturated_from: float
    reason: str


_LIMITS = (
    _Limit("client_cpu_share_max", 0.80, 0.95, "CPU of the busiest process at {:.0%}"),
    _Limit("lag_p99_s", 0.002, 0.020, "sleeps woke up {:.4f} s late (p99)"),
    _Limit("queue_p99_s", 0.050, 0.250, "requests started {:.3f} s late (p99)"),
    _Limit("forced_start_share", 0.20, 0.60, "{:.0%} of the starts found no quiet moment"),
)
_COALESCED = (
    _Limit("coalesced_share", 0.002, 0.020, "{:.1%} of the chunks were read together with an earlier one"),
    # A first chunk that waits unread until the second comes gets its stamp: from 1 % on that is the p99 of the error.
    _Limit("first_coalesced_share", 0.004, 0.008, "{:.1%} of the first chunks were read together with later ones"),
)

_LATE_S = 0.005
"""Chunks that arrive together are the client's doing only when it was late itself; servers send several at once too."""

_COMFORTABLE_CPU_SHARE = 0.6


def verdict(stage: StageRecord) -> str:
    """The worst of the limits that the stage's figures pass."""
    return _ORDER[max((level for level, _ in _findings(stage)), default=0)]


def reasons(stage: StageRecord) -> list[str]:
    """What speaks against the client, in words, the worst first; empty when it was ok."""
    found = sorted(_findings(stage), key=lambda finding: -finding[0])
    return [text for level, text in found if level]


def advice(stage: StageRecord, processes: int) -> str:
    """How many load processes would have carried the stage comfortably."""
    share = stage.client_cpu_share_max or 0.0
    needed = math.ceil(processes * share / _COMFORTABLE_CPU_SHARE)
    return f"use --processes {max(needed, processes + 1)} (or as many workers), or a lower concurrency"


def complaint(stage: StageRecord, processes: int) -> str:
    """One line about a stage in which the client was not ``ok``: the gravest reasons, and what would help."""
    why = "; ".join(reasons(stage)[:3])
    return f"stage {stage.stage}: the client was {stage.health} ({why}): {advice(stage, processes)}"


def _findings(stage: StageRecord) -> list[tuple[int, str]]:
    late = (stage.lag_p99_s or 0.0) >= _LATE_S or (stage.client_cpu_share_max or 0.0) >= _LIMITS[0].strained_from
    limits = _LIMITS + _COALESCED if late else _LIMITS
    found = []
    for limit in limits:
        value = getattr(stage, limit.name)
        if value is not None:
            level = (value >= limit.strained_from) + (value >= limit.saturated_from)
            found.append((level, limit.reason.format(value)))
    return found
