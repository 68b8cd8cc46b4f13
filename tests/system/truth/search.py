"""The load search against servers whose limit is a closed formula, and early stopping under stalls.

Rows of a model go through the search as those of a run do: judged, watched for early failure, tested for steadiness.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import numpy as np

from llm_reports.metrics.steadiness import steadiness
from llm_users.options.parsers import rates
from llm_users.options.table import Options
from llm_users.record import RequestRecord, StageRecord
from llm_users.wiring.load_search import SearchStages
from tests.queue_models import Random, Values, fifo, sharing
from tests.system.truth.line import TruthLine, at_least, at_most

_CAPACITY = 40.0  # requests per second
Server = Callable[[Random, float, int], tuple[Values, Values]]


def single_queue(luck: Random, rate_per_s: float, requests: int) -> tuple[Values, Values]:
    """M/M/1 with 40 requests a second. Latency is exponential with the rate (40 - arrivals per second)."""
    starts, ends = fifo(luck, rate_per_s / _CAPACITY, requests)
    return starts / _CAPACITY, ends / _CAPACITY


def shared(luck: Random, rate_per_s: float, requests: int) -> tuple[Values, Values]:
    """The simulator's capacity of 40 requests a second: each takes 0.25 s alone, ten run at full speed."""
    return sharing(luck, rate_per_s, requests, capacity=10, alone_s=0.25)


def replica(luck: Random, rate_per_s: float, requests: int) -> tuple[Values, Values]:
    """A replica with 24 slots whose answers take 4 s alone, with lengths that vary by half: 6 requests a second."""
    return sharing(luck, rate_per_s, requests, capacity=24, alone_s=4.0, spread=0.5)


def searched(
    server: Server,
    objectives: str,
    seed: int,
    low: float = 10.0,
    high: float = 200.0,
    stage_time_s: float | None = None,
) -> tuple[float, float]:
    """The rate that a search confirms (0: none), and the highest rate that passes by its figures (0: none)."""
    luck = np.random.default_rng(seed)
    logging.disable(logging.WARNING)
    search = SearchStages(Options(find=objectives, rate=rates(f"{low},{high}"), stage_time_s=stage_time_s))
    spec, stage, now = search.next(None), 0, 1.7e9
    while spec is not None:
        stage += 1
        rate_per_s = spec.load.rate_per_s
        assert rate_per_s is not None
        starts, ends = server(luck, rate_per_s, spec.requests or 0)
        shown = len(starts)
        for count, place in enumerate(np.argsort(ends), 1):
            start, latency_s = float(starts[place]), float(ends[place] - starts[place])
            if search.seen(_row(stage, rate_per_s, now + start, latency_s)):
                shown = count
                break
        ended = np.sort(ends)[:shown][-1]
        kept = starts <= ended
        state = steadiness(starts[kept], ends[kept], np.ones(int(kept.sum())), is_open=True)
        now += float(ends.max()) + 1
        record = StageRecord(stage, 0, now, float(starts[-1]), rate_per_s=rate_per_s, health="ok")
        record.steadiness = state or None
        spec = search.next(record)
    entry = search.entry()
    logging.disable(logging.NOTSET)
    fails = entry["fails"] or math.inf
    passing = [point["level"] for point in entry["points"] if point["passed"] and point["level"] < fails]
    return entry["found"] or 0.0, max(passing, default=0.0)


def _row(stage: int, rate_per_s: float, start: float, latency_s: float) -> RequestRecord:
    return RequestRecord(
        stage=stage, measured=1, phase="measure", rate_per_s=rate_per_s, started_at=start, queue_s=0.0, connect_s=0.0,
        ttft_s=latency_s, end_to_end_latency_s=latency_s, corrected_end_to_end_latency_s=latency_s, output_tokens=50,
    )  # fmt: skip


