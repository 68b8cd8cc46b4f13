"""Samples of a stage on one worker: lags, chunk gaps, starts, CPU.

The module does not depend on phases, quotas or users.
"""

from __future__ import annotations

import time

from llm_users.load.protocol.stage import StageTotals
from llm_users.load.worker import machine_cpu
from llm_users.quantile import DurationHistogram


class StageSampler:
    """The samples of one stage."""

    def __init__(self, starts: tuple[int, int]) -> None:
        """Create empty samples. ``starts``: starts and forced starts of the process before the stage."""
        self._lag, self._lag_own, self._gaps = DurationHistogram(), DurationHistogram(), DurationHistogram()
        self._starts_before, self._forced_before = starts
        self._cpu_mark_s = 0.0
        self._machine_mark: machine_cpu.CpuTimes | None = None
        self._machine_s = 0.0  # observed time of the machine, over all parts of the window

    def mark_cpu(self) -> None:
        """Remember the CPU counters at the opening of the window."""
        self._cpu_mark_s = time.process_time()
        self._machine_mark = machine_cpu.cpu_times()

    def add_cpu(self, totals: StageTotals) -> None:
        """Add the CPU of this process and of the machine to the totals when the window closes."""
        totals.cpu_s += time.process_time() - self._cpu_mark_s
        totals.machine, totals.machine_cores = machine_cpu.identity(), machine_cpu.cores()
        before, after = self._machine_mark, machine_cpu.cpu_times()
        use = machine_cpu.cpu_use(before, after) if before is not None and after is not None else None
        if before is None or after is None or use is None:
            return
        part_s = after.clock_s - before.clock_s
        self._machine_s += part_s
        weight = part_s / self._machine_s  # 1 unless the window had earlier parts
        totals.machine_busy_share = _mixed(totals.machine_busy_share, use.busy_share, weight)
        totals.machine_steal_share = _mixed(totals.machine_steal_share, use.steal_share, weight)

    def add_lag(self, lag_s: float, own_s: float | None = None) -> None:
        """Add the delay of a short sleep's wake-up, and the part in which the process did not wait for a CPU."""
        self._lag.add(lag_s)
        if own_s is not None:
            self._lag_own.add(own_s)

    def add_gaps(self, gaps_s: list[float]) -> None:
        """Add the chunk gaps of a request."""
        add = self._gaps.add
        for gap_s in gaps_s:
            add(gap_s)

    def fill(self, totals: StageTotals, starts: tuple[int, int]) -> None:
        """Write the samples into the totals. ``starts``: the counters of the process now."""
        totals.starts = starts[0] - self._starts_before
        totals.forced = starts[1] - self._forced_before
        totals.lag_counts = dict(self._lag.counts)
        totals.lag_own_counts = dict(self._lag_own.counts)
        totals.gap_counts = dict(self._gaps.counts)


def _mixed(before: float | None, latest: float, weight: float) -> float:
    return latest if before is None else (1 - weight) * before + weight * latest
