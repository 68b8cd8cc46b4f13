"""The length law: what it accepts, and that its draws follow it."""

from __future__ import annotations

import statistics
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_users.prompts import LengthLaw, PromptError


@pytest.mark.parametrize(
    ("text", "law"),
    [("550,150", LengthLaw(550, 150)), ("550", LengthLaw(550, 0)), (" 12.5 , 0 ", LengthLaw(12.5, 0))],
)
def test_parses(text: str, law: LengthLaw) -> None:
    assert LengthLaw.parse(text) == law
    assert LengthLaw.parse(str(law)) == law


@pytest.mark.parametrize("text", ["", "x", "1,2,3", "0", "-5,1", "5,-1", "nan", "inf", "5,inf", "550;150", ","])
def test_refuses_with_the_reason(text: str) -> None:
    with pytest.raises(PromptError, match=r"^length law: .*tokens"):
        LengthLaw.parse(text)


def test_draws_follow_the_gaussian() -> None:
    rng = Random(1)
    lengths = [LengthLaw(550, 150).draw(rng) for _ in range(20_000)]
    assert abs(statistics.mean(lengths) - 550) < 5
    assert abs(statistics.stdev(lengths) - 150) < 4
    assert abs(statistics.median(lengths) - 550) < 6


@given(mean=st.floats(1, 10), sd=st.floats(0, 1000), seed=st.integers())
def test_draws_are_positive_whole_numbers(mean: float, sd: float, seed: int) -> None:
    length = LengthLaw(mean, sd).draw(Random(seed))
    assert isinstance(length, int)
    assert length >= 1


def test_no_deviation_gives_the_mean() -> None:
    assert {LengthLaw(77).draw(Random(seed)) for seed in range(20)} == {77}
