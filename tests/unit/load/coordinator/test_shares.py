"""Shares of a stage's requests add up exactly; each arrival of an open loop belongs to exactly one present worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_users.load.coordinator.shares import ArrivalShares, share, split, turns
from llm_users.load.protocol.arrivals import ArrivalSchedule
from llm_users.load.worker.prompt_queue import TracePrompts
from tests.unit.load.prompt_source import Source, queue_of

TIMES_S = [0.1 * number for number in range(200)]


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


def numbers(parts: ArrivalShares, rank: int) -> set[int]:
    schedule = ArrivalSchedule(TIMES_S, parts.of(rank))
    found = set()
    while schedule.next is not None:
        found.add(schedule.take().number)
    return found


def test_each_arrival_is_one_worker_s_however_many_go() -> None:
    parts = ArrivalShares(lambda: TIMES_S)
    parts.begin([0, 1, 2, 5], 16)
    assert [parts.most_of(rank) for rank in (0, 1, 2, 5)] == [4, 4, 4, 4]
    assert parts.due(1, 1.05) == 3, "numbers 1, 5 and 9"
    taken = parts.hand_over(1, [0, 2, 5], 5.0, ends=True)
    assert sum(taken.values()) == len([n for n in range(1, 200, 4) if TIMES_S[n] >= 5.0])
    taken = parts.hand_over(5, [0, 2], 10.0, ends=True)
    assert parts.of(1) == parts.of(5) == []
    assert [parts.most_of(rank) for rank in (0, 2)] == [8, 8]
    left = numbers(parts, 0), numbers(parts, 2)
    assert not left[0] & left[1]
    assert {n for n in left[0] | left[1] if TIMES_S[n] >= 10.0} == set(range(100, 200))
    assert abs(len(left[0]) - len(left[1])) <= 3


def test_without_another_worker_the_arrivals_stay() -> None:
    parts = ArrivalShares(lambda: TIMES_S)
    parts.begin([3], None)
    assert parts.hand_over(3, [], 1.0, ends=True) == {}
    assert (numbers(parts, 3), parts.most_of(3)) == (set(range(200)), None)


def test_prompts_of_a_trace_follow_the_parts() -> None:
    parts = ArrivalShares(lambda: TIMES_S)
    parts.begin([0, 1, 2], None)
    source = Source(10)
    prompts = TracePrompts(TIMES_S, lambda first, step: queue_of(source, first, step))
    mine = parts.of(1)
    prompts.begin(mine[0], queue_of(source, mine[0].first, mine[0].step))
    parts.hand_over(0, [1, 2], 10.0, ends=True)
    prompts.change(parts.of(1), len(TIMES_S))
    wanted = sorted(numbers(parts, 1))
    assert [prompts.of(number).index for number in wanted] == wanted
