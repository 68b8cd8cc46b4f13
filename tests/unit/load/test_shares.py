"""Shares of a stage's requests add up exactly and follow the users."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_users.load.coordinator.shares import share, split, turns


@given(st.integers(0, 10_000), st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_shares_add_up_and_nobody_without_users_gets_one(requests: int, users: list[int]) -> None:
    shares = split(requests, dict(enumerate(users)))
    given_out = [quota or 0 for quota in shares.values()]
    assert sum(given_out) == (requests if sum(users) else 0)
    for count, quota in zip(users, given_out, strict=True):
        assert quota == 0 if count == 0 else abs(quota - requests * count / sum(users)) <= 1


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_even_shares_add_up(requests: int, workers: int) -> None:
    shares = [share(requests, rank, workers) for rank in range(workers)]
    assert sum(shares) == requests
    assert max(shares) - min(shares) <= 1


def test_arrivals_in_turn_add_up() -> None:
    assert turns(5, [0, 3]) == {0: 3, 3: 2}
    assert turns(1, [0, 1, 2]) == {0: 1, 1: 0, 2: 0}
    assert turns(7, [4]) == {4: 7}


def test_a_stage_by_time_has_no_shares() -> None:
    assert split(None, {0: 3, 1: 2}) == {0: None, 1: None}
    assert turns(None, [0, 1]) == {0: None, 1: None}
