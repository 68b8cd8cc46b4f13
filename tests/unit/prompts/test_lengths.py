"""The length laws: what is accepted, that draws follow the law, that prompts have the drawn lengths to the token."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llm_users.prompts import LengthLaw, PromptError, Tokenizer, make_source, parse_mix
from llm_users.prompts.lengths import Fixed, LogNormal, Normal, Uniform

LAWS = ("550,150", "lognormal:550,400", "uniform:20,1200", "fixed:500")


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("550,150", Normal(550, 150)),
        ("550", Normal(550, 0)),
        (" 12.5 , 0 ", Normal(12.5, 0)),
        ("normal:550,150", Normal(550, 150)),
        ("lognormal:550,400", LogNormal(550, 400)),
        ("Uniform: 10, 20", Uniform(10, 20)),
        ("fixed:123456789", Fixed(123456789)),
    ],
)
def test_parses(text: str, law: LengthLaw) -> None:
    assert LengthLaw.parse(text) == law
    assert LengthLaw.parse(str(law)) == law
    assert hash(LengthLaw.parse(text)) == hash(law)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "1,2,3", "0", "-5,1", "5,-1", "nan", "inf", "5,inf", "550;150", ",", "gauss:5,1", "normal:", ":5",
        "lognormal:500", "lognormal:0,1", "lognormal:5,501", "uniform:5", "uniform:0,5", "uniform:6,5",
        "uniform:1.5,3", "uniform:1,inf", "fixed:0", "fixed:2.5", "fixed:1,2",
    ],
)  # fmt: skip
def test_refuses_with_the_reason(text: str) -> None:
    with pytest.raises(PromptError, match=r"^length law: .*tokens"):
        LengthLaw.parse(text)


def test_laws_that_are_written_differently_are_different() -> None:
    assert len({LengthLaw.parse(text) for text in (*LAWS, "fixed:550", "550", "1234567", "1234568")}) == 8


def test_draws_follow_the_gaussian() -> None:
    rng = Random(1)
    lengths = [LengthLaw.parse("550,150").draw(rng) for _ in range(20_000)]
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
    ],
)
def test_draws_pass_a_kolmogorov_smirnov_test_against_the_stated_law(text: str, stated: Callable[..., object]) -> None:
    law, jitter = LengthLaw.parse(text), Random(5)
    # Drawn as prompts draw them, an index each; the rounding is spread out again.
    lengths = [law.at(11111, index, "input") + jitter.random() - 0.5 for index in range(10_000)]
    assert stats.kstest(lengths, stated).pvalue > 0.01
    off = [length * 1.1 for length in lengths]
    assert stats.kstest(off, stated).pvalue < 0.001  # the test would see a law that is 10 % off


def test_mean_and_deviation_of_a_lognormal_are_those_of_the_lengths() -> None:
    rng = Random(2)
    lengths = [LengthLaw.parse("lognormal:800,600").draw(rng) for _ in range(50_000)]
    assert statistics.mean(lengths) == pytest.approx(800, rel=0.02)
    assert statistics.stdev(lengths) == pytest.approx(600, rel=0.05)


@pytest.mark.parametrize("name", ["normal", "lognormal"])
@given(mean=st.floats(1, 10), sd=st.floats(0, 100), seed=st.integers())
def test_draws_are_positive_whole_numbers(name: str, mean: float, sd: float, seed: int) -> None:
    length = LengthLaw.parse(f"{name}:{mean},{sd}").draw(Random(seed))
    assert isinstance(length, int)
    assert length >= 1


def test_a_uniform_law_reaches_both_its_ends_equally_often() -> None:
    rng = Random(3)
    counts = Counter(Uniform(3, 6).draw(rng) for _ in range(8000))
    assert sorted(counts) == [3, 4, 5, 6]
    assert max(counts.values()) - min(counts.values()) < 200


def test_no_deviation_gives_the_mean() -> None:
    assert {Normal(77).draw(Random(seed)) for seed in range(20)} == {77}
    assert {Fixed(77).draw(Random(seed)) for seed in range(20)} == {77}


# Mixes.


def test_a_mix_draws_inputs_and_outputs_together_by_weight() -> None:
    inputs, outputs = parse_mix("80:500/100,20:4000/500")
    pairs = Counter((inputs.at(7, index, "input"), outputs.at(7, index, "output")) for index in range(5000))
    assert set(pairs) == {(500, 100), (4000, 500)}
    assert stats.binomtest(pairs[4000, 500], 5000, 0.2).pvalue > 0.01
    assert (inputs.mean, outputs.mean) == (1200, 180)
    # The marginal laws alone, too.
    assert Counter(inputs.draw(Random(seed)) for seed in range(1000))[500] == pytest.approx(800, abs=50)


def test_a_mix_of_laws() -> None:
    inputs, outputs = parse_mix("3 : lognormal:500,300/uniform:50,150, 1:fixed:4000/200,20;1:30/5")
    assert inputs.mean == pytest.approx((3 * 500 + 4000 + 30) / 5)
    drawn = [(inputs.at(1, index, "input"), outputs.at(1, index, "output")) for index in range(2000)]
    assert all(100 < output < 300 for input_, output in drawn if input_ == 4000)
    assert all(output == 5 for input_, output in drawn if input_ == 30 and not 50 <= output <= 150)
    assert {50 <= output <= 150 for input_, output in drawn if input_ not in (30, 4000)} == {True}


@pytest.mark.parametrize(
    "text", ["", "500", "80:500", "80:500/", "80:/5", "x:500/100", "0:5/5", "-1:5/5", "1:5/5,", "inf:5/5"]
)  # fmt: skip
def test_a_bad_mix_is_refused(text: str) -> None:
    with pytest.raises(
        PromptError, match=r"^(mix of lengths: .* is no part of one; write WEIGHT|length law: .*tokens)"
    ):
        parse_mix(text)


# Prompts of these lengths.


@pytest.mark.parametrize("law", LAWS)
def test_prompts_have_the_drawn_length_to_the_token(tokenizer: Tokenizer, law: str) -> None:
    input_law = LengthLaw.parse(law)
    prompts = make_source(tokenizer=tokenizer, input_law=input_law, output_law=LengthLaw.parse("60"), seed=3)
    for index in range(40):
        prompt = prompts.prompt(index)
        assert prompt.text
        assert tokenizer.count(prompt.text) == prompt.input_tokens == input_law.at(3, index, "input")


def test_prompts_of_a_mix(default_tokenizer: Tokenizer) -> None:
    inputs, outputs = parse_mix("80:500/100,20:4000/500")
    prompts = make_source(tokenizer=default_tokenizer, input_law=inputs, output_law=outputs, seed=3)
    for index in range(30):
        prompt = prompts.prompt(index)
        assert (prompt.input_tokens, prompt.max_tokens) in {(500, 100), (4000, 500)}
        assert default_tokenizer.count(prompt.text or "") == prompt.input_tokens


def test_workers_together_draw_what_one_process_draws(default_tokenizer: Tokenizer) -> None:
    def lengths(first: int, step: int) -> dict[int, tuple[int | None, int | None]]:
        inputs, outputs = parse_mix("2:lognormal:100,80/20,5,1:uniform:200,300/50")
        prompts = make_source(tokenizer=default_tokenizer, input_law=inputs, output_law=outputs, seed=9)
        mine = [prompts.prompt(index) for index in range(first, 120, step)]
        return {prompt.index: (prompt.input_tokens, prompt.max_tokens) for prompt in mine}

    assert lengths(0, 3) | lengths(1, 3) | lengths(2, 3) == lengths(0, 1)
