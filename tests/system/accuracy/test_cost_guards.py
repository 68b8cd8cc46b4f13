"""Guards against regressions of cost: CPU per token, the start of a run, and the memory of a user.

Each figure is compared with a control in the same run, so that the speed of the machine matters little. The bounds are
generous: a failure means that the cost has grown by half or more. The commands ``make accuracy``, ``startup`` and
``many_users`` measure the same figures precisely.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest

from llm_users.calibration.measured_run import SimulatorEndpoint, Timing
from tests.system.accuracy import run_overhead
from tests.system.accuracy.control_run import ControlPlan, measure_control
from tests.system.accuracy.load_run import Plan, measure
from tests.system.accuracy.many_users import hold, kb_per_user
from tests.system.accuracy.run_overhead import BARE, Case
from tests.system.accuracy.startup import THIS, Checkouts

pytestmark = pytest.mark.alone

CPU_RATIO = 1.6
"""CPU per token of 64 streams, divided by that of the control."""
_STREAMS = 64
_TIMING = Timing(ttft_s=0.1, gap_s=0.01, tokens=200)

START_RATIO = 4.5
"""Time from the start of the command to its first request, divided by that of bare Locust.

On a quiet machine the ratio is about 3 (1.2 and 0.4 s), on a busy one about 2."""

KB_PER_USER = 20.0
"""Memory of a user that waits for its first token, from the difference of two processes with these numbers of users."""
_FEW_USERS, _MANY_USERS = 200, 1500


def test_cpu_per_token_is_near_that_of_a_plain_client() -> None:
    product = measure(Plan(_STREAMS, 2 * _STREAMS, "0.5s", _TIMING), None)
    control = measure_control(ControlPlan(_STREAMS, 2 * _STREAMS, 0.5, _TIMING), SimulatorEndpoint)
    ratio = product.cpu_per_token_s / control.cpu_per_token_s
    print(
        f"{product.cpu_per_token_s * 1e6:.1f} us per token, control {control.cpu_per_token_s * 1e6:.1f} us, "
        f"ratio {ratio:.2f}"
    )
    assert (product.failed, product.miscounted) == (0, 0)
    assert ratio < CPU_RATIO


def test_a_run_starts_little_later_than_bare_locust(tmp_path: Path) -> None:
    checkouts = Checkouts({THIS: Path(sys.executable).parent}, tmp_path)
    (working := tmp_path / "runs").mkdir()
    case = Case(4, 40, 1.2)
    overheads = run_overhead.measure([case], [THIS, BARE], checkouts.run, working, 2)
    ours_s, bare_s = (statistics.median(overheads[case, name].start_s) for name in (THIS, BARE))
    print(f"start {ours_s:.2f} s, bare Locust {bare_s:.2f} s, ratio {ours_s / bare_s:.2f}")
    assert ours_s < START_RATIO * bare_s


def test_a_waiting_user_takes_little_memory() -> None:
    few = hold(_FEW_USERS, 0.5, Timing(3.0, 0.05, 10), SimulatorEndpoint)
    many = hold(_MANY_USERS, 2.0, Timing(5.0, 0.05, 10), SimulatorEndpoint)
    kb = kb_per_user(few, many, lambda memory: memory.load_kb)
    print(f"{kb:.1f} kB per user, from {_FEW_USERS} to {_MANY_USERS} users")
    assert many.measured.failed == 0
    assert 0 < kb < KB_PER_USER
