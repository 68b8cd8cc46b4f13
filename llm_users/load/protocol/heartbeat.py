"""The live metrics that each worker sends once per second if the run has a web interface.

Their size is limited and they can be merged.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llm_users.load.protocol.stage import IDLE, MOST_BUCKETS, Bucket, Phase

_MOST_COUNT = 10**9

_Count = Annotated[int, Meta(ge=0, le=_MOST_COUNT)]
_Number = Annotated[float, Meta(ge=0, le=_MOST_COUNT)]
_StageNumber = Annotated[int, Meta(ge=-1, le=10**6)]
_Found = Annotated[int, Meta(gt=0, le=_MOST_COUNT)]
_Histogram = Annotated[dict[Bucket, _Found], Meta(max_length=MOST_BUCKETS)]


class LiveMetrics(msgspec.Struct, frozen=True):
    """What one worker did since its last live metrics. Histograms are counts of a ``DurationHistogram``."""

    stage: _Count = 0
    phase: Phase = IDLE
    measured_s: _Number | None = None  # time since it began to measure in the stage
    in_flight: _Count = 0
    requests: _Count = 0  # requests that ended, including failed and excluding aborted ones
    failed: _Count = 0
    throttled: _Count = 0
    tokens: _Number = 0.0  # tokens that arrived: chunks times the mean tokens per chunk so far
    cpu: _Number = 0.0  # share of a core
    done: Annotated[dict[_StageNumber, _Found], Meta(max_length=16)] = {}  # measured requests that ended, by stage
    ttft: _Histogram = {}
    gap: _Histogram = {}
    tpot: _Histogram = {}
    lag: _Histogram = {}
    lag_own: _Histogram = {}  # without the wait for a CPU; empty: unknown
