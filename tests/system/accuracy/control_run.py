"""One run of the control against a server with known timing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_users.calibration.measured_run import Endpoint, OtherPrograms, RunError, Timing, Truth

_SPARE_S = 30.0


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """The load of the control: the same streams, requests, ramp and server as in a row of the product."""

    streams: int
    requests: int
    ramp_s: float
    timing: Timing


@dataclass(frozen=True, slots=True)
class ControlRun:
    """What the control counted (``control.Counts``), the server's log, and the conditions of the run."""

    counts: dict[str, Any]
    truth: Truth
    other_cores: float

    @property
    def cpu_per_token_s(self) -> float:
        return float(self.counts["window_cpu_s"] / self.counts["window_tokens"])

    @property
    def late_p99_s(self) -> float:
        return self.truth.late_p99_s


def measure_control(plan: ControlPlan, start: Callable[[Timing, Path], Endpoint]) -> ControlRun:
    """Run the control once against a new server. Raises ``RunError``."""
    tokens = plan.timing.tokens
    with tempfile.TemporaryDirectory(prefix="control-") as folder:
        other_cores = OtherPrograms()
        endpoint = start(plan.timing, Path(folder))
        try:
            command: list[str | Path] = [sys.executable, Path(__file__).with_name("control.py"), endpoint.url]
            command += map(str, (plan.streams, plan.requests, plan.ramp_s, tokens))
            longest_s = _SPARE_S + 3 * (2 + plan.requests / plan.streams) * plan.timing.answer_s
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=longest_s, check=False)
            except subprocess.TimeoutExpired:
                raise RunError(f"the control did not end within {longest_s:.0f} s") from None
            truth = endpoint.truth()
        finally:
            endpoint.stop()
        if done.returncode:
            raise RunError(f"the control ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
        counts = json.loads(done.stdout)
        requests = plan.streams + plan.requests  # a warm-up request per stream
        if (counts["requests"], counts["tokens"]) != (requests, requests * tokens):
            raise RunError(f"the control counted {counts} instead of {requests} requests of {tokens} tokens")
        return ControlRun(counts, truth, other_cores.cores())
