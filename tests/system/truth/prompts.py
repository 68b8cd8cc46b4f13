"""What a prefix cache answers of the prompts of a run, and of a second run of the same command.

The cache is vLLM's: blocks of 16 tokens, found by everything before them; here it never forgets. A prompt's cached
tokens are those of its leading blocks that were there before. The right answers follow from what the prompts are meant
to share: nothing, a shared text, or the blocks of a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, takewhile
from typing import Any

from llm_users.distributions import LENGTHS, TURNS, Distribution
from llm_users.prompts import (
    Prefixes,
    PromptSource,
    Tokenizer,
    Trace,
    TraceEntry,
    load_tokenizer,
    make_conversations,
    make_source,
)
from llm_users.prompts.tokenizer import BackendTokenizer
from tests.system.truth.line import TruthLine, at_most, within
from tests.unit.prompts.tokenizers import FAMILIES

BLOCK = 16
TEMPLATE = tuple(range(-20, 0))
"""What a chat template puts before every prompt."""

_FEW_TOKENS = 6
"""Two words of the sonnets are 2 to 6 tokens; of 1,000 prompts some pairs have two first words in common."""


class PrefixCache:
    """Remembers the beginnings of texts in blocks."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def cached(self, ids: Sequence[int]) -> int:
        """Tokens of the leading blocks that are in the cache."""
        keys = self._keys(ids)
        return BLOCK * sum(1 for _ in takewhile(self._known.__contains__, keys))

    def add(self, ids: Sequence[int]) -> None:
        self._known.update(self._keys(ids))

    @staticmethod
    def _keys(ids: Sequence[int]) -> list[int]:
        keys, before = [], 0
        for end in range(BLOCK, len(ids) + 1, BLOCK):
            before = hash((before, *ids[end - BLOCK : end]))
            keys.append(before)
        return keys


def encoded(tokenizer: Tokenizer, prompts: PromptSource, count: int) -> list[list[int]]:
    return [tokenizer.encode(prompts.prompt(index).text or "") for index in range(count)]


def share_within(run: Sequence[Sequence[int]]) -> float:
    """The share of a run's tokens that were cached by its own earlier prompts."""
    cache, cached = PrefixCache(), 0
    for ids in run:
        cached += cache.cached(ids)
        cache.add(ids)
    return cached / sum(map(len, run))


