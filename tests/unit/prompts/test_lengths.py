"""Lengths of prompts: mixes that draw input and output together, and prompts that have their length to the token."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from scipy import stats

from llm_users.distributions import LENGTHS, Distribution
from llm_users.prompts import PromptError, Tokenizer, make_source, parse_mix
from llm_users.prompts.draws import draw_cap, length_at

TEXTS = ("550,150", "lognormal:550,400", "uniform:20,1200", "exp:300", "fixed:500")


def test_a_mix_draws_inputs_and_outputs_together_by_weight() -> None:
    inputs, outputs = parse_mix("80:500/100,20:4000/500")
    pairs = Counter(
        (length_at(inputs, 7, index, "input"), length_at(outputs, 7, index, "output")) for index in range(5000)
    )
    assert set(pairs) == {(500, 100), (4000, 500)}
    assert stats.binomtest(pairs[4000, 500], 5000, 0.2).pvalue > 0.01
    assert (inputs.mean, outputs.mean) == (1200, 180)
    # The marginal distributions alone, too.
    assert Counter(inputs.draw(Random(seed)) for seed in range(1000))[500] == pytest.approx(800, abs=50)


def test_a_mix_of_distributions() -> None:
    inputs, outputs = parse_mix("3 : lognormal:500,300/uniform:50,150, 1:fixed:4000/200,20;1:30/5")
    assert inputs.mean == pytest.approx((3 * 500 + 4000 + 30) / 5)
    drawn = [(length_at(inputs, 1, index, "input"), length_at(outputs, 1, index, "output")) for index in range(2000)]
    assert all(100 < output < 300 for input_, output in drawn if input_ == 4000)
    assert all(output == 5 for input_, output in drawn if input_ == 30 and not 50 <= output <= 150)
    assert {50 <= output <= 150 for input_, output in drawn if input_ not in (30, 4000)} == {True}


@pytest.mark.parametrize(
    "text", ["", "500", "80:500", "80:500/", "80:/5", "x:500/100", "0:5/5", "-1:5/5", "1:5/5,", "inf:5/5"]
)  # fmt: skip
def test_a_bad_mix_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match=r"mix of lengths.*(write WEIGHT|tokens)"):
        parse_mix(text)


def test_a_seed_gives_the_lengths_of_a_mix_that_were_recorded() -> None:
    """The first four of 500, and the sum of all of them."""
    inputs, outputs = parse_mix("3 : lognormal:500,300/uniform:50,150, 1:fixed:4000/200,20;1:30/5")
    drawn: dict[str, list[float | None]] = {
        "input": [length_at(inputs, 11111, index, "input") for index in range(500)],
        "cap": [draw_cap(outputs, 11111, index) for index in range(500)],
        "draw": [inputs.draw(Random(index)) for index in range(500)],
    }
    assert {name: (values[:4], sum(map(int, values))) for name, values in drawn.items()} == {
        "input": ([240, 371, 373, 30], 573229),
        "cap": ([117, 136, 130, 5], 50963),
        "draw": ([30, 737, 30, 257], 491304),
    }


# Prompts of these lengths.


@pytest.mark.parametrize("text", TEXTS)
def test_prompts_have_the_drawn_length_to_the_token(tokenizer: Tokenizer, text: str) -> None:
    input_lengths = Distribution.parse(text, LENGTHS)
    prompts = make_source(
        tokenizer=tokenizer, input_lengths=input_lengths, output_lengths=Distribution.parse("60", LENGTHS), seed=3
    )
    for index in range(40):
        prompt = prompts.prompt(index)
        assert prompt.text
        assert tokenizer.count(prompt.text) == prompt.input_tokens == length_at(input_lengths, 3, index, "input")


def test_prompts_of_a_mix(default_tokenizer: Tokenizer) -> None:
    inputs, outputs = parse_mix("80:500/100,20:4000/500")
    prompts = make_source(tokenizer=default_tokenizer, input_lengths=inputs, output_lengths=outputs, seed=3)
    for index in range(30):
        prompt = prompts.prompt(index)
        assert (prompt.input_tokens, prompt.max_tokens) in {(500, 100), (4000, 500)}
        assert default_tokenizer.count(prompt.text or "") == prompt.input_tokens


def test_workers_together_draw_what_one_process_draws(default_tokenizer: Tokenizer) -> None:
    def lengths(first: int, step: int) -> dict[int, tuple[int | None, int | None]]:
        inputs, outputs = parse_mix("2:lognormal:100,80/20,5,1:uniform:200,300/50")
        prompts = make_source(tokenizer=default_tokenizer, input_lengths=inputs, output_lengths=outputs, seed=9)
        mine = [prompts.prompt(index) for index in range(first, 120, step)]
        return {prompt.index: (prompt.input_tokens, prompt.max_tokens) for prompt in mine}

    assert lengths(0, 3) | lengths(1, 3) | lengths(2, 3) == lengths(0, 1)
