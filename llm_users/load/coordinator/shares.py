"""Divides the requests of a stage among the workers: shares of a count, and shares of an open loop's schedule.

This module contains only arithmetic. ``worker_pool`` sends the shares to the workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from llm_users.load.protocol.arrivals import ArrivalShare, due_in


def split(requests: int | None, users: dict[int, int]) -> dict[int, int | None]:
    """Divide a stage's requests among workers in proportion to their users. The shares add up exactly."""
    if requests is None:
        return dict.fromkeys(users)
    total_users = sum(users.values())
    shares: dict[int, int | None] = {}
    counted_users = assigned = 0
    for rank, count in users.items():
        counted_users += count
        limit = requests * counted_users // total_users if total_users else 0
        shares[rank] = limit - assigned
        assigned = limit
    return shares


def turns(requests: int | None, ranks: list[int]) -> dict[int, int | None]:
    """Divide the first ``requests`` arrivals of an open loop among workers that take them in turn."""
    if requests is None:
        return dict.fromkeys(ranks)
    return {rank: len(range(index, requests, len(ranks))) for index, rank in enumerate(ranks)}


def share(requests: int, rank: int, workers: int) -> int:
    """Return an even share of a stage's requests for a worker with an unknown number of users.

    All shares add up exactly.
    """
    return requests * (rank + 1) // workers - requests * rank // workers


class ArrivalShares:
    """The workers' shares of the arrivals of one stage, by rank. ``times_s`` returns all arrivals of the stage."""

    def __init__(self, times_s: Callable[[], Iterable[float]]) -> None:
        self._times_s = times_s
        self._parts: dict[int, list[ArrivalShare]] = {}
        self._most: dict[int, int | None] = {}

    def begin(self, ranks: list[int], most: int | None) -> None:
        """Start the stage with these workers, which take the arrivals in turn."""
        count = len(ranks)
        for index, rank in enumerate(ranks):
            self._parts[rank] = [ArrivalShare(index, count)]
            self._most[rank] = None if most is None else max(1, share(most, index, count))

    def of(self, rank: int) -> list[ArrivalShare]:
        """Return the shares of a worker, or an empty list if it does not take part."""
        return self._parts.get(rank, [])

    def most_of(self, rank: int) -> int | None:
        """Return the number of requests that the worker may have in flight, or None for no limit."""
        return self._most.get(rank)

    def hand_over(self, rank: int, takers: list[int], from_s: float, *, ends: bool) -> dict[int, int]:
        """Give the arrivals of a worker that is gone to the takers, from ``from_s`` on.

        Return how many arrivals each taker gets if the schedule has an end (``ends``), else an empty dictionary.
        """
        given = self._parts.get(rank, [])
        if not takers or not given:
            return {}
        taken = {taker: [part.divided(len(takers), from_s)[index] for part in given]
                 for index, taker in enumerate(takers)}  # fmt: skip
        for taker, parts in taken.items():
            self._parts.setdefault(taker, []).extend(parts)
        self._parts[rank] = []
        most = self._most.get(rank)
        for taker, more in split(most, dict.fromkeys(takers, 1)).items():
            old = self._most.get(taker)
            if more is not None and old is not None:
                self._most[taker] = old + more
        return {taker: due_in(self._times_s(), parts, math.inf) for taker, parts in taken.items()} if ends else {}

    def due(self, rank: int, until_s: float) -> int:
        """Return how many arrivals of a worker are due before ``until_s``."""
        return due_in(self._times_s(), self.of(rank), until_s)
