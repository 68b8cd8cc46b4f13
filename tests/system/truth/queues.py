"""Open loops with a known distribution: an M/M/1 queue, and the simulated endpoint's pace in virtual time."""

from __future__ import annotations

import heapq
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from pandas import Series

from llm_reports.input.rows import empty_stages, typed_frame
from llm_reports.metrics.groups import Group, groups
from llm_reports.run import Run
from llm_users.record import REQUEST_COLUMNS
from llm_users.simulator.engine import Pace
from llm_users.simulator.spec import Spec

Floats = np.ndarray[Any, np.dtype[np.float64]]
_ROWS = 100_000  # of one frame: 80 columns of them take 64 MB
_SPEC = "ttft=1ms,itl=10ms,capacity=4,jitter=0.2"
_TOKENS, _SPREAD = 8, 2  # mean and deviation of the answers
_BEFORE = 2_000  # requests until the queue is in its steady state


def mm1(dice: np.random.Generator, runs: int, requests: int, load: float) -> Floats:
    """Latencies of a first-come, first-served queue, a row for each run; the mean service time is 1.

    Poisson arrivals, exponential work, in the steady state from the first request on. The latency of a request is
    exponential with the rate 1 - load.
    """
    found = np.empty((runs, requests))
    wait = np.where(dice.random(runs) < load, dice.exponential(1 / (1 - load), runs), 0.0)
    for i in range(requests):
        found[:, i] = wait + dice.exponential(1.0, runs)
        wait = np.maximum(0.0, found[:, i] - dice.exponential(1 / load, runs))
    return found


def mm1_truth(load: float, q: float | None) -> float:
    """The q-quantile of the latency, or its mean."""
    return (1.0 if q is None else -math.log(1 - q)) / (1 - load)


def simulated(seed: int, requests: int, load: float) -> Floats:
    """Latencies (s) of Poisson arrivals at the simulated endpoint, in start order.

    Its answers share its capacity: with more than 4 of them active, every gap grows. ``load`` is the share of the
    tokens per second that it can send.
    """
    spec, dice = Spec.parse(_SPEC), random.Random(f"open {seed} {load}")
    gap_s = spec.itl_s * _TOKENS / spec.capacity / load
    wanted = requests + _BEFORE
    found = np.empty(wanted)
    events: list[tuple[float, int, int, float, Pace]] = []  # when, number, tokens left, start, pace
    number, active, next_s = 0, 0, dice.expovariate(1 / gap_s)
    ended = 0
    while ended < wanted:
        if number < wanted and (not events or next_s <= events[0][0]):
            tokens = max(2, round(dice.gauss(_TOKENS, _SPREAD)))
            pace = Pace(spec, number)
            active += 1
            heapq.heappush(events, (next_s + pace.first_ns() / 1e9, number, tokens, next_s, pace))
            number += 1
            next_s += dice.expovariate(1 / gap_s)
            continue
        now_s, place, tokens, start_s, pace = heapq.heappop(events)
        if tokens > 1:
            heapq.heappush(events, (now_s + pace.gap_ns(1, active) / 1e9, place, tokens - 1, start_s, pace))
            continue
        active -= 1
        ended += 1
        found[place] = now_s - start_s
    return found[_BEFORE:]


def stages(runs: Floats) -> list[Group]:
    """Each run as a stage of a run file, with its latencies as E2E latencies."""
    found: list[Group] = []
    at_once = max(1, _ROWS // runs.shape[1])
    for first in range(0, len(runs), at_once):
        some = runs[first : first + at_once]
        count, requests = some.shape
        rows = count * requests
        columns = {
            "stage": Series(np.repeat(np.arange(1.0, count + 1), requests)),
            "measured": Series(np.ones(rows)),
            "started_at": Series(np.tile(np.arange(float(requests)), count)),
            "end_to_end_latency_s": Series(some.reshape(-1)),
        }
        frame = typed_frame(columns, REQUEST_COLUMNS)
        found += groups([Run("queue", Path("queue"), frame, empty_stages())])
    return found
