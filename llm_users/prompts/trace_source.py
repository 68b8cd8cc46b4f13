"""Prompts of a trace: entry i's length to the token, and the same text wherever entries have the same hashes.

Knows nothing of when they are sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

from llm_users.prompts.exact import ExactText
from llm_users.prompts.openings import Openings
from llm_users.prompts.order import shuffled, stream
from llm_users.prompts.prompt import Prompt, PromptError
from llm_users.prompts.tokenizer import Tokenizer
from llm_users.prompts.trace import Trace, TraceEntry

_TOKENS_KEPT = 8192 * 512  # of blocks, about 16 MB of text
_CONTEXT = "so\n"  # stands for the line before when the cost of a block is counted
_CORRECTIONS = 3
_ATTEMPTS = 10  # for a block; with them all of 7,000 blocks of 8 to 512 tokens had their length, under six tokenizers
_SHORT_BLOCK = 16


class TraceSource:
    """Prompt i is entry i: blocks of lines, one for each hash, then a part of a block or lines of its own.

    A block depends only on its hash and on the text seed (made of the seed and the run key). It has as many tokens as
    the trace says (``block_tokens``) and ends with its last line, so that what follows does not change how it is
    counted. Blocks, and lines that belong to one entry, begin with a few digits that no other has: where hashes differ,
    texts do. What opens a prompt against caches is part of its length.
    """

    different: int | None = None

    def __init__(
        self, tokenizer: Tokenizer, texts: ExactText, trace: Trace, text_seed: str, openings: Openings
    ) -> None:
        self._tokenizer, self._texts, self._text_seed, self._openings = tokenizer, texts, text_seed, openings
        self._count = tokenizer.count
        self._entries = trace.entries
        self._block_tokens = trace.block_tokens
        self._block = lru_cache(max(1, _TOKENS_KEPT // trace.block_tokens))(self._make_block)
        self.notes: tuple[str, ...] = (*trace.guesses, *([trace.describe()] if trace.skipped else []))

    def prompt(self, index: int) -> Prompt:
        entry = self._entries[index % len(self._entries)]
        return Prompt(index, self._text(index, entry), None, entry.input_tokens, entry.output_tokens)

    def _text(self, index: int, entry: TraceEntry) -> str:
        opening = self._openings.text(index)
        whole = min(len(entry.hash_ids), (entry.input_tokens - 1) // self._block_tokens)
        for head in dict.fromkeys((opening, "")):  # too short for what opens it: then without
            for blocks in range(whole, max(-1, whole - 2), -1):
                text = self._build(head, index, entry, blocks)
                if text is not None:
                    return text
        raise PromptError(
            f"entry {index} of the trace: no text of exactly {entry.input_tokens} tokens could be made under tokenizer "
            f"{self._tokenizer.name!r}. Check that this tokenizer counts ordinary text, or choose another "
            "(--llm-tokenizer)"
        )

    def _build(self, head: str, index: int, entry: TraceEntry, count: int) -> str | None:
        """``head``, ``count`` whole blocks (fewer if they are too long), and the rest."""
        blocks = [self._block(number) for number in entry.hash_ids[:count]]
        left = entry.input_tokens - sum(cost for _, cost in blocks) - (self._cost(head) if head else 0)
        while blocks and left < 1:
            left += blocks.pop()[1]
        if left < 1:
            return None
        head += "".join(text for text, _ in blocks)
        rest = ("block", entry.hash_ids[len(blocks)]) if len(blocks) < len(entry.hash_ids) else ("entry", index)
        for mark in (self._mark(rest), ""):  # the rest may be shorter than its mark
            text = self._end(head, mark, rest, left, entry.input_tokens)
            if text is not None:
                return text
        return None

    def _end(self, head: str, mark: str, rest: tuple[str, int], left: int, tokens: int) -> str | None:
        """``head`` and lines of ``rest``, ``left`` tokens by estimate and ``tokens`` in all.

        The lines are fitted behind the last one of ``head`` alone: a head of 100,000 tokens is counted once or twice.
        """
        before = head[head.rfind("\n", 0, -1) + 1 :]
        before_tokens = self._count(before) if before else 0
        for _ in range(_CORRECTIONS):
            if left < 1:
                return None
            built = self._texts.build(before + mark, self._order(rest), before_tokens + left)
            if built is None or built.endswith("\n"):  # chat templates strip a line break at the end
                return None
            if not head:
                return built
            text = head + built[len(before) :]
            found = self._count(text)
            if found == tokens:
                return text
            left += tokens - found
        return None

    def _make_block(self, number: int) -> tuple[str, int]:
        """The text of a hash, and the tokens that it adds."""
        name, target = ("block", number), self._block_tokens - 1
        best: tuple[str, int] | None = None
        for attempt in range(_ATTEMPTS):
            # The first two of the same lines. Where one has a token too few and the next one too many, others fit.
            if attempt > 1:
                target = self._block_tokens - attempt % 2
            lines = self._texts.build(self._mark(name), self._order((*name, attempt) if attempt > 1 else name), target)
            if lines is None:
                continue
            made = lines.removesuffix("\n") + "\n"
            cost = self._cost(made)
            if best is None or abs(cost - self._block_tokens) < abs(best[1] - self._block_tokens):
                best = (made, cost)
            if cost == self._block_tokens:
                break
            target += self._block_tokens - cost
        if best is None:
            raise PromptError(
                f"no shared text of {self._block_tokens} tokens could be made under tokenizer "
                f"{self._tokenizer.name!r}; choose another (--llm-tokenizer)"
            )
        return best

    def _cost(self, text: str) -> int:
        """The tokens that lines add behind others."""
        return self._count(_CONTEXT + text) - self._count(_CONTEXT)

    def _mark(self, name: tuple[str, int]) -> str:
        """12 hexadecimal digits: two alike in a million blocks once in 560 traces, and then the lines still differ.

        4 where blocks are shorter than 16 tokens, of which 12 digits may take 9.
        """
        text = f"{self._text_seed}:{name[0]}:{name[1]}".encode()
        return hashlib.blake2b(text, digest_size=6 if self._block_tokens >= _SHORT_BLOCK else 2).hexdigest() + "\n"

    def _order(self, name: tuple[object, ...]) -> Iterator[int]:
        """Numbers of lines, endless; each pass takes every line once."""
        rng = stream(self._text_seed, "trace", *name)
        while True:
            yield from shuffled(rng, range(self._texts.lines))
