"""CPU usage of this machine: by which programs, and how long the calling thread waited for a CPU.

Reads the operating system's counters. The module does not depend on Locust, stages or records.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil  # comes with Locust

_BUSY = ("user", "nice", "system", "irq", "softirq")

SHORTEST_S = 0.5
"""The counters advance in steps of 10 ms. Over a shorter time, one step is more than 2 % of a core."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """The machine's CPU counters at a moment, in seconds, summed over its cores."""

    clock_s: float
    busy_s: float
    """Time used by this process, other programs and the kernel."""
    steal_s: float
    """Time in which the hypervisor gave the core to another guest."""
    total_s: float
    """All times including idle time. Constant if the system has no such counters."""


@dataclass(frozen=True, slots=True)
class CpuUse:
    """The difference of two ``CpuTimes``, as shares of all cores of the machine."""

    busy_share: float
    steal_share: float


def cpu_times() -> CpuTimes | None:
    """Return the counters now, or None if they cannot be read, for example without a free file descriptor.

    Takes 20 us, and more on machines with hundreds of cores.
    """
    try:
        times = psutil.cpu_times()
    except OSError:
        return None
    return CpuTimes(
        clock_s=time.monotonic(),
        busy_s=float(sum(getattr(times, kind, 0.0) for kind in _BUSY)),
        steal_s=float(getattr(times, "steal", 0.0)),
        total_s=float(sum(times)),
    )


def cpu_use(before: CpuTimes, after: CpuTimes) -> CpuUse | None:
    """Return the CPU use between two moments, or None if it is unknown or the time is shorter than ``SHORTEST_S``."""
    available_s = (after.clock_s - before.clock_s) * cores()
    if after.clock_s - before.clock_s < SHORTEST_S or after.total_s - before.total_s < available_s / 2:
        return None
    return CpuUse(
        min(1.0, max(0.0, (after.busy_s - before.busy_s) / available_s)),
        min(1.0, max(0.0, (after.steal_s - before.steal_s) / available_s)),
    )


def cores() -> int:
    """Return the number of cores of the machine, including cores that this process must not use."""
    return psutil.cpu_count() or 1


def identity() -> str:
    """Return a text that is equal for all processes with the CPU counters of one machine, also in containers."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()


class CpuWait:
    """Measures how long the thread that created it was ready to run but had no CPU.

    Another program ran, or a CPU limit of the container held the thread back. Linux only.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):
            # Use the thread's own file: "self" would be the process's first thread.
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        if self.seconds() is None:
            self.close()

    def seconds(self) -> float | None:
        """Return the wait since the thread started, or None if the kernel does not count it. Takes 3 us."""
        if self._file is None:
            return None
        try:
            # "time on a CPU, time waiting for one, time slices", in ns (Documentation/scheduler/sched-stats.rst)
            return int(os.pread(self._file, 80, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
