"""The lag probe: how late a short sleep wakes up says how busy this process's event loop is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import gevent

from llm_users.transport.clock import now_ns

PERIOD_S = 0.02
"""50 samples a second: enough for a p99 within a stage of a few seconds, 0.05 % of a core."""


_KEPT = 50
"""Samples that ``worst_s`` looks back over: one second."""


class LagProbe:
    """Reports the lateness of each of its sleeps, in seconds, while it runs."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._recent: deque[tuple[int, float]] = deque(maxlen=_KEPT)  # when a sleep ended, and how late

    def worst_s(self, since_ns: int) -> float:
        """The longest lateness of the sleeps that ended since this moment of the monotonic clock, at most 1 s ago."""
        return max((lag_s for woke_ns, lag_s in self._recent if woke_ns >= since_ns), default=0.0)

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
            self._greenlet = None

    def _run(self) -> None:
        while True:
            asleep_ns = now_ns()
            gevent.sleep(PERIOD_S)
            woke_ns = now_ns()
            lag_s = max(0.0, (woke_ns - asleep_ns) / 1e9 - PERIOD_S)
            self._recent.append((woke_ns, lag_s))
            self._report(lag_s)
