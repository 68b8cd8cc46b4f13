"""How often equal open loops look different: `python -m tests.unit.reports.queue_alarms [PAIRS]`.

The default is 300 pairs, which take 3 minutes.

Pairs of runs of 400 and of 2,000 requests, Poisson arrivals at eight servers, at several shares of what these can do:
the share of false alarms of the permutation test that ``llm-report compare`` makes, and for how many runs its note says
that they are worth few independent requests.
"""

from __future__ import annotations

import heapq
import sys
from typing import Any

import numpy as np

from llm_reports.compare.figures import FEWEST_INDEPENDENT
from llm_reports.stats import block_resampling
from llm_reports.stats.block_resampling import above, autocorrelation_time, cut, hidden_from_p, permutation

Floats = np.ndarray[Any, np.dtype[np.float64]]
SERVERS, BEFORE = 8, 300


def p_of(samples: tuple[Floats, Floats], users: int, q: float) -> float:
    blocks = cut((len(samples[0]), len(samples[1])), users)
    pooled = np.sort(np.concatenate(samples))
    parts = blocks.sums([above(values, q, pooled) for values in samples])  # type: ignore[arg-type]
    wholes = blocks.sums([np.ones(len(values)) for values in samples])
    return permutation(parts, wholes, hidden=hidden_from_p(blocks.counts, users)).p


def one_queue(dice: np.random.Generator, n: int, load: float) -> tuple[Floats, int]:
    """Latencies of Poisson arrivals at eight servers, from a queue that has run for a while; and how many are in it."""
    arrivals = np.cumsum(dice.exponential(1 / (SERVERS * load), n + BEFORE))
    work = dice.lognormal(-0.08, 0.4, n + BEFORE)
    free, took = [0.0] * SERVERS, np.empty(n + BEFORE)
    for i, (at, needs) in enumerate(zip(arrivals, work, strict=True)):
        end = max(at, heapq.heappop(free)) + needs
        heapq.heappush(free, end)
        took[i] = end - at
    took = took[BEFORE:]
    return took, max(1, round(took.sum() / (arrivals[-1] - arrivals[BEFORE])))


def alarms(load: float, q: float, *, pairs: int, requests: int = 400) -> int:
    """How many of so many pairs of equal runs differ in this quantile at the level of 5 %."""
    dice, found = np.random.default_rng(5), 0
    for _ in range(pairs):
        (a, in_flight), (b, _) = one_queue(dice, requests, load), one_queue(dice, requests, load)
        found += p_of((a, b), in_flight, q) < 0.05
    return found


def noted(load: float, *, runs: int, requests: int) -> int:
    """How many of so many runs the note is about."""
    dice = np.random.default_rng(6)
    times = [autocorrelation_time(one_queue(dice, requests, load)[0]) for _ in range(runs)]
    return sum(requests / time < FEWEST_INDEPENDENT for time in times)


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    block_resampling.PERMUTATIONS = 999  # 1 in 1,000 is fine enough a p
    print("| load | requests | false alarms: median | p95 | runs with the note |")
    print("|" + " --- |" * 5)
    for load in (0.5, 0.8, 0.9, 0.95):
        for requests in (400, 2000):
            shares = [alarms(load, q, pairs=pairs, requests=requests) / pairs for q in (0.5, 0.95)]
            share = noted(load, runs=pairs, requests=requests) / pairs
            print(f"| {load:g} | {requests} | {shares[0]:.1%} | {shares[1]:.1%} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
