"""Prompts of a trace: exactly the length of entry i, and the same text for entries with the same hashes.

It does not depend on the send times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

from llm_users.prompts.draws import endless, stream
from llm_users.prompts.openings import Openings
from llm_users.prompts.prompt import Prompt, PromptError
from llm_users.prompts.sonnets import sonnet_texts
from llm_users.prompts.tokenizer import Tokenizer
from llm_users.prompts.trace import Trace, TraceEntry

_TOKENS_KEPT = 8192 * 512  # tokens of cached blocks, about 16 MB of text
_CONTEXT = "so\n"  # represents the previous line when the cost of a block is counted
_CORRECTIONS = 3
_ATTEMPTS = 10  # per block; sufficient for all of 7,000 blocks of 8 to 512 tokens with six tokenizers
_SHORT_BLOCK = 16


class TraceSource:
    """Prompt i is entry i: one block of lines per hash, then a part of a block or lines of this entry.

    A block depends only on its hash and on the text seed (built from the seed and the run key). It has the number of
    tokens of the trace (``block_tokens``) and ends with a line break, so that the text after it does not change its
    token count. Blocks, and lines of a single entry, start with a few unique digits: different hashes have different
    texts. The cache-busting head of a prompt is part of its length.
    """

    different: int | None = None

    def __init__(self, tokenizer: Tokenizer, trace: Trace, text_seed: str, openings: Openings) -> None:
        self._tokenizer, self._text_seed, self._openings = tokenizer, text_seed, openings
        self._texts = sonnet_texts(tokenizer)
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
        for head in dict.fromkeys((opening, "")):  # a prompt that is too short has no opening
            for blocks in range(whole, max(-1, whole - 2), -1):
                text = self._build(head, index, entry, blocks)
                if text is not None:
                    return text
        raise PromptError(
            f"entry {index} of the trace: no text of exactly {entry.input_tokens} tokens could be built with tokenizer "
            f"{self._tokenizer.name!r}. Check that this tokenizer counts ordinary text, or choose another "
            "(--llm-tokenizer)"
        )

    def _build(self, head: str, index: int, entry: TraceEntry, count: int) -> str | None:
        """Return ``head``, ``count`` complete blocks (fewer if they are too long), and the rest, or None."""
        blocks = [self._block(number) for number in entry.hash_ids[:count]]
        left = entry.input_tokens - sum(cost for _, cost in blocks) - (self._cost(head) if head else 0)
        while blocks and left < 1:
            left += blocks.pop()[1]
        if left < 1:
            return None
        head += "".join(text for text, _ in blocks)
        rest = ("block", entry.hash_ids[len(blocks)]) if len(blocks) < len(entry.hash_ids) else ("entry", index)
        for mark in (self._mark(rest), ""):  # the rest can be shorter than its mark
            text = self._end(head, mark, rest, left, entry.input_tokens)
            if text is not None:
                return text
        return None

    def _end(self, head: str, mark: str, rest: tuple[str, int], left: int, tokens: int) -> str | None:
        """Return ``head`` and lines of ``rest``: ``left`` tokens by estimate, ``tokens`` in total; None if not found.

        The lines are fitted to the last line of ``head`` only, so that a head of 100,000 tokens is counted only once or
        twice.
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
            count = self._count(text)
            if count == tokens:
                return text
            left += tokens - count
        return None

    def _make_block(self, number: int) -> tuple[str, int]:
        """Return the text of a hash and the number of tokens that it adds."""
        name, target = ("block", number), self._block_tokens - 1
        best: tuple[str, int] | None = None
        for attempt in range(_ATTEMPTS):
            # The first two attempts use the same lines. If one has a token too few and the next one a token too many,
            # other lines can have the exact length.
            if attempt > 1:
                target = self._block_tokens - attempt % 2
            lines = self._texts.build(self._mark(name), self._order((*name, attempt) if attempt > 1 else name), target)
            if lines is None:
                continue
            block = lines.removesuffix("\n") + "\n"
            cost = self._cost(block)
            if best is None or abs(cost - self._block_tokens) < abs(best[1] - self._block_tokens):
                best = (block, cost)
            if cost == self._block_tokens:
                break
            target += self._block_tokens - cost
        if best is None:
            raise PromptError(
                f"no shared text of {self._block_tokens} tokens could be built with tokenizer "
                f"{self._tokenizer.name!r}; choose another (--llm-tokenizer)"
            )
        return best

    def _cost(self, text: str) -> int:
        """Return the number of tokens that lines add after other lines."""
        return self._count(_CONTEXT + text) - self._count(_CONTEXT)

    def _mark(self, name: tuple[str, int]) -> str:
        """Return a mark of 12 hexadecimal digits; 4 digits for blocks of fewer than 16 tokens.

        12 digits can take 9 tokens. With 12 digits and a million blocks, two marks are equal once in 560 traces, and
        then the lines still differ.
        """
        text = f"{self._text_seed}:{name[0]}:{name[1]}".encode()
        return hashlib.blake2b(text, digest_size=6 if self._block_tokens >= _SHORT_BLOCK else 2).hexdigest() + "\n"

    def _order(self, name: tuple[object, ...]) -> Iterator[int]:
        return endless(stream(self._text_seed, "trace", *name), self._texts.lines)
