"""What is sampled while a stage is measured on one load process: lags, chunk gaps, starts, its CPU.

Knows figures; nothing of phases, budgets or users.
"""

from __future__ import annotations

import time

from llm_users.plan import StageTotals
from llm_users.quantile import DurationHistogram


class StageSamples:
    """Of one stage."""

    def __init__(self, starts: tuple[int, int]) -> None:
        """``starts``: starts and forced starts of the process before the stage."""
        self._lag, self._gaps = DurationHistogram(), DurationHistogram()
        self._starts_before, self._forced_before = starts
        self._cpu_mark_s = 0.0
        self.cpu_s = 0.0
        """CPU of the process inside the window, as far as the window is over."""

    def mark_cpu(self) -> None:
        """The window opens now."""
        self._cpu_mark_s = time.process_time()

    def add_cpu(self) -> None:
        """The window closes now."""
        self.cpu_s += time.process_time() - self._cpu_mark_s

    def add_lag(self, lag_s: float) -> None:
        """How late a short sleep woke up."""
        self._lag.add(lag_s)

    def add_gaps(self, gaps_s: list[float]) -> None:
        """The chunk gaps of a request."""
        add = self._gaps.add
        for gap_s in gaps_s:
            add(gap_s)

    def fill(self, totals: StageTotals, starts: tuple[int, int]) -> None:
        """Put what was sampled into the worker's report; ``starts`` are those of the process by now."""
        totals.starts = starts[0] - self._starts_before
        totals.forced = starts[1] - self._forced_before
        totals.lag_counts = dict(self._lag.counts)
        totals.gap_counts = dict(self._gaps.counts)
