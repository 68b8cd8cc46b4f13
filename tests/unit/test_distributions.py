"""The laws of arrivals, against what probability says about them."""

from __future__ import annotations

import argparse
from itertools import islice

import numpy as np
import pytest
from scipy import stats

from llm_users.distributions import ArrivalLaw, Part, PartSchedule, arrival_times_s, due_in
from llm_users.options.command_line import read_options
from llm_users.options.parsers import OptionError

COUNT = 20_000


def gaps(law: str, rate_per_s: float = 40.0, seed: str = "1") -> np.ndarray:
    times = list(islice(arrival_times_s(ArrivalLaw.parse(law), rate_per_s, seed), COUNT))
    return np.diff([0.0, *times])


@pytest.mark.parametrize(
    ("law", "cv"), [("constant", 0.0), ("poisson", 1.0), ("gamma:0.25", 0.25), ("gamma:1", 1.0), ("gamma:3", 3.0)]
)
def test_gaps_have_the_mean_and_the_spread_of_their_law(law: str, cv: float) -> None:
    found = gaps(law)
    assert found.mean() == pytest.approx(1 / 40, rel=0.0 if cv == 0 else 4 * cv / COUNT**0.5, abs=1e-9)
    assert found.std() / found.mean() == pytest.approx(cv, rel=0.08, abs=1e-6)


@pytest.mark.parametrize(
    ("law", "distribution"),
    [("poisson", stats.expon(scale=1 / 40)), ("gamma:0.5", stats.gamma(4, scale=1 / 160)),
     ("gamma:2", stats.gamma(0.25, scale=0.1))],
)  # fmt: skip
def test_gaps_follow_their_law(law: str, distribution: object) -> None:
    assert stats.kstest(gaps(law), distribution.cdf).pvalue > 0.01  # type: ignore[attr-defined]


def test_constant_arrivals_do_not_drift() -> None:
    last = list(islice(arrival_times_s(ArrivalLaw.parse("constant"), 500.0, "1"), 1_000_000))[-1]
    assert last == pytest.approx(2000.0, abs=1e-6)


def schedule(count: int = 700) -> list[float]:
    return list(islice(arrival_times_s(ArrivalLaw(), 10.0, "seed"), count))


def all_of(part: PartSchedule) -> list[tuple[int, float]]:
    found = []
    while part.next is not None:
        found.append(tuple(part.take()))
    return found


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_the_parts_of_all_processes_are_the_schedule(processes: int) -> None:
    parts = [all_of(PartSchedule(schedule(), [Part(rank, processes)])) for rank in range(processes)]
    assert sorted(arrival for part in parts for arrival in part) == list(enumerate(schedule()))


def test_a_part_that_is_taken_over_goes_on_where_the_takers_begin() -> None:
    dead, *takers = (Part(rank, 3) for rank in range(3))
    from_s = 20.0
    schedules = [PartSchedule(schedule(), [part]) for part in takers]
    sent = []
    for mine, part, share in zip(schedules, takers, dead.shares(2, from_s), strict=True):
        while mine.next is not None and mine.next.at_s < 20.5:  # the message comes after the moment that it names
            sent.append(tuple(mine.take()))
        mine.change([part, share])
        sent += all_of(mine)
    expected = [(number, at_s) for number, at_s in enumerate(schedule()) if number % 3 or at_s >= from_s]
    assert sorted(sent) == expected
    missed = due_in(schedule(), [dead], from_s)
    assert len(expected) + missed == 700
    # One of the takers goes too: its two parts are divided as the first was.
    gone = [takers[0], dead.shares(2, from_s)[0]]
    last = PartSchedule(schedule(), [takers[1], dead.shares(2, from_s)[1]])
    last.change([takers[1], dead.shares(2, from_s)[1], *(share for part in gone for share in part.shares(1, 40.0))])
    numbers = [number for number, at_s in all_of(last) if at_s >= 40.0]
    assert numbers == [number for number, at_s in enumerate(schedule()) if at_s >= 40.0]


def test_a_worker_without_a_part_has_no_arrivals() -> None:
    mine = PartSchedule(arrival_times_s(ArrivalLaw(), 10.0, "seed"), [Part(0, 1)])
    assert mine.next is not None
    mine.change([])
    assert mine.next is None


def test_seeds_differ_and_repeat() -> None:
    assert (gaps("poisson", seed="1") == gaps("poisson", seed="1")).all()
    assert (gaps("poisson", seed="1") != gaps("poisson", seed="2")).any()


@pytest.mark.parametrize(
    "text", ["", "exp", "gamma", "gamma:", "gamma:0", "gamma:-1", "gamma:nan", "poisson:2", "gamma:inf"]
)
def test_what_is_no_law_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="constant, poisson, or gamma:CV"):
        ArrivalLaw.parse(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"llm_rate": "5", "llm_sweep": "2"}, "exclude each other"),
        ({"llm_rate": "0"}, "rates in requests/s"),
        ({"llm_rate": "1e9"}, "rates in requests/s"),
        ({"llm_rate": "fast"}, "rates in requests/s"),
        ({"llm_rate": "5", "llm_arrivals": "gamma"}, "no law of arrivals"),
        ({"llm_max_in_flight": "5"}, "--llm-rate"),
    ],
)
def test_options_of_an_open_loop_that_cannot_be_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        read_options(argparse.Namespace(**options))
