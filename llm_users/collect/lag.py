"""The lag probe: how late a short sleep wakes up says how long the event loop keeps its work waiting.

A late sleep has one of two reasons: the process had something else to do, or it was ready and had no CPU, because
another program used it. The probe reports the lateness, and what is left of it without the second reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import gevent

from llm_users.machine import CpuWait
from llm_users.transport.clock import now_ns

PERIOD_S = 0.02
"""50 samples a second: enough for a p99 within a stage of a few seconds, 0.05 % of a core."""

Report = Callable[[float, float | None], None]


_KEPT = 50
"""Samples that ``worst_lately_s`` looks back over: one second."""


class LagProbe:
    """While it runs, it reports the lateness of each of its sleeps and the own part of it, in seconds.

    The own part is None where the system does not say how long a thread waited for a CPU.
    """

    def __init__(self, report: Report) -> None:
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
        wait = CpuWait()
        try:
            while True:
                waited_s = wait.seconds()
                asleep_ns = now_ns()
                gevent.sleep(PERIOD_S)
                lag_s = max(0.0, (now_ns() - asleep_ns) / 1e9 - PERIOD_S)
                self._recent.append(lag_s)
                now_waited_s = wait.seconds()
                if waited_s is None or now_waited_s is None:
                    own_s = None
                else:
                    own_s = max(0.0, lag_s - (now_waited_s - waited_s))
                report_sleep(self._report, lag_s, own_s)
        finally:
            wait.close()


def report_sleep(report: Report, lag_s: float, own_s: float | None) -> None:
    """Report a sleep, and those that would have begun while the loop did not run.

    Each of these would have been late by one period less. Without them a loop that stops for a second reports one late
    sleep instead of fifty, and the 99th percentile would not see it.
    """
    while True:
        report(lag_s, own_s)
        if lag_s <= PERIOD_S:
            return
        own_s = None if own_s is None else own_s * (lag_s - PERIOD_S) / lag_s
        lag_s -= PERIOD_S
