"""The machine under the measurement: what it is, and whether something else was using it."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path

import psutil

_PACKAGES = ("locust-llm", "locust", "gevent", "geventhttpclient", "openai", "boto3")
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")


def description() -> list[str]:
    """Lines about hardware and versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return [
        f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        f"Python {sys.version.split()[0]}, {versions}",
    ]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Neighbours:
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
