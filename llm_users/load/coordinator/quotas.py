"""How a stage's requests are divided among the workers. Knows numbers only."""

from __future__ import annotations


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
