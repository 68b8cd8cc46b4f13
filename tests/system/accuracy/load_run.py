"""One run for the table: the load that a plan describes, against a new server."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llm_users.calibration import measured_run
from llm_users.calibration.measured_run import Load, MeasuredRun, SimulatorEndpoint, Timing
from tests.project import ROOT
from tests.system.accuracy.bounds import (
    BEDROCK_CHAT,
    BEDROCK_MESSAGES,
    BEDROCK_RESPONSES,
    CHAT,
    CONVERSE,
    INVOKE,
    MESSAGES,
)
from tests.system.accuracy.circumstances import Start, TlsEndpoint, busy_programs
from tests.system.accuracy.control_run import ControlPlan, ControlRun, measure_control
from tests.system.accuracy.endpoints import NativeEndpoint

_CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
_LOCUSTFILES = {
    CONVERSE: "bedrock.py",
    INVOKE: "bedrock.py",
    MESSAGES: "messages.py",
    BEDROCK_CHAT: "bedrock_openai.py",
    BEDROCK_RESPONSES: "bedrock_openai.py",
    BEDROCK_MESSAGES: "bedrock_messages.py",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The load of a run of the product."""

    streams: int
    requests: int
    ramp: str
    timing: Timing
    processes: int = 1
    api: str = CHAT
    sdk: bool = False
    """Use boto3's own path, for comparison. Such a run is never judged."""
    busy: bool = False
    """Run beside programs that use all cores. Only the client's health is judged."""
    tls: bool = False
    """Connect through a TLS proxy."""

    @property
    def load(self) -> Load:
        options = ("--llm-api", self.api, "--llm-model", _CLAUDE) if self.api != CHAT else ()
        options += ("--llm-transport", "sdk") if self.sdk else ()
        options += ("--llm-insecure",) if self.tls else ()
        locustfile = ROOT / "locustfiles" / _LOCUSTFILES.get(self.api, "sweep.py")
        return Load(self.streams, self.requests, self.timing, locustfile, self.ramp, self.processes, options)


def measure(plan: Plan, native: Path | None) -> MeasuredRun:
    """Run the product once on a new server, the native one if its binary is given. Raises ``RunError``."""
    start = _server(native)
    with busy_programs() if plan.busy else contextlib.nullcontext():
        return measured_run.measure(plan.load, partial(TlsEndpoint, start) if plan.tls else start)


def measure_any(plan: Plan | ControlPlan, native: Path | None) -> MeasuredRun | ControlRun:
    """Run the product or the control once on a new server. Raises ``RunError``."""
    return measure(plan, native) if isinstance(plan, Plan) else measure_control(plan, _server(native))


def _server(native: Path | None) -> Start:
    return SimulatorEndpoint if native is None else partial(NativeEndpoint, native)
