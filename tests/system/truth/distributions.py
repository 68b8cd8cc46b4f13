"""What is drawn from distributions, against their closed forms: lengths, numbers of turns, think times, arrivals.

Means and standard deviations of whole numbers are sums over the probabilities of all values, so rounding and the limit
on the smallest value are in the right answer. The tolerance is five standard errors of the drawn figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llm_users.distributions import ARRIVAL_GAPS, LENGTHS, THINK_TIMES, TURNS, Distribution
from llm_users.load.protocol.arrivals import arrival_times_s
from llm_users.prompts import parse_mix
from llm_users.prompts.draws import length_at, stream
from tests.system.truth.line import TruthLine, within

_SEED = 11111


def lines(*, full: bool) -> Iterable[TruthLine]:
    count = 400_000 if full else 20_000
    yield from _whole_numbers(count)
    yield from _mixes(count)
    yield from _think_times(count)
    yield from _arrivals(count)


def _whole_numbers(count: int) -> Iterator[TruthLine]:
    for text, kind, cdf, highest in (
        ("550,150", LENGTHS, stats.norm(550, 150).cdf, 2000),
        ("40,60", LENGTHS, stats.norm(40, 60).cdf, 600),
        ("lognormal:150,80", LENGTHS, _lognormal_cdf(150, 80), 5000),
        ("uniform:20,1200", LENGTHS, stats.uniform(19.5, 1181).cdf, 1200),
        ("exp:30", LENGTHS, stats.expon(scale=30).cdf, 2000),
        ("3,1", TURNS, stats.norm(3, 1).cdf, 20),
    ):
        distribution = Distribution.parse(text, kind)
        drawn = np.array([length_at(distribution, _SEED, index, "input") for index in range(count)], dtype=np.float64)
        values = np.arange(1, highest + 1)
        weights = cdf(values + 0.5) - cdf(values - 0.5)
        if ":" in text:
            weights[0] += cdf(0.5)  # smaller values count as 1; a normal distribution draws again
        yield from _compared(f"{text} {kind.plural}", drawn, values, weights)


def _lognormal_cdf(mean: float, sd: float) -> Callable[..., NDArray[np.float64]]:
    variance = math.log(1 + (sd / mean) ** 2)
    return stats.lognorm(s=math.sqrt(variance), scale=mean / math.exp(variance / 2)).cdf


def _mixes(count: int) -> Iterator[TruthLine]:
    inputs, outputs = parse_mix("80:500/100,20:4000/uniform:1,3")
    drawn = np.array(
        [
            (length_at(inputs, _SEED, index, "input"), length_at(outputs, _SEED, index, "output"))
            for index in range(count)
        ],
        dtype=np.float64,
    )
    yield from _compared("mix, input tokens", drawn[:, 0], np.array([500, 4000]), np.array([0.8, 0.2]))
    weights = np.array([0.8, 0.2 / 3, 0.2 / 3, 0.2 / 3])
    yield from _compared("mix, output tokens", drawn[:, 1], np.array([100, 1, 2, 3]), weights)
    together = ((drawn[:, 0] == 500) == (drawn[:, 1] == 100)).mean()
    yield within("mix: inputs and outputs of the same part", 1.0, float(together), 0.0)


def _think_times(count: int) -> Iterator[TruthLine]:
    below = stats.norm.cdf(-1)  # of 1s,1s; a negative time counts as 0
    mean = 1 - below + stats.norm.pdf(1)
    clipped_sd = math.sqrt(2 * (1 - below) + stats.norm.pdf(1) - mean**2)
    for text, mean_s, sd_s in (
        ("2s,500ms", 2.0, 0.5),
        ("1s,1s", mean, clipped_sd),
        ("exp:2s", 2.0, 2.0),
        ("lognormal:2s,1s", 2.0, 1.0),
        ("uniform:1s,3s", 2.0, 2 / math.sqrt(12)),
        ("1m30s", 90.0, 0.0),
    ):
        distribution = Distribution.parse(text, THINK_TIMES)
        drawn = np.array([distribution.draw(stream(_SEED, index, "think", 1)) for index in range(count)])
        yield from _moments(f"think time {text}", drawn, mean_s, sd_s, "s")


def _arrivals(count: int) -> Iterator[TruthLine]:
    for text, cv in (("constant", 0.0), ("poisson", 1.0), ("gamma:0.5", 0.5), ("gamma:2", 2.0)):
        gap = Distribution.parse(text, ARRIVAL_GAPS)
        gaps_ms = 1000 * np.diff([0.0, *islice(arrival_times_s(gap, 40.0, f"{_SEED}:1:arrivals"), count)])
        yield from _moments(f"gaps of {text} arrivals at 40/s", gaps_ms, 25.0, 25.0 * cv, "ms")


def _compared(
    figure: str, drawn: NDArray[np.float64], values: NDArray[np.int64], weights: NDArray[np.float64]
) -> Iterator[TruthLine]:
    shares = weights / weights.sum()
    mean = float((shares * values).sum())
    yield from _moments(figure, drawn, mean, math.sqrt(float((shares * (values - mean) ** 2).sum())), "")


def _moments(figure: str, drawn: NDArray[np.float64], mean: float, sd: float, unit: str) -> Iterator[TruthLine]:
    error = 5 / math.sqrt(len(drawn))
    yield within(f"{figure}: mean", mean, float(drawn.mean()), _rounded(max(1e-9, error * sd / mean)), unit)
    if sd:
        # The standard error of a standard deviation, from the fourth moment of the draws.
        kurtosis = float(((drawn - drawn.mean()) ** 4).mean()) / sd**4
        yield within(
            f"{figure}: deviation",
            sd,
            float(drawn.std()),
            _rounded(error * math.sqrt(max(0.1, kurtosis - 1)) / 2),
            unit,
        )
    else:
        yield TruthLine(f"{figure}: deviation", "0", f"{float(drawn.std()):.3g}", "1e-9", bool(drawn.std() < 1e-9))


def _rounded(tolerance: float) -> float:
    return float(f"{tolerance:.1e}")
