"""The lag probe: how late a short sleep wakes up says how busy this process's event loop is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import gevent

from llm_users.transport.clock import now_ns

PERIOD_S = 0.02
"""50 samples a second: enough for a p99 within a stage of a few seconds, 0.05 % of a core."""


_KEPT = 50
"""Samples that ``worst_lately_s`` looks back over: one second."""


class LagProbe:
    """Reports the lateness of each of its sleeps, in seconds, while it runs."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._recent: deque[float] = deque(maxlen=_KEPT)

    def worst_lately_s(self) -> float:
        """The longest lateness in the last second."""
        return max(self._recent, default=0.0)

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
            lag_s = max(0.0, (now_ns() - asleep_ns) / 1e9 - PERIOD_S)
            self._recent.append(lag_s)
            self._report(lag_s)
