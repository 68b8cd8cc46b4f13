"""Who uses the CPU of the machine, and how long a thread waits for it: against what programs here really did."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_users.load.worker import machine_cpu
from llm_users.load.worker.machine_cpu import CpuTimes, cpu_use

pytestmark = pytest.mark.alone

ON_LINUX = pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="the kernel does not count it")

# Two programs on one core: what the second does not get, it waits for. The clock and its own CPU time say how much.
_WAITING = """
import json, os, subprocess, sys, time
from llm_users.load.worker.machine_cpu import CpuWait

core = {min(os.sched_getaffinity(0))}
os.sched_setaffinity(0, core)
other = subprocess.Popen([sys.executable, "-c", "while 1: 0"])
try:
    wait = CpuWait()
    clock_s, cpu_s, waited_s = time.monotonic(), time.thread_time(), wait.seconds()
    while time.monotonic() - clock_s < 1.0:
        pass
    print(json.dumps({
        "clock_s": time.monotonic() - clock_s,
        "cpu_s": time.thread_time() - cpu_s,
        "waited_s": wait.seconds() - waited_s,
    }))
finally:
    other.kill()
    other.wait()
"""

# A greenlet that keeps the event loop without using the CPU, like a blocking call in a locustfile.
_BLOCKED = """
import json, time
import gevent
from llm_users.load.worker.lag_probe import LagProbe

reported = []
probe = LagProbe(lambda lag_s, own_s: reported.append((lag_s, own_s)))
probe.start()
for _ in range(10):
    gevent.sleep(0.03)
    time.sleep(0.1)
probe.stop()
print(json.dumps(max(reported)))
"""


def output_of(program: str) -> object:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@ON_LINUX
def test_a_thread_waits_for_the_cpu_that_it_did_not_get() -> None:
    found = output_of(_WAITING)
    assert isinstance(found, dict)
    assert found["waited_s"] == pytest.approx(found["clock_s"] - found["cpu_s"], abs=0.1 * found["clock_s"])
    assert found["waited_s"] > 0.2 * found["clock_s"]


@ON_LINUX
def test_a_loop_that_its_own_code_blocks_is_late_by_itself() -> None:
    found = output_of(_BLOCKED)
    assert isinstance(found, list)
    lag_s, own_s = found
    assert lag_s > 0.07  # of the 100 ms, the sleep of 20 ms may have begun before
    assert own_s > 0.6 * lag_s


def test_the_use_of_the_machine_is_a_share_of_all_its_cores() -> None:
    before = CpuTimes(clock_s=100.0, busy_s=50.0, steal_s=1.0, total_s=500.0)
    cores = machine_cpu.cores()
    after = CpuTimes(110.0, 50.0 + 5.0 * cores, 1.0 + 0.5 * cores, 500.0 + 10.0 * cores)
    use = cpu_use(before, after)
    assert use is not None
    assert (use.busy_share, use.steal_share) == pytest.approx((0.5, 0.05))
    short = CpuTimes(100.2, 50.1, 1.0, 500.0 + 0.2 * cores)
    assert cpu_use(before, short) is None
    silent = CpuTimes(110.0, 50.0, 1.0, 500.0)  # a sandbox whose counters stand still
    assert cpu_use(before, silent) is None


def test_the_machine_that_this_process_keeps_busy_is_busy() -> None:
    before = machine_cpu.cpu_times()
    end_s = time.perf_counter() + 1.0
    used_s = time.process_time()
    while time.perf_counter() < end_s:
        pass
    used_s = time.process_time() - used_s
    use = cpu_use(before, machine_cpu.cpu_times())
    assert use is not None
    # The counters advance in steps of 10 ms for each core.
    assert use.busy_share >= used_s / machine_cpu.cores() - 0.05
    assert 0 <= use.steal_share <= 1
    assert machine_cpu.identity() == machine_cpu.identity() != ""
