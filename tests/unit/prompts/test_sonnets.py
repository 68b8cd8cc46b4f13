"""The sonnets task: exact lengths under every kind of tokenizer, texts that depend on seed, run key and index only."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, takewhile

import pytest

from llm_users.distributions import LENGTHS, Distribution
from llm_users.prompts import PromptError, PromptSource, Tokenizer, make_source
from llm_users.prompts.exact import UNIQUE_WORDS
from llm_users.prompts.sonnets import instruction, sonnets

OUTPUT = Distribution.parse("150,80", LENGTHS)


def source(tokenizer: Tokenizer, mean: float, sd: float = 0, seed: int = 11111, run_key: str = "run") -> PromptSource:
    return make_source(
        tokenizer=tokenizer,
        input_lengths=Distribution.parse(f"{mean},{sd}", LENGTHS),
        output_lengths=OUTPUT,
        seed=seed,
        run_key=run_key,
    )


class EveryCharacter:
    """``price`` tokens a character."""

    name, digest = "characters", ""

    def __init__(self, price: int = 1) -> None:
        self.price = price

    def count(self, text: str) -> int:
        return len(text) * self.price

    def encode(self, text: str) -> list[int]:
        return [0] * self.count(text)

    def decode(self, ids: Sequence[int]) -> str:
        raise NotImplementedError


class OneToken(EveryCharacter):
    """Whatever the text, one token."""

    def count(self, text: str) -> int:
        return min(1, len(text))


def test_twenty_sonnets_of_fourteen_lines() -> None:
    poems = sonnets()
    lines = [line for poem in poems.values() for line in poem]
    assert len(poems) == 20
    assert {len(poem) for poem in poems.values()} == {14}
    assert len(set(lines)) == 280
    assert all(line == line.strip() and line.isascii() and 25 < len(line) < 70 for line in lines)
    assert poems[18][0] == "Shall I compare thee to a summer's day?"
    assert poems[116][13] == "I never writ, nor no man ever loved."


def test_exact_for_every_short_length(tokenizer: Tokenizer) -> None:
    for length in range(1, 90):
        prompts = source(tokenizer, length, seed=length)
        for index in range(3):
            prompt = prompts.prompt(index)
            assert prompt.text
            assert tokenizer.count(prompt.text) == prompt.input_tokens == length


def test_exact_for_drawn_lengths(tokenizer: Tokenizer) -> None:
    for seed in (0, 11111, -5):
        prompts = source(tokenizer, 550, 150, seed)
        for index in range(40):
            prompt = prompts.prompt(index)
            assert prompt.text
            assert tokenizer.count(prompt.text) == prompt.input_tokens


@pytest.mark.parametrize("length", [4097, 32000, 128000])
def test_exact_for_long_prompts(tokenizer: Tokenizer, length: int) -> None:
    prompt = source(tokenizer, length).prompt(7)
    assert prompt.text
    assert tokenizer.count(prompt.text) == prompt.input_tokens == length


def test_exact_under_a_tokenizer_of_characters() -> None:
    for length in range(1, 400):
        prompt = source(EveryCharacter(), length).prompt(length)
        assert len(prompt.text or "") == length


def test_the_text_is_a_unique_line_the_instruction_and_lines_in_the_original_wording(
    default_tokenizer: Tokenizer,
) -> None:
    lines = {line for poem in sonnets().values() for line in poem}
    words = {word.lower() for line in lines for word in re.findall("[A-Za-z]+", line)}
    for index in range(50):
        prompt = source(default_tokenizer, 550).prompt(index)
        head = instruction(prompt.max_tokens)
        assert prompt.text
        unique, line_break, text = prompt.text.partition("\n")
        assert len(unique.split(" ")) == UNIQUE_WORDS
        assert set(unique.split(" ")) <= words
        assert line_break
        assert text.startswith(head)
        assert f"with {prompt.max_tokens} output tokens. Don't generate eos tokens:\n\n" in head
        *whole, last = text.removeprefix(head).split("\n")
        assert set(whole) <= lines
        assert len(set(whole)) == len(whole)
        assert any(line.startswith(last.rstrip(".,! aI1")) for line in lines)


def test_no_text_ends_in_white_space(tokenizer: Tokenizer) -> None:
    # Chat templates strip it, and the server would count less than was asked for.
    prompts = source(tokenizer, 300, 100)
    texts = [prompts.prompt(index).text or "" for index in range(60)]
    assert [text for text in texts if text != text.strip()] == []


def test_the_instruction_is_dropped_below_its_own_length(tokenizer: Tokenizer) -> None:
    short = source(tokenizer, 1).prompt(0)
    unique = (source(tokenizer, 500).prompt(0).text or "").partition("\n")[0] + "\n"
    # The cap of index 0 is the same for every input length. At its own length it would end in line breaks, which chat
    # templates strip.
    own = tokenizer.count(unique + instruction(short.max_tokens))
    for length, kept in ((own - 1, False), (own, False), (own + 4, True), (own + 20, True)):
        prompt = source(tokenizer, length).prompt(0)
        assert prompt.text
        assert ("Randomly stream" in prompt.text) is kept
        assert prompt.text.startswith(unique)
        assert prompt.max_tokens == short.max_tokens


def test_prompts_differ_from_the_first_line_on(default_tokenizer: Tokenizer) -> None:
    prompts = source(default_tokenizer, 200)
    texts = [prompts.prompt(index).text or "" for index in range(2000)]
    assert len({text.partition("\n")[0] for text in texts}) == 2000
    bodies = [text.split("\n\n")[1] for text in texts[:560]]
    assert len({body.split("\n")[0] for body in bodies[:280]}) == 280
    assert len({tuple(body.split("\n")[:2]) for body in bodies}) > 550


@pytest.mark.parametrize("length", [64, 550, 8000])
def test_no_prompts_have_a_cache_block_in_common(default_tokenizer: Tokenizer, length: int) -> None:
    """Neither of one run nor of two: a cache keeps blocks of 16 tokens or more. Before: 21 tokens, or all of them."""
    count = 100 if length > 1000 else 400
    keys = {key: source(default_tokenizer, length, run_key=key) for key in ("one", "two")}
    beginnings = {
        key: [default_tokenizer.encode((prompts.prompt(index).text or "")[:400])[:40] for index in range(count)]
        for key, prompts in keys.items()
    }
    assert longest_common([*beginnings["one"], *beginnings["two"]]) <= 6  # two or three words alike


def longest_common(sequences: Sequence[Sequence[int]]) -> int:
    """The longest common prefix of any two of them: two that are neighbours when they are sorted."""
    ordered = sorted(map(tuple, sequences))
    return max(
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        for one, other in pairwise(ordered)
    )


def test_another_run_key_changes_texts_and_nothing_else(tokenizer: Tokenizer) -> None:
    one, two = (source(tokenizer, 120, 60, run_key=key) for key in ("one", "two"))
    for index in range(60):
        first, second = one.prompt(index), two.prompt(index)
        assert (first.input_tokens, first.max_tokens) == (second.input_tokens, second.max_tokens)
        assert tokenizer.count(second.text or "") == second.input_tokens
        assert first.text != second.text
    assert [one.prompt(index) for index in range(5)] == [
        source(tokenizer, 120, 60, run_key="one").prompt(index) for index in range(5)
    ]


def test_a_pure_function_of_seed_run_key_and_index(default_tokenizer: Tokenizer) -> None:
    indices = list(range(60))
    expected = [source(default_tokenizer, 200, 90).prompt(index) for index in indices]
    shared = source(default_tokenizer, 200, 90)
    disorder = indices * 2
    random.Random(3).shuffle(disorder)
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(disorder, pool.map(shared.prompt, disorder), strict=True))
    assert [found[index] for index in indices] == expected
    assert source(default_tokenizer, 200, 90, seed=2).prompt(0) != expected[0]


def test_the_same_in_every_process() -> None:
    program = (
        "import hashlib; from llm_users.distributions import LENGTHS, Distribution;"
        "from llm_users.prompts import load_tokenizer, make_source;"
        "s = make_source(tokenizer=load_tokenizer(None), input_lengths=Distribution.parse('550,150', LENGTHS),"
        "output_lengths=Distribution.parse('150,80', LENGTHS),"
        "seed=11111, run_key='key'); p = [s.prompt(i) for i in range(5)];"
        "print([(q.input_tokens, q.max_tokens) for q in p], hashlib.sha256(str(p).encode()).hexdigest(), sep=chr(10))"
    )
    outputs = {
        subprocess.check_output([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    # What seed 11111 gives, kept from release to release: a run repeated with a newer version sends the same lengths.
    assert outputs.pop().startswith("[(394, 112), (511, 231), (512, 232), (652, 260), (488, 149)]\n")


def test_changing_the_output_lengths_leaves_the_lengths_and_lines(default_tokenizer: Tokenizer) -> None:
    caps = (Distribution.parse("150,80", LENGTHS), Distribution.parse("10", LENGTHS))
    both = [
        make_source(
            tokenizer=default_tokenizer, input_lengths=Distribution.parse("300,50", LENGTHS), output_lengths=cap, seed=1
        ).prompt(4)
        for cap in caps
    ]
    assert both[0].input_tokens == both[1].input_tokens
    assert both[0].max_tokens != both[1].max_tokens
    assert len({(prompt.text or "").split("\n")[2] for prompt in both}) == 1


def test_without_output_lengths_there_is_no_cap(default_tokenizer: Tokenizer) -> None:
    prompt = make_source(
        tokenizer=default_tokenizer, input_lengths=Distribution.parse("99", LENGTHS), output_lengths=None, seed=1
    ).prompt(0)
    assert prompt.max_tokens is None
    assert prompt.text
    assert prompt.text.partition("\n")[2].startswith("Randomly stream lines from the following text. Don't")
    assert default_tokenizer.count(prompt.text) == 99


@pytest.mark.parametrize(("impossible", "length"), [(OneToken(), 550), (OneToken(), 4000), (EveryCharacter(2), 551)])
def test_a_tokenizer_that_cannot_do_it_is_an_error(impossible: Tokenizer, length: int) -> None:
    with pytest.raises(PromptError, match=f"prompt 3: no text of exactly {length} tokens .* 'characters'"):
        source(impossible, length).prompt(3)


@pytest.mark.alone
@pytest.mark.parametrize(("lengths", "count", "most_ms"), [("550,150", 300, 1.5), ("128000,0", 5, 120.0)])
def test_the_cpu_time_of_a_prompt(default_tokenizer: Tokenizer, lengths: str, count: int, most_ms: float) -> None:
    # 0.3 ms and 5 ms; three times the bounds of 0.5 ms and 40 ms. Counting 128,000 tokens takes 160 ms.
    mean, sd = map(float, lengths.split(","))
    prompts = source(default_tokenizer, mean, sd)
    prompts.prompt(0)
    began_s = time.thread_time()
    for index in range(1, count + 1):
        prompts.prompt(index)
    cpu_ms = (time.thread_time() - began_s) / count * 1e3
    print(f"{lengths} tokens: {cpu_ms:.3f} ms of CPU per prompt")
    assert cpu_ms < most_ms
