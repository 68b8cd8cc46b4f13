"""How the requests of a stage are divided among the workers: shares of a count, and parts of an open loop's schedule.

Arithmetic only: what a worker is told of its share is in ``worker_pool``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from llm_users.load.protocol.arrivals import ArrivalShare, due_in


def split(requests: int | None, users: dict[int, int]) -> dict[int, int | None]:
    """Shares of a stage's requests for its workers, in proportion to their users; they add up exactly."""
    if requests is None:
        return dict.fromkeys(users)
    everyone = sum(users.values())
    shares: dict[int, int | None] = {}
    seen = given = 0
    for rank, count in users.items():
        seen += count
        upto = requests * seen // everyone if everyone else 0
        shares[rank] = upto - given
        given = upto
    return shares


def turns(requests: int | None, ranks: list[int]) -> dict[int, int | None]:
    """Shares of the first ``requests`` arrivals of an open loop, which the workers take in turn."""
    if requests is None:
        return dict.fromkeys(ranks)
    return {rank: len(range(place, requests, len(ranks))) for place, rank in enumerate(ranks)}


def share(requests: int, rank: int, workers: int) -> int:
    """An even share of a stage's requests, for a worker whose users are not known yet; all shares add up exactly."""
    return requests * (rank + 1) // workers - requests * rank // workers


class ArrivalShares:
    """The parts of the workers in one stage, by rank. ``times_s`` gives all arrivals of the stage from the first on."""

    def __init__(self, times_s: Callable[[], Iterable[float]]) -> None:
        self._times_s = times_s
        self._parts: dict[int, list[ArrivalShare]] = {}
        self._most: dict[int, int | None] = {}

    def begin(self, ranks: list[int], most: int | None) -> None:
        """The stage begins with these workers, which take the arrivals in turn."""
        count = len(ranks)
        for place, rank in enumerate(ranks):
            self._parts[rank] = [ArrivalShare(place, count)]
            self._most[rank] = None if most is None else max(1, share(most, place, count))

    def of(self, rank: int) -> list[ArrivalShare]:
        """The parts of a worker; none when it does not take part."""
        return self._parts.get(rank, [])

    def most_of(self, rank: int) -> int | None:
        """Requests that the worker may have in flight; None: no limit."""
        return self._most.get(rank)

    def hand_over(self, rank: int, takers: list[int], from_s: float, *, ends: bool) -> dict[int, int]:
        """A worker is gone: from ``from_s`` on its arrivals are the takers'.

        Returns how many each of them has got if the schedule has an end (``ends``), else nothing.
        """
        given = self._parts.get(rank, [])
        if not takers or not given:
            return {}
        taken = {taker: [part.divided(len(takers), from_s)[place] for part in given]
                 for place, taker in enumerate(takers)}  # fmt: skip
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
        """How many arrivals of a worker are due before then."""
        return due_in(self._times_s(), self.of(rank), until_s)
