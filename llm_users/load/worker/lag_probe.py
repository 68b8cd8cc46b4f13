"""The lag probe: the delay of a short sleep's wake-up shows how long the event loop makes its work wait.

A late wake-up has one of two causes: the process was busy, or it was ready but had no CPU because another program used
it. The probe reports the delay, and the delay without the second cause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import gevent

from llm_users.load.worker.machine_cpu import CpuWait
from llm_users.transport.clock import now_ns

PERIOD_S = 0.02
"""50 samples per second: enough for a p99 within a stage of a few seconds, at 0.05 % of a core."""

_PERIOD_NS = round(PERIOD_S * 1e9)

Report = Callable[[float, float | None], None]

_LATE_S = 0.001
"""Shorter delays are not kept: with a smaller delay, chunks of a stream do not accumulate."""

_KEPT = 1000
"""Number of late sleeps that ``worst_since_s`` examines: 20 s of a loop that is always late, hours of a loop that is
rarely late."""


class LagProbe:
    """Reports the delay of each of its sleeps and the process's own part of it, in seconds.

    The own part is None if the system does not report how long a thread waited for a CPU.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._late: deque[tuple[int, float]] = deque(maxlen=_KEPT)  # (moment of the wake-up in ns, delay)
        self._due_ns = 0

    def worst_since_s(self, since_ns: int) -> float:
        """Return the longest delay since this moment of the monotonic clock, including that of the present sleep."""
        worst_s = max(0.0, (now_ns() - self._due_ns) / 1e9) if self._due_ns else 0.0
        for woke_ns, lag_s in reversed(self._late):
            if woke_ns < since_ns:
                break
            worst_s = max(worst_s, lag_s)
        return worst_s

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
            self._greenlet = None

    def _run(self) -> None:
        wait = CpuWait()
        now_waited_s = wait.seconds()
        try:
            while True:
                waited_s = now_waited_s
                self._due_ns = now_ns() + _PERIOD_NS
                gevent.sleep(PERIOD_S)
                woke_ns = now_ns()
                lag_s = max(0.0, (woke_ns - self._due_ns) / 1e9)
                if lag_s >= _LATE_S:
                    self._late.append((woke_ns, lag_s))
                now_waited_s = wait.seconds()
                if waited_s is None or now_waited_s is None:
                    own_s = None
                else:
                    own_s = max(0.0, lag_s - (now_waited_s - waited_s))
                report_sleep(self._report, lag_s, own_s)
        finally:
            self._due_ns = 0
            wait.close()


def report_sleep(report: Report, lag_s: float, own_s: float | None) -> None:
    """Report a sleep, and the sleeps that would have begun while the loop did not run.

    The delay of each of these would have been one period shorter than the delay before. Without them, a loop that stops
    for a second would report one late sleep instead of fifty, and the 99th percentile would miss it.
    """
    while True:
        report(lag_s, own_s)
        if lag_s <= PERIOD_S:
            return
        own_s = None if own_s is None else own_s * (lag_s - PERIOD_S) / lag_s
        lag_s -= PERIOD_S
