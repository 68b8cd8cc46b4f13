"""The arrivals of an open loop: one schedule, divided among workers that come and go."""

from __future__ import annotations

import argparse
from itertools import islice

import pytest

from llm_users.distributions import ARRIVAL_GAPS, Distribution
from llm_users.load.protocol.arrivals import ArrivalSchedule, ArrivalShare, arrival_times_s, due_in
from llm_users.options.command_line import read_options
from llm_users.options.parsers import OptionError

POISSON = Distribution.parse("poisson", ARRIVAL_GAPS)


def test_constant_arrivals_do_not_drift() -> None:
    constant = Distribution.parse("constant", ARRIVAL_GAPS)
    last = list(islice(arrival_times_s(constant, 500.0, "1"), 1_000_000))[-1]
    assert last == pytest.approx(2000.0, abs=1e-6)


def schedule(count: int = 700) -> list[float]:
    return list(islice(arrival_times_s(POISSON, 10.0, "seed"), count))


def all_of(schedule: ArrivalSchedule) -> list[tuple[int, float]]:
    found = []
    while schedule.next is not None:
        found.append(tuple(schedule.take()))
    return found


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_shares_of_all_workers_are_the_schedule(workers: int) -> None:
    parts = [all_of(ArrivalSchedule(schedule(), [ArrivalShare(rank, workers)])) for rank in range(workers)]
    assert sorted(arrival for part in parts for arrival in part) == list(enumerate(schedule()))


def test_a_share_that_is_taken_over_continues_where_the_other_workers_begin() -> None:
    dead, *takers = (ArrivalShare(rank, 3) for rank in range(3))
    from_s = 20.0
    schedules = [ArrivalSchedule(schedule(), [part]) for part in takers]
    sent = []
    for mine, part, share in zip(schedules, takers, dead.divided(2, from_s), strict=True):
        while mine.next is not None and mine.next.at_s < 20.5:  # the message comes after the moment that it names
            sent.append(tuple(mine.take()))
        mine.change([part, share])
        sent += all_of(mine)
    expected = [(number, at_s) for number, at_s in enumerate(schedule()) if number % 3 or at_s >= from_s]
    assert sorted(sent) == expected
    missed = due_in(schedule(), [dead], from_s)
    assert len(expected) + missed == 700
    # One of the takers goes too: its two parts are divided as the first was.
    gone = [takers[0], dead.divided(2, from_s)[0]]
    last = ArrivalSchedule(schedule(), [takers[1], dead.divided(2, from_s)[1]])
    last.change([takers[1], dead.divided(2, from_s)[1], *(part for share in gone for part in share.divided(1, 40.0))])
    numbers = [number for number, at_s in all_of(last) if at_s >= 40.0]
    assert numbers == [number for number, at_s in enumerate(schedule()) if at_s >= 40.0]


def test_a_worker_without_a_share_has_no_arrivals() -> None:
    mine = ArrivalSchedule(arrival_times_s(POISSON, 10.0, "seed"), [ArrivalShare(0, 1)])
    assert mine.next is not None
    mine.change([])
    assert mine.next is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"llm_rate": "5", "llm_sweep": "2"}, "exclude each other"),
        ({"llm_rate": "0"}, "rates in requests/s"),
        ({"llm_rate": "1e9"}, "rates in requests/s"),
        ({"llm_rate": "fast"}, "rates in requests/s"),
        ({"llm_rate": "5", "llm_arrivals": "gamma"}, "not a distribution of gaps"),
        ({"llm_max_in_flight": "5"}, "--llm-rate"),
    ],
)
def test_options_of_an_open_loop_that_cannot_be_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        read_options(argparse.Namespace(**options))
