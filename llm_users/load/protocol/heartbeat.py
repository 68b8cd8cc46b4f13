"""The beat of a load process as the coordinator takes it: checked field by field, because it came over a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from llm_users.load.protocol.stage import DRAIN, IDLE, MEASURE, RAMP, WARMUP

PHASES = (IDLE, RAMP, WARMUP, MEASURE, DRAIN)
HISTOGRAMS = ("ttft", "gap", "tpot", "lag", "lag_own")

MOST_BUCKETS = 20_000
"""Durations up to 7 years; a histogram of one second rarely has more than a few hundred."""

_MOST_COUNT = 10**9
_MOST_STAGES = 16


class BadBeat(ValueError):
    """A message that is no beat; says which field is wrong."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What one load process did since its last beat. Histograms are bucket counts of ``DurationHistogram``."""

    run: str
    worker: int
    stage: int = 0
    phase: str = IDLE
    measured_s: float | None = None  # how long it has been measuring in the stage
    in_flight: int = 0
    requests: int = 0  # that ended, failed ones included, aborted ones not
    failed: int = 0
    throttled: int = 0
    tokens: float = 0.0  # that arrived: chunks by the tokens that a chunk has held so far
    cpu: float = 0.0  # share of a core
    done: dict[int, int] = field(default_factory=dict)  # measured requests that ended, by stage
    ttft: dict[int, int] = field(default_factory=dict)
    gap: dict[int, int] = field(default_factory=dict)
    tpot: dict[int, int] = field(default_factory=dict)
    lag: dict[int, int] = field(default_factory=dict)
    lag_own: dict[int, int] = field(default_factory=dict)  # without waiting for a CPU; empty: unknown


def beat_from(data: Any) -> Beat:
    """The beat in a message's data. Raises ``BadBeat``."""
    if not isinstance(data, dict):
        raise BadBeat("it is no table of fields")
    run, phase = data.get("run"), data.get("phase")
    if not isinstance(run, str) or not 0 < len(run) <= 64:
        raise BadBeat("run is no identifier")
    if phase not in PHASES:
        raise BadBeat("phase is none of those there are")
    return Beat(
        run=run,
        phase=phase,
        measured_s=None if data.get("measured_s") is None else _number(data, "measured_s"),
        tokens=_number(data, "tokens"),
        cpu=_number(data, "cpu"),
        done=_counts(data, "done", _MOST_STAGES, 10**6),
        **{name: _whole(data, name) for name in _WHOLES},
        **{name: _counts(data, name, MOST_BUCKETS, MOST_BUCKETS) for name in HISTOGRAMS},
    )


_WHOLES = ("worker", "stage", "in_flight", "requests", "failed", "throttled")


def _whole(data: dict[Any, Any], name: str) -> Any:
    value = data.get(name)
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        raise BadBeat(f"{name} is no count")
    return value


def _number(data: dict[Any, Any], name: str) -> float:
    value = data.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= _MOST_COUNT:
        raise BadBeat(f"{name} is no number from 0")
    return float(value)


def _counts(data: dict[Any, Any], name: str, most: int, highest: int) -> Any:
    counts = data.get(name)
    if not isinstance(counts, dict) or len(counts) > most:
        raise BadBeat(f"{name} is no histogram")
    for bucket, count in counts.items():
        if type(bucket) is not int or type(count) is not int:
            raise BadBeat(f"{name} is no histogram")
        if not -1 <= bucket <= highest or not 0 < count <= _MOST_COUNT:
            raise BadBeat(f"{name} has a bucket or a count that cannot be")
    return counts
