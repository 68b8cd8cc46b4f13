"""The load processes of a run as they were at their last beat, and how well they are."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from llm_users.load.protocol.heartbeat import Beat
from llm_users.load.protocol.stage import MEASURE
from llm_users.quantile import DurationHistogram
from llm_users.record import StageRecord
from llm_users.web.cpu_lines import CpuLines
from llm_users.web.windows import WINDOW_TICKS, SlidingHistogram

SILENT_S = 5.0
"""A process that has not been heard of for so long counts no more: lost, or too busy to say anything."""

_BEATS_FOR_HEALTH = 5
"""Seconds of MEASURE before anything is said of the client: a start is busy, and 50 probes make no p99."""


class _Worker:
    def __init__(self) -> None:
        self.beat: Beat | None = None
        self.heard_s = 0.0
        self.lag = SlidingHistogram()
        self.lag_p99: float | None = None
        self.measuring: deque[Beat] = deque(maxlen=WINDOW_TICKS)


class Workers:
    """Load processes by their rank."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        self.cpu_lines = CpuLines()

    def add(self, beat: Beat) -> None:
        """One beat."""
        worker = self._workers.setdefault(beat.worker, _Worker())
        worker.beat = beat
        worker.heard_s = time.monotonic()
        worker.lag.merge(beat.lag)
        if beat.phase != MEASURE:
            worker.measuring.clear()
        else:
            worker.measuring.append(beat)

    def tick(self) -> None:
        """Another second is over."""
        for worker in self._workers.values():
            worker.lag.tick()
            worker.lag_p99 = worker.lag.quantiles((0.99,))[0]

    def in_stage(self, stage: int) -> Iterable[Beat]:
        """The last beats of those that are in this stage."""
        return [beat for _, beat in self._present() if beat.stage == stage]

    @property
    def in_flight(self) -> int:
        return sum(beat.in_flight for _, beat in self._present())

    @property
    def lag_p99(self) -> float | None:
        """Of the worst process."""
        return max((w.lag_p99 for w, _ in self._present() if w.lag_p99 is not None), default=None)

    @property
    def cpu_max(self) -> float | None:
        """Of the busiest process, share of a core."""
        return max((beat.cpu for _, beat in self._present()), default=None)

    def cpu_sample(self, now_s: float) -> dict[str, float | None]:
        """The CPU of each process as columns of a sample."""
        return self.cpu_lines.sample({beat.worker: beat.cpu for _, beat in self._present()}, now_s)

    def rows(self, names: Mapping[int, str]) -> list[dict[str, Any]]:
        """The processes for the page."""
        return [
            {
                "worker": beat.worker,
                "name": names.get(beat.worker, str(beat.worker)),
                "cpu": round(beat.cpu, 4),
                "lag_p99": worker.lag_p99,
                "in_flight": beat.in_flight,
            }
            for worker, beat in sorted(self._present(), key=lambda each: each[1].worker)
        ]

    def as_stage(self) -> StageRecord | None:
        """How the processes are now, in the figures by which a stage's health is judged; None while too early."""
        measuring = [w.measuring for w, _ in self._present() if len(w.measuring) >= _BEATS_FOR_HEALTH]
        if not measuring:
            return None
        lags: list[float] = []
        lags_own: list[float | None] = []
        for beats in measuring:
            lag, own = DurationHistogram(), DurationHistogram()
            for beat in beats:
                lag.merge(beat.lag)
                own.merge(beat.lag_own)
            lags.append(lag.quantile(0.99))
            lags_own.append(own.quantile(0.99) if own.total else None)
        shares = [sum(beat.cpu for beat in beats) / len(beats) for beats in measuring]
        worst = lags.index(max(lags))
        return StageRecord(client_cpu_share_max=max(shares), lag_p99_s=lags[worst], lag_own_p99_s=lags_own[worst])

    def __len__(self) -> int:
        return len(self._workers)

    def _present(self) -> list[tuple[_Worker, Beat]]:
        limit_s = time.monotonic() - SILENT_S
        return [(w, w.beat) for w in self._workers.values() if w.beat is not None and w.heard_s >= limit_s]
