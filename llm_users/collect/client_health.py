"""The client of a stage: its figures, and the verdict on whether it affected the figures of the stage itself.

The figures come from the workers' totals. The verdict has reasons and advice:

- ``ok``: the figures do not show a late client.
- ``strained``: the client was sometimes late, and it was the cause itself.
- ``disturbed``: the client was late because it did not get the CPU: other programs used it, the hypervisor gave it to
  another guest, or a CPU limit of the container throttled the client.
- ``saturated``: the client was late or at its limit and used 80 % of a core or more; or this machine ran out of file
  descriptors or ports for connections.
- None (an empty cell): the window was too short for a verdict.

The limits are calibrated against endpoints with known send times (docs/client-health.md). The verdict has three
guarantees: with ``ok``, the 99th percentile of the TTFT error is below 2 ms; below 80 % of a core, the verdict is
``saturated`` only when descriptors or ports ran out; when the process waited for a CPU, the advice is about the
machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llm_users.load.protocol.stage import StageTotals
from llm_users.quantile import DurationHistogram
from llm_users.record import COL, StageRecord

OK, STRAINED, DISTURBED, SATURATED = "ok", "strained", "disturbed", "saturated"


@dataclass(frozen=True, slots=True)
class _Limit:
    """The values of a column from which the client was late (strained) and very late (saturated)."""

    name: str
    strained_from: float
    saturated_from: float
    reason: str


_CPU = _Limit(COL.client_cpu_share_max, 0.80, 0.95, "CPU of the busiest process at {:.0%}")
_LAG = _Limit(COL.lag_p99_s, 0.002, 0.020, "timers were {:.4f} s late (p99)")
_QUEUE = _Limit(COL.queue_p99_s, 0.050, 0.250, "requests started {:.3f} s late (p99)")
_FORCED = _Limit(COL.forced_start_share, 0.20, 0.60, "{:.0%} of the requests started before the event loop was idle")
_LIMITS = (_CPU, _LAG, _QUEUE, _FORCED)
_COALESCED = (
    _Limit(COL.coalesced_share, 0.002, 0.020, "{:.1%} of the chunks were read together with an earlier one"),
    # A first chunk that waits unread until the second one arrives gets the timestamp of the second one: from 1 % on,
    # that is the p99 of the error.
    _Limit(COL.first_coalesced_share, 0.004, 0.008, "{:.1%} of the first chunks were read together with later ones"),
)

_LATE_S = 0.005
"""Lag in seconds from which the client can be the cause of coalesced chunks; servers also send several at once."""

_STEAL_FROM = 0.02
"""A hypervisor takes a core for some milliseconds at a time: from 1 % on, this affects the p99 of the lag."""

_OTHERS_FROM = 0.50
"""Limit for systems that do not report how long a process waited for a CPU: one busy program on two cores."""

_OTHERS_NAMED_FROM = 0.10
"""Below this share, a CPU limit of the container is the more likely reason why the client had to wait."""

_FEWEST_REQUESTS = 100
"""Minimum number of requests for a 99th percentile of ``queue_s``, which would otherwise be the maximum."""

_SHORTEST_S = 0.5
"""Shortest window in seconds: in a shorter one, the CPU share describes the burst in which the users start."""

FEWEST_LAGS = 100
"""Minimum number of probes for a 99th percentile, which would otherwise be the maximum. A window of 2 s has 100."""

_CROWDED_FROM = 0.25
"""CPU share of the other workers: half a core on a machine with two cores. Less does not make a worker wait."""

_COMFORTABLE_CPU_SHARE = 0.6


def verdict(stage: StageRecord) -> str | None:
    """Return the verdict on the client; None when the stage is too short for a verdict."""
    if stage.requests_client_limited:
        return SATURATED
    level = max((level for level, _ in _findings(stage)), default=0)
    if level == 0:
        return OK if stage.lag_p99_s is not None else None
    if _own_cpu(stage) >= _CPU.strained_from:
        return SATURATED if level == 2 else STRAINED
    # A late client was disturbed if it was late because it did not get the CPU.
    lag_s, own_s = stage.lag_p99_s, stage.lag_own_p99_s
    if (stage.steal_share or 0.0) >= _STEAL_FROM:
        return DISTURBED
    if lag_s is not None and own_s is not None:
        return DISTURBED if lag_s >= _LAG.strained_from and own_s < lag_s / 2 else STRAINED
    return DISTURBED if (stage.others_cpu_share or 0.0) >= _OTHERS_FROM else STRAINED


def reasons(stage: StageRecord) -> list[str]:
    """Return the reasons for the verdict as text, the most severe one first; empty when the verdict is ``ok``."""
    findings = sorted(_findings(stage), key=lambda finding: -finding[0])
    texts = [text for level, text in findings if level]
    if stage.requests_client_limited:
        texts.insert(
            0, f"{stage.requests_client_limited} requests found no free file descriptor or port on this machine"
        )
    if not texts or verdict(stage) != DISTURBED:
        return texts
    causes = []  # what used the CPU instead of the client, if it is known
    if (stage.steal_share or 0.0) >= _STEAL_FROM:
        causes.append(f"the hypervisor took {stage.steal_share:.0%} of the CPU")
    if stage.others_cpu_share is not None and stage.others_cpu_share >= _OTHERS_NAMED_FROM:
        causes.append(f"other programs used {stage.others_cpu_share:.0%} of the CPU")
    if stage.lag_p99_s is not None and stage.lag_own_p99_s is not None:
        causes.append(f"the client waited {stage.lag_p99_s - stage.lag_own_p99_s:.4f} s for a CPU (p99)")
    return [*causes, *texts]


def advice(stage: StageRecord, processes: int) -> str:
    """Return advice on how to prevent a late client; ``processes`` is the number of workers of the stage."""
    if stage.requests_client_limited:
        return "follow the advice in error_message of the rows with client_limit"
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
    return f"spread the starts (--llm-ramp) and remove slow code from the locustfile, or {more}"


def complaint(stage: StageRecord, processes: int) -> str:
    """Return one line about a stage whose verdict is not ``ok``: the most severe reasons, and advice."""
    causes = "; ".join(reasons(stage)[:3])
    return f"stage {stage.stage}: the client was {stage.health} ({causes}): {advice(stage, processes)}"


def _own_cpu(stage: StageRecord) -> float:
    """Return the CPU use of the busiest worker, in cores; 0 when the window is too short for this figure."""
    if stage.measure_s is not None and stage.measure_s < _SHORTEST_S:
        return 0.0
    return stage.client_cpu_share_max or 0.0


def _findings(stage: StageRecord) -> list[tuple[int, str]]:
    """Return (level from 0 to 2, text) for every figure of the stage that has enough data."""
    late = (stage.lag_p99_s or 0.0) >= _LATE_S or _own_cpu(stage) >= _CPU.strained_from
    skipped = set()
    if stage.measure_s is not None and stage.measure_s < _SHORTEST_S:
        skipped.add(_CPU)
    if 0 < stage.requests_measured < _FEWEST_REQUESTS:
        skipped.add(_QUEUE)
    findings = []
    for limit in _LIMITS + _COALESCED if late else _LIMITS:
        value = getattr(stage, limit.name)
        if value is not None and limit not in skipped:
            level = (value >= limit.strained_from) + (value >= limit.saturated_from)
            findings.append((level, limit.reason.format(value)))
    return findings


def fill_client(stage: StageRecord, totals: Sequence[StageTotals]) -> None:
    """Set the columns of the client's CPU, of other programs' CPU and of the lag, from the worst process for each."""
    active = [part for part in totals if part.window_s > 0]
    others_shares, steal_shares, crowded = [], [], set()
    for machine in {part.machine for part in active}:
        parts = [part for part in active if part.machine == machine]
        # As shares of all cores of the machine.
        used = [part.cpu_s / part.window_s / max(1, part.machine_cores) for part in parts]
        busy = [part.machine_busy_share for part in parts if part.machine_busy_share is not None]
        steal = [part.machine_steal_share for part in parts if part.machine_steal_share is not None]
        others = max(0.0, sum(busy) / len(busy) - sum(used)) if busy else None
        if others is not None:
            others_shares.append(others)
        if steal:
            steal_shares.append(sum(steal) / len(steal))
        if sum(used) - max(used) > max(_CROWDED_FROM, others or 0.0):
            crowded.add(machine)  # its workers wait for each other more than for other programs
    stage.client_cpu_s = sum(part.cpu_s for part in totals)
    stage.client_cpu_share_max = max((part.cpu_s / part.window_s for part in active), default=None)
    stage.others_cpu_share = max(others_shares, default=None)
    stage.steal_share = max(steal_shares, default=None)
    lags = []
    for part in totals:
        lag = DurationHistogram(part.lag_counts)
        if lag.total < FEWEST_LAGS:
            continue
        own = DurationHistogram(part.lag_own_counts)
        lag_s = lag.quantile(0.99)
        own_s = own.quantile(0.99) if own.total == lag.total else None
        if part.machine in crowded and own_s is not None:
            own_s = lag_s  # the process waited for another worker
        lags.append((lag_s, own_s))
    # Both values come from the same process, so that they can be compared.
    stage.lag_p99_s, stage.lag_own_p99_s = max(lags, key=lambda lag: lag[0], default=(None, None))