def stopped_early(luck: Random, *, stalls: int, late: float, waves: int = 40, users: int = 64) -> bool:
    """Whether a stage of 64 users, latency 0.1 to 0.2 s, a limit of 0.5 s for the P95, is ended early.

    ``stalls``: waves that hang for 1 to 5 s with all users in flight; ``late``: share of the other requests that take
    0.6 s.
    """
    search = SearchStages(Options(find="e2e_p95<0.5", requests=2000))
    search.next(None)
    stalled = set(luck.choice(waves, stalls, replace=False).tolist())
    now = 1.7e9
    for wave in range(waves):
        hang_s = float(luck.uniform(1, 5)) if wave in stalled else 0.0
        latencies = hang_s + np.where(luck.random(users) < late, 0.6, luck.uniform(0.1, 0.2, users))
        for latency_s in np.sort(latencies).tolist():
            record = _row(1, 0.0, now, latency_s)
            record.rate_per_s = None
            if search.seen(record):
                return True
        now += float(latencies.max())
    return False


def _of_search(title: str, right: float, results: list[tuple[float, float]]) -> Iterator[TruthLine]:
    """The lines of searches for a limit: false confirmations, power, and how near the figures alone come."""
    runs = len(results)
    yield at_most(f"{title}: confirmed 5 % above the limit", 0.05, sum(f > 1.05 * right for f, _ in results) / runs)
    yield at_least(f"{title}: a load is confirmed", 0.9, sum(found > 0 for found, _ in results) / runs)
    median = sorted(found for found, _ in results)[runs // 2]
    yield at_least(f"{title}: median confirmed / limit", 0.6, median / right, f"{right:.1f}/s")
    figure = sorted(estimate for _, estimate in results)[runs // 2]
    passed = abs(figure / right - 1) <= 0.1
    yield TruthLine(f"{title}: median by figures", f"{right:.1f}/s", f"{figure:.1f}/s", "10 %", passed)


def lines(full: bool) -> Iterator[TruthLine]:
    """Confirmed only below the limit, and near it; a stall does not end a stage, a hopeless one ends."""
    runs = 40 if full else 4
    for name, server, limit_s in (("M/M/1", single_queue, 0.3), ("M/M/1", single_queue, 3.0), ("shared", shared, 3.0)):
        # M/M/1: P(latency > x) = exp(-(40 - rate) x), so its P95 is ln 20 / (40 - rate). Shared: stable below 40/s.
        right = _CAPACITY - (math.log(20) / limit_s if server is single_queue else 0.0)
        results = [searched(server, f"e2e_p95<{limit_s:g}", seed) for seed in range(runs)]
        yield from _of_search(f"{name}, e2e_p95<{limit_s:g} from 10 to 200/s", right, results)
    # A latency limit that only a growing queue exceeds: the limit is the capacity.
    for stage_time_s in (15.0, 48.0):
        title = f"24 slots of 4 s, stages of {stage_time_s:g} s"
        results = [searched(replica, "e2e_p95<12.5", seed, 1.0, 32.0, stage_time_s) for seed in range(runs)]
        if stage_time_s < 32:  # 8 latencies
            confirmed = sum(found > 0 for found, _ in results)
            yield at_most(f"{title}: confirmed, although too short", 0.0, confirmed / runs)
        else:
            yield from _of_search(title, 6.0, results)
    runs = 300 if full else 30
    for stalls in (1, 2):
        early = sum(stopped_early(np.random.default_rng(seed), stalls=stalls, late=0.0) for seed in range(runs))
        yield at_most(f"ended early: {stalls} stalled waves of 64 in 2,560 requests", 0.01, early / runs)
    early = sum(stopped_early(np.random.default_rng(seed), stalls=1, late=0.03) for seed in range(runs))
    yield at_most("ended early: one stalled wave and 3 % late, 5 % are allowed", 0.01, early / runs)
    for late in (1.0, 0.7):
        ended = [
            stopped_early(np.random.default_rng(seed), stalls=0, late=late, waves=100) for seed in range(runs // 10 + 3)
        ]
        yield at_least(f"ended early: {100 * late:g} % late, 5 % are allowed", 0.95, sum(ended) / len(ended))
