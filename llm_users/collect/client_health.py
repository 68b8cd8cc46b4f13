"""Did the client itself change the figures? One verdict per stage, with reasons and advice.

- ``ok``: no sign of a late client.
- ``strained``: the client was late now and then, and the lateness was its own.
- ``disturbed``: the client was late because it did not get the CPU: other programs used it, the hypervisor gave it to
  another guest, or a CPU limit of the container held the client back.
- ``saturated``: the client was late or at its limit, and it used 80 % of a core or more itself; or this machine had no
  file descriptor or port left for another connection.
- None (an empty cell): the window was too short to tell.

The limits are calibrated against endpoints whose send times are known (docs/accuracy.md). The verdict keeps three
promises: where it is ``ok``, the 99th percentile of the TTFT error is below 2 ms; below 80 % of a core it is
``saturated`` only when descriptors or ports ran out; where the process waited for a CPU, the advice is about the
machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_users.record import StageRecord

OK, STRAINED, DISTURBED, SATURATED = "ok", "strained", "disturbed", "saturated"


@dataclass(frozen=True, slots=True)
class _Limit:
    """From which value on a figure of the stage says that the client was late, and from which on very late."""

    name: str
    strained_from: float
    saturated_from: float
    reason: str


_CPU = _Limit("client_cpu_share_max", 0.80, 0.95, "CPU of the busiest process at {:.0%}")
_LAG = _Limit("lag_p99_s", 0.002, 0.020, "sleeps woke up {:.4f} s late (p99)")
_QUEUE = _Limit("queue_p99_s", 0.050, 0.250, "requests started {:.3f} s late (p99)")
_FORCED = _Limit("forced_start_share", 0.20, 0.60, "{:.0%} of the starts found no quiet moment")
_LIMITS = (_CPU, _LAG, _QUEUE, _FORCED)
_COALESCED = (
    _Limit("coalesced_share", 0.002, 0.020, "{:.1%} of the chunks were read together with an earlier one"),
    # A first chunk that waits unread until the second comes gets its stamp: from 1 % on that is the p99 of the error.
    _Limit("first_coalesced_share", 0.004, 0.008, "{:.1%} of the first chunks were read together with later ones"),
)

_LATE_S = 0.005
"""Chunks that arrive together are the client's doing only when it was late itself; servers send several at once too."""

_STEAL_FROM = 0.02
"""A hypervisor takes a core for some milliseconds at a time: from 1 % on, that is in the p99 of the lag."""

_OTHERS_FROM = 0.50
"""Where the system does not say how long a process waited for a CPU: one program that needs a core, on two cores."""

_OTHERS_NAMED_FROM = 0.10
"""Below that, a CPU limit of the container is the likelier reason why the client had to wait."""

_FEWEST_REQUESTS = 100
"""Fewer requests have no 99th percentile of ``queue_s``: it would be the worst of them."""

_SHORTEST_S = 0.5
"""In a shorter window the CPU share is that of the burst in which the users start."""

_COMFORTABLE_CPU_SHARE = 0.6


def verdict(stage: StageRecord) -> str | None:
    """The verdict on the client; None when the stage is too short to tell."""
    if stage.requests_client_limited:
        return SATURATED
    level = max((level for level, _ in _findings(stage)), default=0)
    if level == 0:
        return OK if stage.lag_p99_s is not None else None
    if _own_cpu(stage) >= _CPU.strained_from:
        return SATURATED if level == 2 else STRAINED
    return DISTURBED if _was_disturbed(stage) else STRAINED


def reasons(stage: StageRecord) -> list[str]:
    """The reasons of the verdict in words, the gravest first; empty when it is ``ok``."""
    found = sorted(_findings(stage), key=lambda finding: -finding[0])
    said = [text for level, text in found if level]
    if stage.requests_client_limited:
        said.insert(
            0, f"{stage.requests_client_limited} requests found no free file descriptor or port on this machine"
        )
    return [*_disturbances(stage), *said] if said and verdict(stage) == DISTURBED else said


def advice(stage: StageRecord, processes: int) -> str:
    """What would have kept the client from being late; ``processes`` is the number of workers that it had."""
    if stage.requests_client_limited:
        return "do what error_message says in the rows with client_limit"
    health = verdict(stage)
    if health == DISTURBED:
        return (
            "stop other programs on the load machine, or use a quieter machine or dedicated cores for the client; "
            "check the CPU limits of its container"
        )
    share = _own_cpu(stage)
    needed = max(math.ceil(processes * share / _COMFORTABLE_CPU_SHARE), processes + 1)
    more = f"use --processes {needed} (or as many workers), or a lower concurrency"
    if share >= _CPU.strained_from:
        return more
    return f"spread the starts (--llm-ramp) and keep slow code out of the locustfile, or {more}"


def complaint(stage: StageRecord, processes: int) -> str:
    """One line about a stage in which the client was not ``ok``: the gravest reasons, and what would help."""
    why = "; ".join(reasons(stage)[:3])
    return f"stage {stage.stage}: the client was {stage.health} ({why}): {advice(stage, processes)}"


def _own_cpu(stage: StageRecord) -> float:
    """CPU of the busiest worker, in cores; 0 where the window is too short for that figure."""
    if stage.measure_s is not None and stage.measure_s < _SHORTEST_S:
        return 0.0
    return stage.client_cpu_share_max or 0.0


def _was_disturbed(stage: StageRecord) -> bool:
    """Of a late client: whether it was late because it did not get the CPU."""
    if (stage.steal_share or 0.0) >= _STEAL_FROM:
        return True
    lag_s, own_s = stage.lag_p99_s, stage.lag_own_p99_s
    if lag_s is not None and own_s is not None:
        return lag_s >= _LAG.strained_from and own_s < lag_s / 2
    return (stage.others_cpu_share or 0.0) >= _OTHERS_FROM


def _disturbances(stage: StageRecord) -> list[str]:
    """Who or what took the CPU, as far as it is known."""
    found = []
    if (stage.steal_share or 0.0) >= _STEAL_FROM:
        found.append(f"the hypervisor took {stage.steal_share:.0%} of the CPU")
    lag_s, own_s = stage.lag_p99_s, stage.lag_own_p99_s
    if stage.others_cpu_share is not None and stage.others_cpu_share >= _OTHERS_NAMED_FROM:
        found.append(f"other programs used {stage.others_cpu_share:.0%} of the CPU")
    if lag_s is not None and own_s is not None:
        found.append(f"the client waited {lag_s - own_s:.4f} s for a CPU (p99)")
    return found


def _findings(stage: StageRecord) -> list[tuple[int, str]]:
    """(0 to 2, words) for each figure of the stage that is known well enough."""
    late = (stage.lag_p99_s or 0.0) >= _LATE_S or _own_cpu(stage) >= _CPU.strained_from
    skipped = set()
    if stage.measure_s is not None and stage.measure_s < _SHORTEST_S:
        skipped.add(_CPU)
    if 0 < stage.requests_measured < _FEWEST_REQUESTS:
        skipped.add(_QUEUE)
    found = []
    for limit in _LIMITS + _COALESCED if late else _LIMITS:
        value = getattr(stage, limit.name)
        if value is not None and limit not in skipped:
            level = (value >= limit.strained_from) + (value >= limit.saturated_from)
            found.append((level, limit.reason.format(value)))
    return found