def share_between(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> float:
    """The share of the second run's tokens that the first run left in the cache."""
    cache = PrefixCache()
    for ids in first:
        cache.add(ids)
    return sum(map(cache.cached, second)) / sum(map(len, second))


def longest_common(texts: Iterable[Sequence[int]]) -> int:
    """Tokens of the longest beginning that two of them have in common; these two are neighbours in sorted order."""
    return max(
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        for one, other in pairwise(sorted(map(tuple, texts)))
    )


def lines(*, full: bool) -> Iterable[TruthLine]:
    tokenizer = load_tokenizer(None)
    yield from _generated(tokenizer, full=full)
    yield from _shared(tokenizer, 400 if full else 100)
    yield from _traces(tokenizer, 60 if full else 20)
    yield from _conversations(tokenizer, 100 if full else 30)
    yield from _exact(tokenizer, full=full)


def source(tokenizer: Tokenizer, lengths: str, run_key: str, **more: Any) -> PromptSource:
    length, cap = Distribution.parse(lengths, LENGTHS), Distribution.parse("150,80", LENGTHS)
    return make_source(
        tokenizer=tokenizer, input_lengths=length, output_lengths=cap, seed=11111, run_key=run_key, **more
    )


def _generated(tokenizer: Tokenizer, *, full: bool) -> Iterable[TruthLine]:
    for length, count in ((64, 1000), (550, 1000), (8000, 60)):
        few = count if full else count // 5
        one, two = (encoded(tokenizer, source(tokenizer, f"fixed:{length}", key), few) for key in ("one", "two"))
        name = f"{length}-token prompts"
        yield at_most(f"{name}: cached within a run of {few}", 0.0, share_within(one), "0 %")
        yield at_most(f"{name}: cached by an earlier run", 0.0, share_between(one, two), "0 %")
        yield _tokens(f"{name}: longest common beginning, within and between runs", longest_common([*one, *two]))
        behind = [[*TEMPLATE, *ids] for ids in one]
        right = BLOCK * (few - 1) / sum(map(len, behind))
        yield within(f"{name}: cached behind a chat template of 20 tokens", right, share_within(behind), 0.0)
        repeated = encoded(tokenizer, source(tokenizer, f"fixed:{length}", "one"), few)
        whole = length // BLOCK * BLOCK / length
        yield within(f"{name}: cached when the run key repeats", whole, share_between(one, repeated), 0.0)


def _shared(tokenizer: Tokenizer, count: int) -> Iterable[TruthLine]:
    prefixes = Prefixes(512, 4)
    one, two = (
        encoded(tokenizer, source(tokenizer, "200,60", key, prefixes=prefixes), count) for key in ("one", "two")
    )
    right = 512 * (count - 4) / sum(map(len, one))
    yield within("four shared texts of 512 tokens: cached within a run", right, share_within(one), 0.0)
    yield at_most("four shared texts of 512 tokens: cached by an earlier run", 0.0, share_between(one, two), "0 %")
    more: dict[str, Any] = {"prefixes": prefixes, "cache_bust": "id"}
    busted = encoded(tokenizer, source(tokenizer, "200,60", "one", **more), count)
    yield at_most("the same with --llm-cache-bust: cached within a run", 0.0, share_within(busted), "0 %")
    yield at_most("the same with --llm-cache-bust: cached by an earlier run", 0.0, share_between(one, busted), "0 %")


def _traces(tokenizer: Tokenizer, count: int) -> Iterable[TruthLine]:
    """Entry i has the blocks 1, 2 and the beginning of one that no other has."""
    for block, tokens in ((512, 1500), (16, 47)):
        entries = [TraceEntry(float(index), tokens, 9, (1, 2, 100 + index)) for index in range(count)]
        trace = Trace("made", "mooncake", entries, block_tokens=block)
        one, two = (encoded(tokenizer, source(tokenizer, "1", key, trace=trace), count) for key in ("one", "two"))
        right = 2 * block * (count - 1) / (tokens * count)
        name = f"trace that shares two blocks of {block}"
        yield within(f"{name}: cached within a run", right, share_within(one), 0.03)
        yield at_most(f"{name}: cached by an earlier run", 0.0, share_between(one, two), "0 %")


def _conversations(tokenizer: Tokenizer, count: int) -> Iterable[TruthLine]:
    runs = []
    for key in ("one", "two"):
        talks = make_conversations(
            tokenizer=tokenizer, turn_counts=Distribution.parse("fixed:3", TURNS),
            input_lengths=Distribution.parse("60,20", LENGTHS),
            output_lengths=None, seed=11111, run_key=key,
        )  # fmt: skip
        turns = [turn for index in range(count) for turn in talks.prompt(index).turns]
        runs.append([tokenizer.encode(str(turn.messages[0]["content"])) for turn in turns])
    yield at_most("turns of made conversations: in common within a run", 0.0, share_within(runs[0]), "0 %")
    yield at_most("turns of made conversations: in common with another run", 0.0, share_between(*runs), "0 %")


def _exact(default: Tokenizer, *, full: bool) -> Iterable[TruthLine]:
    """Token counts against the tokenizer, and equal for the same seed and index whatever the run key."""
    names = list(FAMILIES) if full else ["metaspace_unsplit"]
    tokenizers = [default, *(BackendTokenizer(name, "", FAMILIES[name]()) for name in names)]
    distributions = [*(f"fixed:{length}" for length in range(1, 80, 1 if full else 6)), "550,150", "lognormal:800,600"]
    wrong = unpaired = prompts = 0
    for tokenizer in tokenizers:
        for text in distributions:
            one, two = (source(tokenizer, text, key) for key in ("one", "two"))
            for index in range(40 if "," in text else 3):
                first, second = one.prompt(index), two.prompt(index)
                prompts += 1
                wrong += tokenizer.count(first.text or "") != first.input_tokens
                wrong += tokenizer.count(second.text or "") != second.input_tokens
                unpaired += (first.input_tokens, first.max_tokens) != (second.input_tokens, second.max_tokens)
    yield at_most(
        f"{2 * prompts} prompts under {len(tokenizers)} tokenizers: wrong length", 0.0, wrong / prompts, "0 %"
    )
    yield at_most("lengths or caps that differ between two run keys", 0.0, unpaired / prompts, "0 %")


def _tokens(figure: str, ours: int) -> TruthLine:
    return TruthLine(figure, "a few", f"{ours} tokens", f"<= {_FEW_TOKENS}", ours <= _FEW_TOKENS)
