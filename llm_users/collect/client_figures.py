"""The columns of a stage about its workers and their machines, from the workers' totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_users.load.protocol.stage import StageTotals
from llm_users.quantile import DurationHistogram
from llm_users.record import StageRecord

FEWEST_LAGS = 100
"""Fewer probes have no 99th percentile: it would be the worst of them. They are those of a window of 2 s."""

_CROWD_FROM = 0.25
"""Another worker at half a core, on two cores: less does not keep this one waiting."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """The workers of one machine in the window, as shares of all its cores."""

    own_share: float
    busiest_share: float
    """The busiest of these processes."""
    others_share: float | None
    steal_share: float | None

    @property
    def crowds_itself(self) -> bool:
        """The workers wait for each other more than for other programs."""
        return self.own_share - self.busiest_share > max(_CROWD_FROM, self.others_share or 0.0)


def fill_client(stage: StageRecord, totals: Sequence[StageTotals]) -> None:
    """Set the columns of the client's CPU, of other programs' CPU, and of the lag: each that of the worst process."""
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
        if part.machine in machines and machines[part.machine].crowds_itself and own_s is not None:
            own_s = lag_s  # what the process waited for was another worker
        lags.append((lag_s, own_s))
    # Both of the same process, so that they can be compared.
    stage.lag_p99_s, stage.lag_own_p99_s = max(lags, key=lambda lag: lag[0], default=(None, None))


def _by_machine(parts: Iterable[StageTotals]) -> dict[str, list[StageTotals]]:
    found: dict[str, list[StageTotals]] = defaultdict(list)
    for part in parts:
        found[part.machine].append(part)
    return found


def _machine(parts: Sequence[StageTotals]) -> _Machine:
    used = [part.cpu_s / part.window_s / max(1, part.machine_cores) for part in parts]
    busy = [part.machine_busy_share for part in parts if part.machine_busy_share is not None]
    steal = [part.machine_steal_share for part in parts if part.machine_steal_share is not None]
    others = max(0.0, sum(busy) / len(busy) - sum(used)) if busy else None
    return _Machine(sum(used), max(used), others, sum(steal) / len(steal) if steal else None)


def _largest(shares: Iterable[float | None]) -> float | None:
    return max((share for share in shares if share is not None), default=None)
