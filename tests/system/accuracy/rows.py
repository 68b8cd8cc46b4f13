"""The rows of the table: which loads are measured, and what the CPU of each is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_users.calibration.measured_run import Timing
from tests.system.accuracy.bounds import BEDROCK_CHAT, CHAT, CONVERSE, INVOKE
from tests.system.accuracy.control_run import ControlPlan
from tests.system.accuracy.load_run import Plan

RAMP_S = 0.5
RAMP, WAVE = f"{RAMP_S}s", "0"
"""Ramps: the streams start evenly over half a second, or all at one instant."""

TIMING = Timing(0.2, 0.02, 128)
TIMING_OF_MANY = Timing(0.2, 0.05, 64)
"""From 1,000 streams on, where a gap of 20 ms is more than one process can read."""
MANY = 1000

LADDER = (64, 128, 256, 512, 768, 1024, 1536, 2000)
BEDROCK = (CONVERSE, INVOKE)

# Enough for a p99 if there are many streams, and few for one stream, whose requests take 2.7 s one after the other.
_REQUESTS = {1: 6, 32: 256, 256: 1024, 512: 1536, 1000: 3000, 1500: 3000}

_SIMULATOR_CONTROL_STREAMS = 256
"""The simulator keeps its schedule beside the control with this number of streams; with fewer the start dominates."""

_MOST_CONTROL_STREAMS = 1000
"""With more streams the control is at the limit of its core."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table."""

    plan: Plan
    reference: Plan | ControlPlan | None = None
    """What the CPU per token is compared with: the control, which is one process, or the product on plain chat."""


def requests_of(streams: int, ramp: str = RAMP) -> int:
    """Return the default number of measured requests."""
    requests = _REQUESTS.get(streams, 4 * streams)
    return requests if ramp == RAMP else max(3, requests // 2)


def timing_of(streams: int) -> Timing:
    """Return the default timing of the server."""
    return TIMING if streams < MANY else TIMING_OF_MANY


def native_plans() -> list[Plan]:
    """Return the loads for the native server, except those of plain chat with up to 512 streams."""
    many = [
        Plan(streams, requests_of(streams), RAMP, TIMING_OF_MANY, processes)
        for streams, processes in ((1000, 1), (1500, 1), (1000, 2))
    ]
    chat = Plan(256, requests_of(256), RAMP, TIMING)
    return [replace(chat, tls=True), replace(chat, api=CONVERSE), *many]


def signed_plan() -> Plan:
    """Return the load with signed requests to Bedrock's OpenAI-shaped API."""
    return Plan(256, requests_of(256), RAMP, TIMING, api=BEDROCK_CHAT)


def boto3_plans(timing: Timing) -> list[Plan]:
    """Return the loads on boto3's own path, for comparison."""
    return [Plan(256, requests_of(256), RAMP, timing, api=api, sdk=True) for api in BEDROCK]


def with_references(plans: Sequence[Plan], *, on_simulator: bool) -> list[Row]:
    """Return the rows of these loads."""
    return [Row(plan, _reference(plan, on_simulator=on_simulator)) for plan in plans]


def _reference(plan: Plan, *, on_simulator: bool) -> Plan | ControlPlan | None:
    if plan.ramp != RAMP or plan.busy or plan.sdk or plan.streams > _MOST_CONTROL_STREAMS:
        return None
    if on_simulator and (plan.streams != _SIMULATOR_CONTROL_STREAMS or plan.tls):
        return None
    if plan.tls or plan.api != CHAT:
        return replace(plan, tls=False, api=CHAT)
    return ControlPlan(plan.streams, plan.requests, RAMP_S, plan.timing)
