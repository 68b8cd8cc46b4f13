"""One line's load: what is asked of which server."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llm_users.calibration import measured_run
from llm_users.calibration.measured_run import Load, MeasuredRun, SimulatorEndpoint, Timing
from tests.project import ROOT
from tests.system.accuracy.bounds import CHAT, CONVERSE, INVOKE, MESSAGES
from tests.system.accuracy.circumstances import Start, TlsEndpoint, busy_programs
from tests.system.accuracy.endpoints import NativeEndpoint

_CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
_LOCUSTFILES = {CONVERSE: "bedrock.py", INVOKE: "bedrock.py", MESSAGES: "messages.py"}


@dataclass(frozen=True, slots=True)
class Plan:
    """One line of the table."""

    streams: int
    requests: int
    ramp: str
    timing: Timing
    processes: int = 1
    api: str = CHAT
    sdk: bool = False
    """On boto3's own path, for comparison: never judged."""
    busy: bool = False
    """Beside programs that use all cores: only the verdict on the client is judged."""
    tls: bool = False
    """Through a TLS proxy: only the verdict on the client is judged."""

    @property
    def load(self) -> Load:
        options = ("--llm-api", self.api, "--llm-model", _CLAUDE) if self.api != CHAT else ()
        options += ("--llm-transport", "sdk") if self.sdk else ()
        options += ("--llm-insecure",) if self.tls else ()
        locustfile = ROOT / "locustfiles" / _LOCUSTFILES.get(self.api, "sweep.py")
        return Load(self.streams, self.requests, self.timing, locustfile, self.ramp, self.processes, options)


def measure(plan: Plan, native: Path | None) -> MeasuredRun:
    """Run the load once, on the native server when its binary is given, and hold its rows against the server's log."""
    start: Start = SimulatorEndpoint if native is None else partial(NativeEndpoint, native)
    with busy_programs() if plan.busy else contextlib.nullcontext():
        return measured_run.measure(plan.load, partial(TlsEndpoint, start) if plan.tls else start)
