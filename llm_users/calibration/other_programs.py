"""Measures the CPU use of other programs on the machine during a run."""

from __future__ import annotations

import os
import resource

import psutil  # comes with Locust

BUSY_CORES = 0.2
"""Limit in cores: above it, two processes that need one core each no longer get it."""

_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")


class OtherPrograms:
    """CPU use of other programs since the creation of the object, in cores.

    It is the machine's busy time minus the CPU time of this process and of its children that have ended, so wait for
    the children first. Interrupts count as busy: most loopback interrupts run in the time of a process and are also
    part of its CPU time; the remaining ones count as other programs (a few hundredths of a core at 256 streams).
    """

    def __init__(self) -> None:
        self._busy_s, self._ours_s, self._clock_s = _busy_s(), _ours_s(), os.times().elapsed

    def cores(self) -> float:
        elapsed_s = os.times().elapsed - self._clock_s
        others_s = (_busy_s() - self._busy_s) - (_ours_s() - self._ours_s)
        return max(0.0, others_s / elapsed_s) if elapsed_s > 0 else 0.0


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, kind, 0.0) for kind in _BUSY))


def _ours_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
