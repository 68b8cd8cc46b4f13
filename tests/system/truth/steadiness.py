"""Steady queues and loops are rarely called unsteady, queues that grow nearly always are.

Which stage is steady follows from the load: below the capacity a queue returns, above it grows; a closed loop is
bounded by its users. ``tests/queue_models.py`` has the models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from llm_reports.metrics.steadiness import steadiness
from llm_users.record import UNSTEADY
from tests.queue_models import Random, Values, closed_loop, fifo, sharing
from tests.system.truth.line import TruthLine, at_least, at_most

Model = Callable[[Random], tuple[Values, Values]]


def unsteady_share(model: Model, runs: int, *, is_open: bool) -> float:
    """The share of seeded runs of a model that are called unsteady."""
    found = 0
    for seed in range(runs):
        starts, ends = model(np.random.default_rng(seed))
        found += steadiness(starts, ends, np.ones(len(starts)), is_open=is_open) == UNSTEADY
    return found / runs


def _shared(load: float, requests: int, capacity: int, spread: float = 0.0) -> Model:
    """A server that completes ``capacity`` requests a second at most: each takes 1 s alone."""
    rate_per_s = load * capacity
    return partial(sharing, rate_per_s=rate_per_s, requests=requests, capacity=capacity, alone_s=1.0, spread=spread)


def lines(full: bool) -> Iterator[TruthLine]:
    """False alarms at most 5 % where the load is at most 0.8; power at least 95 % at 1.2."""
    runs = 300 if full else 60
    for load in (0.5, 0.8):
        for requests in (100, 400, 2000) if full else (400,):
            model = partial(fifo, load=load, requests=requests)
            yield at_most(
                f"unsteady: M/M/1 at load {load}, {requests} requests", 0.05, unsteady_share(model, runs, is_open=True)
            )
        for servers in (8, 64) if full else (8,):
            model = partial(fifo, load=load, requests=400, servers=servers)
            yield at_most(
                f"unsteady: M/M/{servers} at load {load}, 400 requests", 0.05, unsteady_share(model, runs, is_open=True)
            )
        for capacity in (4, 40) if full else (40,):
            for spread in (0.0, 1.0):
                share = unsteady_share(_shared(load, 400, capacity, spread), runs, is_open=True)
                kind = "fixed" if not spread else "mixed"
                yield at_most(f"unsteady: shared capacity {capacity}, {kind} work, load {load}, 400", 0.05, share)
    for users, servers in ((1, 1), (8, 1), (64, 16)) if full else ((8, 1),):
        for requests in (400, 2000):
            for spread in (0.0, 1.0):
                model = partial(closed_loop, users=users, requests=requests, servers=servers, spread=spread)
                share = unsteady_share(model, runs, is_open=False)
                kind = "fixed" if not spread else "exponential"
                yield at_most(f"unsteady: {users} users, {servers} servers, {kind}, {requests} requests", 0.05, share)
    power = partial(fifo, load=1.2, requests=2000)
    yield at_least("power: M/M/1 at 1.2, 2000 requests", 0.95, unsteady_share(power, runs, is_open=True))
    for capacity in (4, 10, 40, 64) if full else (10, 40):
        share = unsteady_share(_shared(1.2, 400, capacity), runs, is_open=True)
        yield at_least(f"power: shared capacity {capacity} at 1.2, 400 requests", 0.95, share)
    growing = partial(closed_loop, users=8, requests=2000, servers=8, growth=1.0)
    yield at_least("power: 8 users, latency doubles, 2000 requests", 0.95, unsteady_share(growing, runs, is_open=False))
