"""The mini-language of distributions: what it accepts, and that draws have the stated distribution.

The right answers are closed forms of probability theory, and draws that were recorded before the classes were one: a
seed gives the same lengths, caps, arrivals and think times in every version.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llm_users.distributions import (
    ARRIVAL_GAPS,
    LENGTHS,
    THINK_TIMES,
    TURNS,
    Distribution,
    DistributionError,
    Exponential,
    Fixed,
    LogNormal,
    Normal,
    Quantity,
    Uniform,
)
from llm_users.load.protocol.arrivals import arrival_times_s
from llm_users.prompts.draws import length_at

COUNT = 20_000
TEXTS = ("550,150", "lognormal:550,400", "uniform:20,1200", "exp:300", "fixed:500")


# Arrivals.


def gaps(text: str, rate_per_s: float = 40.0, seed: str = "1") -> np.ndarray:
    times = list(islice(arrival_times_s(Distribution.parse(text, ARRIVAL_GAPS), rate_per_s, seed), COUNT))
    return np.diff([0.0, *times])


@pytest.mark.parametrize(
    ("text", "cv"), [("constant", 0.0), ("poisson", 1.0), ("gamma:0.25", 0.25), ("gamma:1", 1.0), ("gamma:3", 3.0)]
)
def test_gaps_have_the_stated_mean_and_spread(text: str, cv: float) -> None:
    found = gaps(text)
    assert Distribution.parse(text, ARRIVAL_GAPS).cv == cv
    assert found.mean() == pytest.approx(1 / 40, rel=0.0 if cv == 0 else 4 * cv / COUNT**0.5, abs=1e-9)
    assert found.std() / found.mean() == pytest.approx(cv, rel=0.08, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "stated"),
    [("poisson", stats.expon(scale=1 / 40)), ("gamma:0.5", stats.gamma(4, scale=1 / 160)),
     ("gamma:2", stats.gamma(0.25, scale=0.1))],
)  # fmt: skip
def test_gaps_have_the_stated_distribution(text: str, stated: Any) -> None:
    assert stats.kstest(gaps(text), stated.cdf).pvalue > 0.01


def test_seeds_differ_and_repeat() -> None:
    assert (gaps("poisson", seed="1") == gaps("poisson", seed="1")).all()
    assert (gaps("poisson", seed="1") != gaps("poisson", seed="2")).any()


@pytest.mark.parametrize(
    "text", ["", "exp", "gamma", "gamma:", "gamma:0", "gamma:-1", "gamma:nan", "poisson:2", "gamma:inf", "fixed:1"]
)
def test_gaps_that_cannot_be_are_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(DistributionError, match="constant, poisson, or gamma:CV"):
        Distribution.parse(text, ARRIVAL_GAPS)


# Lengths and turns.


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("550,150", Normal(LENGTHS, 550, 150)),
        ("550", Normal(LENGTHS, 550, 0)),
        (" 12.5 , 0 ", Normal(LENGTHS, 12.5, 0)),
        ("normal:550,150", Normal(LENGTHS, 550, 150)),
        ("lognormal:550,400", LogNormal(LENGTHS, 550, 400)),
        ("Uniform: 10, 20", Uniform(LENGTHS, 10, 20)),
        ("exp:550", Exponential(LENGTHS, 550)),
        ("fixed:123456789", Fixed(LENGTHS, 123456789)),
    ],
)
def test_lengths_are_read(text: str, distribution: Distribution) -> None:
    assert Distribution.parse(text, LENGTHS) == distribution
    assert Distribution.parse(str(distribution), LENGTHS) == distribution
    assert hash(Distribution.parse(text, LENGTHS)) == hash(distribution)
    assert Distribution.parse(text, TURNS) != distribution


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "1,2,3", "0", "-5,1", "5,-1", "nan", "inf", "5,inf", "550;150", ",", "gauss:5,1", "normal:", ":5",
        "lognormal:500", "lognormal:0,1", "lognormal:5,501", "uniform:5", "uniform:0,5", "uniform:6,5",
        "uniform:1.5,3", "uniform:1,inf", "exp:0.5", "exp:1,2", "fixed:0", "fixed:2.5", "fixed:1,2",
    ],
)  # fmt: skip
def test_refuses_with_the_reason(text: str) -> None:
    with pytest.raises(DistributionError, match=r"tokens.*, for example 550,150"):
        Distribution.parse(text, LENGTHS)


def test_distributions_that_are_written_differently_are_different() -> None:
    texts = (*TEXTS, "fixed:550", "550", "1234567", "1234568")
    assert len({Distribution.parse(text, LENGTHS) for text in texts}) == 9


def test_draws_follow_the_gaussian() -> None:
    rng = Random(1)
    lengths = [Distribution.parse("550,150", LENGTHS).draw(rng) for _ in range(20_000)]
    assert abs(statistics.mean(lengths) - 550) < 5
    assert abs(statistics.stdev(lengths) - 150) < 4
    assert abs(statistics.median(lengths) - 550) < 6


def lognormal_of(mean: float, sd: float) -> Callable[..., object]:
    variance = math.log(1 + (sd / mean) ** 2)
    return stats.lognorm(s=math.sqrt(variance), scale=mean / math.sqrt(1 + (sd / mean) ** 2)).cdf


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("normal:550,150", stats.truncnorm(-549.5 / 150, np.inf, 550, 150).cdf),
        ("normal:40,60", stats.truncnorm(-39.5 / 60, np.inf, 40, 60).cdf),
        ("lognormal:550,400", lognormal_of(550, 400)),
        ("lognormal:3000,6000", lognormal_of(3000, 6000)),
        ("uniform:20,1200", stats.uniform(19.5, 1181).cdf),
        ("exp:2000", stats.expon(scale=2000).cdf),
    ],
)
def test_draws_pass_a_kolmogorov_smirnov_test_against_the_stated_distribution(
    text: str, stated: Callable[..., object]
) -> None:
    distribution, jitter = Distribution.parse(text, LENGTHS), Random(5)
    # Drawn as prompts draw them, an index each; the rounding is spread out again.
    lengths = [length_at(distribution, 11111, index, "input") + jitter.random() - 0.5 for index in range(10_000)]
    assert stats.kstest(lengths, stated).pvalue > 0.01
    off = [length * 1.1 for length in lengths]
    assert stats.kstest(off, stated).pvalue < 0.001  # the test would see a distribution that is 10 % off


def test_mean_and_deviation_of_a_lognormal_are_those_of_the_lengths() -> None:
    rng = Random(2)
    lengths = [Distribution.parse("lognormal:800,600", LENGTHS).draw(rng) for _ in range(50_000)]
    assert statistics.mean(lengths) == pytest.approx(800, rel=0.02)
    assert statistics.stdev(lengths) == pytest.approx(600, rel=0.05)


@pytest.mark.parametrize("name", ["normal", "lognormal"])
@given(mean=st.floats(1, 10), sd=st.floats(0, 100), seed=st.integers())
def test_draws_are_positive_whole_numbers(name: str, mean: float, sd: float, seed: int) -> None:
    length = Distribution.parse(f"{name}:{mean},{sd}", LENGTHS).draw(Random(seed))
    assert isinstance(length, int)
    assert length >= 1


def test_a_uniform_distribution_reaches_both_its_ends_equally_often() -> None:
    rng = Random(3)
    counts = Counter(Uniform(LENGTHS, 3, 6).draw(rng) for _ in range(8000))
    assert sorted(counts) == [3, 4, 5, 6]
    assert max(counts.values()) - min(counts.values()) < 200


def test_no_deviation_gives_the_mean() -> None:
    assert {Normal(LENGTHS, 77).draw(Random(seed)) for seed in range(20)} == {77}
    assert {Fixed(LENGTHS, 77).draw(Random(seed)) for seed in range(20)} == {77}


# Think times.


@pytest.mark.parametrize(
    ("written", "expected_s", "within"),
    [("1s", 1.0, 0), ("250ms", 0.25, 0), ("exp:2s", 2.0, 0.15), ("2s,500ms", 2.0, 0.1), ("uniform:1,3", 2.0, 0.1),
     ("lognormal:2s,1s", 2.0, 0.15), ("0", 0.0, 0), ("1m30s", 90.0, 0)],
)  # fmt: skip
def test_think_times_have_the_mean_that_is_written(written: str, expected_s: float, within: float) -> None:
    distribution, rng = Distribution.parse(written, THINK_TIMES), Random(3)
    drawn = [distribution.draw(rng) for _ in range(4000)]
    assert min(drawn) >= 0
    assert statistics.mean(drawn) == pytest.approx(expected_s, abs=within)
    assert distribution.mean == expected_s
    assert Distribution.parse(str(distribution), THINK_TIMES) == distribution


@pytest.mark.parametrize("written", ["", "soon", "exp:", "exp:1,2", "uniform:3,1", "lognormal:0,1", "-1s", "1s,"])
def test_think_times_that_cannot_be_are_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"think time|needs LOW|must be above 0"):
        Distribution.parse(written, THINK_TIMES)


def test_a_negative_think_time_counts_as_zero() -> None:
    distribution, rng = Distribution.parse("1s,1s", THINK_TIMES), Random(4)
    drawn = [distribution.draw(rng) for _ in range(COUNT)]
    assert drawn.count(0.0) / COUNT == pytest.approx(stats.norm.cdf(-1), abs=0.01)
    # The mean of max(0, X) for a normal X with mean 1 and deviation 1.
    assert statistics.mean(drawn) == pytest.approx(stats.norm.cdf(1) + stats.norm.pdf(1), abs=0.02)


# Recorded draws: the first two of 500, and the sum of all of them.

DRAWS: tuple[tuple[Quantity[Distribution], str, str, list[float], float], ...] = (
    (LENGTHS, "550,150", "input", [394, 511], 273292),
    (LENGTHS, "40,60", "input", [23, 24], 33510),
    (LENGTHS, "77", "input", [77, 77], 38500),
    (LENGTHS, "12.5", "input", [12, 12], 6000),
    (LENGTHS, "lognormal:550,400", "input", [225, 376], 273065),
    (LENGTHS, "uniform:20,1200", "input", [659, 349], 318545),
    (LENGTHS, "fixed:500", "input", [500, 500], 250000),
    (LENGTHS, "150,80", "output", [112, 231], 77205),
    (LENGTHS, "lognormal:150,300", "output", [37, 241], 70237),
    (LENGTHS, "uniform:1,9", "output", [7, 8], 2501),
    (TURNS, "3,1", "turns", [4, 3], 1522),
    (TURNS, "fixed:4", "turns", [4, 4], 2000),
    (TURNS, "uniform:1,6", "turns", [1, 5], 1787),
    (TURNS, "lognormal:5,4", "turns", [6, 4], 2406),
    (THINK_TIMES, "1s", "think:1", [1.0, 1.0], 500.0),
    (THINK_TIMES, "0", "think:1", [0.0, 0.0], 0.0),
    (THINK_TIMES, "exp:2s", "think:1", [2.64704150435, 0.583019343991], 1044.09966163),
    (THINK_TIMES, "2s,0.5s", "think:1", [1.92416490986, 1.98640119778], 1004.25792878),
    (THINK_TIMES, "100ms,1s", "think:1", [0.0, 0.0728023955531], 241.202808243),
    (THINK_TIMES, "lognormal:2s,1s", "think:1", [1.66517352108, 1.76601885843], 1016.4498663),
    (THINK_TIMES, "uniform:1,3", "think:1", [2.46760712301, 1.50573042543], 1008.18561934),
    (THINK_TIMES, "fixed:3s", "think:1", [3.0, 3.0], 1500.0),
    (THINK_TIMES, "normal:1m,1s", "think:1", [59.8483298197, 59.9728023956], 30008.5158576),
    (THINK_TIMES, "uniform:250ms,2s", "think:1", [1.53415623264, 0.692514122254], 569.662416923),
)  # fmt: skip
ARRIVALS: tuple[tuple[str, list[float], float], ...] = (
    ("constant", [0.142857142857, 0.285714285714], 17892.8571429),
    ("poisson", [0.00286632354089, 0.0210276743788], 17978.3913117),
    ("gamma:0.5", [0.0845339045525, 0.14685316369], 18105.9231113),
    ("gamma:1", [0.00286632354089, 0.0210276743788], 17978.3913117),
    ("gamma:2.5", [2.94431934229e-11, 5.41141909028e-05], 15219.9950787),
)  # fmt: skip


@pytest.mark.parametrize(("of", "text", "purpose", "first", "total"), DRAWS)
def test_a_seed_gives_the_draws_that_were_recorded(
    of: Quantity[Distribution], text: str, purpose: str, first: list[float], total: float
) -> None:
    distribution = Distribution.parse(text, of)
    drawn = [distribution.draw(Random(f"11111:{index}:{purpose}")) for index in range(500)]
    assert drawn[:2] == pytest.approx(first, rel=1e-10)
    assert sum(drawn) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize(("text", "first", "total"), ARRIVALS)
def test_a_seed_gives_the_arrivals_that_were_recorded(text: str, first: list[float], total: float) -> None:
    gap = Distribution.parse(text, ARRIVAL_GAPS)
    times_s = list(islice(arrival_times_s(gap, 7.0, "11111:1:arrivals"), 500))
    assert times_s[:2] == pytest.approx(first, rel=1e-10)
    assert sum(times_s) == pytest.approx(total, rel=1e-10)
