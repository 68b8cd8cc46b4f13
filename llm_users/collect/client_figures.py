"""Calculates the columns of a stage about its workers and their machines from the workers' totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_users.load.protocol.stage import StageTotals
from llm_users.quantile import DurationHistogram
from llm_users.record import StageRecord

FEWEST_LAGS = 100
"""Minimum number of probes for a 99th percentile, which would otherwise be the maximum. A window of 2 s has 100."""

_CROWDED_FROM = 0.25
"""CPU share of the other workers: half a core on a machine with two cores. Less does not make a worker wait."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """CPU use of the workers of one machine in the window, as shares of all its cores."""

    own_share: float
    busiest_share: float
    """CPU share of the busiest worker."""
    others_share: float | None
    steal_share: float | None

    @property
    def is_crowded(self) -> bool:
        """True when the workers wait for each other more than for other programs."""
        return self.own_share - self.busiest_share > max(_CROWDED_FROM, self.others_share or 0.0)


def fill_client(stage: StageRecord, totals: Sequence[StageTotals]) -> None:
    """Set the columns of the client's CPU, of other programs' CPU and of the lag, from the worst process for each."""
    active = [part for part in totals if part.window_s > 0]
    machines = {name: _machine(parts) for name, parts in _by_machine(active).items()}
    stage.client_cpu_s = sum(part.cpu_s for part in totals)
    stage.client_cpu_share_max = max((part.cpu_s / part.window_s for part in active), default=None)
    stage.others_cpu_share = _largest(machine.others_share for machine in machines.values())
    stage.steal_share = _largest(machine.steal_share for machine in machines.values())
    lags = []
    for part in totals:
        lag = DurationHistogram(part.lag_counts)
        if lag.total < FEWEST_LAGS:
            continue
        own = DurationHistogram(part.lag_own_counts)
        lag_s = lag.quantile(0.99)
        own_s = own.quantile(0.99) if own.total == lag.total else None
        if part.machine in machines and machines[part.machine].is_crowded and own_s is not None:
            own_s = lag_s  # the process waited for another worker
        lags.append((lag_s, own_s))
    # Both values come from the same process, so that they can be compared.
    stage.lag_p99_s, stage.lag_own_p99_s = max(lags, key=lambda lag: lag[0], default=(None, None))


def _by_machine(parts: Iterable[StageTotals]) -> dict[str, list[StageTotals]]:
    by_machine: dict[str, list[StageTotals]] = defaultdict(list)
    for part in parts:
        by_machine[part.machine].append(part)
    return by_machine


def _machine(parts: Sequence[StageTotals]) -> _Machine:
    used = [part.cpu_s / part.window_s / max(1, part.machine_cores) for part in parts]
    busy = [part.machine_busy_share for part in parts if part.machine_busy_share is not None]
    steal = [part.machine_steal_share for part in parts if part.machine_steal_share is not None]
    others = max(0.0, sum(busy) / len(busy) - sum(used)) if busy else None
    return _Machine(sum(used), max(used), others, sum(steal) / len(steal) if steal else None)


def _largest(shares: Iterable[float | None]) -> float | None:
    return max((share for share in shares if share is not None), default=None)
