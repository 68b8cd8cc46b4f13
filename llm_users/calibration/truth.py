"""A server with known timing, and its log of when it read each request and sent each token.

Timestamps are CLOCK_MONOTONIC nanoseconds, which all processes of the machine share. It does not depend on the client.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llm_users.record import COL
from llm_users.simulator.launch import launch

SIMULATOR = "simulator"

SERVER_LATE_S = 0.005
"""Limit in seconds for the server's own lateness (p99): above it, a run measures the server, not the client."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The configured timing of the server."""

    ttft_s: float
    gap_s: float
    tokens: int

    @property
    def answer_s(self) -> float:
        """The time from the arrival of a request to its last token, on schedule."""
        return self.ttft_s + (self.tokens - 1) * self.gap_s


@dataclass(frozen=True, slots=True)
class Sent:
    """When the server had read a request, and when it sent the first and the last token."""

    received_ns: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Truth:
    """The server's log of a run: its send times by response id, its own lateness and its CPU cost."""

    sent: dict[str, Sent]
    late_p99_s: float
    cpu_per_token_s: float


class Endpoint:
    """A running server. Its ``truth`` is complete after ``stop``."""

    kind: str
    url: str

    def stop(self) -> None:
        raise NotImplementedError

    def truth(self) -> Truth:
        raise NotImplementedError


class SimulatorEndpoint(Endpoint):
    """The project's simulator, with its log in ``folder``."""

    kind = SIMULATOR

    def __init__(self, timing: Timing, folder: Path) -> None:
        self._log = folder / "simulator.jsonl"
        spec = f"ttft={timing.ttft_s * 1e6:.0f}us,itl={timing.gap_s * 1e6:.0f}us,tokens={timing.tokens}"
        self._simulator = launch(spec, log=self._log)
        self.url = self._simulator.url

    def stop(self) -> None:
        self._simulator.stop()

    def truth(self) -> Truth:
        totals = self._simulator.stop()
        with self._log.open(encoding="utf-8") as lines:
            entries = [json.loads(line) for line in lines]
        sent = {
            entry[COL.response_id]: Sent(entry["received_ns"], entry["first_ns"], entry["last_ns"])
            for entry in entries
            if entry["first_ns"] is not None
        }
        return Truth(sent, totals["late_p99_us"] / 1e6, totals["cpu_us_per_token"] / 1e6)
