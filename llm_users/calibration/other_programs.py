"""Whether something else was using the machine while it was measured."""

from __future__ import annotations

import os
import resource

import psutil  # comes with Locust

BUSY_CORES = 0.2
"""Others used more of the machine than this: two processes that need a core each no longer have one."""

_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")


class OtherPrograms:
    """How much CPU others used since this was made, in cores.

    The machine's busy time less our own and that of our children that have ended, so children must be awaited first.
    Interrupts count as busy: most of the loopback's run in a process's time and are in its own figure too, the few
    others read as a neighbour's (a few hundredths of a core at 256 streams).
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
