"""Queues whose behaviour is known by a closed formula: start and end of every request, without a clock or a network.

Shape of every result: (requests,), in the order of starts, in seconds.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

Values = np.ndarray[Any, np.dtype[np.float64]]
Random = np.random.Generator


def fifo(luck: Random, load: float, requests: int, *, servers: int = 1, warm: int = 0) -> tuple[Values, Values]:
    """Poisson arrivals at ``load`` times the capacity of 1/s, ``servers`` with exponential services (M/M/c).

    The first ``warm`` requests are simulated and left out.
    """
    count = requests + warm
    starts = np.cumsum(luck.exponential(1 / load, count))
    services = luck.exponential(float(servers), count)
    free = [0.0] * servers
    ends = np.empty(count)
    for place in range(count):
        ends[place] = max(starts[place], free[0]) + services[place]
        heapq.heapreplace(free, ends[place])
    return starts[warm:], ends[warm:]


def sharing(
    luck: Random, rate_per_s: float, requests: int, *, capacity: int, alone_s: float, spread: float = 0.0
) -> tuple[Values, Values]:
    """The simulator's capacity: up to ``capacity`` requests run at full speed, more share it evenly.

    It completes at most ``capacity / alone_s`` requests a second. ``spread``: coefficient of variation of the work
    (gamma). Poisson arrivals.
    """
    starts = np.cumsum(luck.exponential(1 / rate_per_s, requests))
    works = luck.gamma(1 / spread**2, alone_s * spread**2, requests) if spread else np.full(requests, alone_s)
    ends = np.empty(requests)
    running: list[tuple[float, int]] = []  # (attained service at which it ends, place)
    attained = now = 0.0
    place = 0
    while place < requests or running:
        speed = min(1.0, capacity / len(running)) if running else 1.0
        until_end = now + (running[0][0] - attained) / speed if running else np.inf
        until_start = float(starts[place]) if place < requests else np.inf
        moment = min(until_end, until_start)
        attained += (moment - now) * speed
        now = moment
        if until_end <= until_start:
            ends[heapq.heappop(running)[1]] = now
        else:
            heapq.heappush(running, (attained + float(works[place]), place))
            place += 1
    return starts, ends


def closed_loop(
    luck: Random, users: int, requests: int, *, servers: int, spread: float = 1.0, growth: float = 0.0
) -> tuple[Values, Values]:
    """``users`` that ask again at once, first come first served by ``servers`` with gamma services of mean 1 s.

    ``growth``: by how much services become longer from the first request to the last (0.5: half as long again).
    """
    shape = 1 / spread**2 if spread else 0.0
    services = luck.gamma(shape, 1 / shape, requests) if spread else np.ones(requests)
    services *= 1 + growth * np.arange(requests) / requests
    free = [0.0] * servers
    asking = [0.0] * users
    starts, ends = np.empty(requests), np.empty(requests)
    for place in range(requests):
        starts[place] = asking[0]
        ends[place] = max(starts[place], free[0]) + services[place]
        heapq.heapreplace(free, ends[place])
        heapq.heapreplace(asking, ends[place])
    return starts, ends
