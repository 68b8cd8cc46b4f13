"""The workers of a run according to their last live metrics, and their health."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from llm_users.load.protocol.messages import LiveMetrics
from llm_users.load.protocol.stage import MEASURE
from llm_users.quantile import DurationHistogram
from llm_users.record import StageRecord
from llm_users.web.samples import WINDOW_TICKS, SlidingHistogram

SILENT_S = 5.0
"""A worker that has sent nothing for this long is omitted: it is lost or too busy."""

_REPORTS_FOR_HEALTH = 5
"""Seconds of MEASURE before the first verdict on the client: the start is busy, and 50 probes are too few for a p99."""


class _Worker:
    def __init__(self) -> None:
        self.metrics: LiveMetrics | None = None
        self.heard_s = 0.0
        self.lag = SlidingHistogram()
        self.lag_p99: float | None = None
        self.measuring: deque[LiveMetrics] = deque(maxlen=WINDOW_TICKS)


class Workers:
    """The workers by rank."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}

    def add(self, rank: int, metrics: LiveMetrics) -> None:
        """Add the live metrics of the worker with this rank."""
        worker = self._workers.setdefault(rank, _Worker())
        worker.metrics = metrics
        worker.heard_s = time.monotonic()
        worker.lag.merge(metrics.lag)
        if metrics.phase != MEASURE:
            worker.measuring.clear()
        else:
            worker.measuring.append(metrics)

    def tick(self) -> None:
        """End the present second."""
        for worker in self._workers.values():
            worker.lag.tick()
            worker.lag_p99 = worker.lag.quantiles((0.99,))[0]

    def in_stage(self, stage: int) -> Iterable[LiveMetrics]:
        """Return the last live metrics of the workers that are in this stage."""
        return [metrics for _, _, metrics in self._present() if metrics.stage == stage]

    @property
    def in_flight(self) -> int:
        return sum(metrics.in_flight for _, _, metrics in self._present())

    @property
    def lag_p99(self) -> float | None:
        """Return the p99 lag of the worst process."""
        return max((w.lag_p99 for _, w, _ in self._present() if w.lag_p99 is not None), default=None)

    def cpu(self) -> dict[str, float | None]:
        """Return the CPU of the busiest worker and the mean of several workers, as shares of a core."""
        shares = [metrics.cpu for _, _, metrics in self._present()]
        mean = sum(shares) / len(shares) if len(shares) > 1 else None
        return {"cpu_max": max(shares, default=None), "cpu_mean": mean}

    def rows(self, names: Mapping[int, str]) -> list[dict[str, Any]]:
        """Return the processes for the page."""
        return [
            {
                "worker": rank,
                "name": names.get(rank, str(rank)),
                "cpu": round(metrics.cpu, 4),
                "lag_p99": worker.lag_p99,
                "in_flight": metrics.in_flight,
            }
            for rank, worker, metrics in sorted(self._present(), key=lambda present: present[0])
        ]

    def as_stage(self) -> StageRecord | None:
        """Return the present state as a stage record, for the client health verdict, or None if it is too early."""
        measuring = [w.measuring for _, w, _ in self._present() if len(w.measuring) >= _REPORTS_FOR_HEALTH]
        if not measuring:
            return None
        lags: list[float] = []
        lags_own: list[float | None] = []
        for reports in measuring:
            lag, own = DurationHistogram(), DurationHistogram()
            for metrics in reports:
                lag.merge(metrics.lag)
                own.merge(metrics.lag_own)
            lags.append(lag.quantile(0.99))
            lags_own.append(own.quantile(0.99) if own.total else None)
        shares = [sum(metrics.cpu for metrics in reports) / len(reports) for reports in measuring]
        worst = lags.index(max(lags))
        return StageRecord(client_cpu_share_max=max(shares), lag_p99_s=lags[worst], lag_own_p99_s=lags_own[worst])

    def _present(self) -> list[tuple[int, _Worker, LiveMetrics]]:
        limit_s = time.monotonic() - SILENT_S
        return [
            (rank, worker, worker.metrics)
            for rank, worker in self._workers.items()
            if worker.metrics is not None and worker.heard_s >= limit_s
        ]
