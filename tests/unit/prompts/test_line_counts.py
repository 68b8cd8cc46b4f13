"""Counts of texts from known lines: equal to the tokenizer's counts, and known lines are not encoded again."""

from __future__ import annotations

from itertools import islice
from random import Random

from tokenizers import Tokenizer as Backend
from tokenizers import models, trainers

from llm_users.distributions import LENGTHS, Distribution
from llm_users.prompts import Tokenizer, make_source
from llm_users.prompts.draws import passes
from llm_users.prompts.line_counts import CONTEXT, LineCounts
from llm_users.prompts.sonnets import instruction, sonnets
from llm_users.prompts.tokenizer import BackendTokenizer
from tests.unit.prompts.tokenizers import POEMS

LINES = [line for poem in sonnets().values() for line in poem]
OTHERS = ["", "", "An unknown line", "Wisdom shame eyes", "0a1b2c3d4e5f", "  two spaces ", *instruction(9).split("\n")]


class Recorder:
    """Passes texts on to a tokenizer and adds up their characters."""

    name, digest = "recorder", ""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.characters = 0

    def count(self, text: str) -> int:
        self.characters += len(text)
        return self._tokenizer.count(text)

    def encode(self, text: str) -> list[int]:
        self.characters += len(text)
        return self._tokenizer.encode(text)


def across_lines() -> Backend:
    """Return a tokenizer that merges characters across words and line breaks."""
    backend = Backend(models.BPE())
    backend.train_from_iterator(POEMS, trainers.BpeTrainer(vocab_size=3000, show_progress=False))
    return backend


def mixed_texts(count: int) -> list[str]:
    """Return texts of known lines, other lines and cut lines, in random order and of random length."""
    rng = Random(7)
    texts = []
    for _ in range(count):
        known = rng.choice([0.0, 0.5, 0.9, 0.98])
        lines = [rng.choice(LINES if rng.random() < known else OTHERS) for _ in range(rng.randint(0, 60))]
        last = rng.choice(LINES)
        texts.append("\n".join([*lines, last[: rng.randint(0, len(last))].rstrip()]))
    return texts


def test_counts_equal_those_of_the_tokenizer(tokenizer: Tokenizer) -> None:
    counts = LineCounts(tokenizer, LINES)
    assert counts.independent
    texts = mixed_texts(400)
    assert [counts.count(text) for text in texts] == [tokenizer.count(text) for text in texts]


def test_a_tokenizer_that_merges_across_lines_encodes_the_complete_text() -> None:
    tokenizer = BackendTokenizer("across", "", across_lines())
    counts = LineCounts(tokenizer, LINES)
    text = CONTEXT + "".join(f"{line}\n" for line in LINES)
    assert sum(counts.costs) + tokenizer.count(CONTEXT) > tokenizer.count(text)
    assert not counts.independent
    assert [counts.count(text) for text in mixed_texts(50)] == [tokenizer.count(text) for text in mixed_texts(50)]


def test_prompts_are_exact_with_a_tokenizer_that_merges_across_lines() -> None:
    tokenizer = BackendTokenizer("across", "", across_lines())
    lengths = Distribution.parse("300,200", LENGTHS)
    prompts = make_source(tokenizer=tokenizer, input_lengths=lengths, output_lengths=None, seed=3)
    for index in range(60):
        prompt = prompts.prompt(index)
        assert tokenizer.count(prompt.text or "") == prompt.input_tokens


def test_known_lines_are_not_encoded_again(default_tokenizer: Tokenizer) -> None:
    recorder = Recorder(default_tokenizer)
    counts = LineCounts(recorder, LINES)
    order = [number for numbers in islice(passes(Random(1), len(LINES)), 20) for number in numbers]
    parts = ["A head", *(LINES[number] for number in order[:3000]), "", "In between", *LINES, "The end"]
    recorder.characters = 0
    assert counts.count("\n".join(parts)) == default_tokenizer.count("\n".join(parts))
    assert recorder.characters < 400


def test_each_pass_has_every_number_and_the_first_one_starts_with_the_given_number() -> None:
    first, second, third = islice(passes(Random(1), 280, 17), 3)
    assert first[0] == 17
    assert sorted(first) == sorted(second) == sorted(third) == list(range(280))
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    assert first == next(passes(Random(1), 280, 17))
