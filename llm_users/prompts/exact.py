"""Builds texts of exactly N tokens from complete lines and a cut last line, for any tokenizer.

A prefix cache stores a text from its first token, so texts that must differ start with a line of random words.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from llm_users.prompts.line_counts import CONTEXT, LineCounts
from llm_users.prompts.tokenizer import Tokenizer

UNIQUE_WORDS = 6
"""With the sonnets' 850 words, 6 words have 58 bits: in a million prompts, two lines are equal once in 700,000 runs.
The first two words are equal in one of 700,000 pairs, so a common prefix is much shorter than a cache block of 16
tokens."""

_SHORTEST = 3  # letters of a word

# At most one correction was needed in 4,000 prompts of around 60 and 550 tokens with five kinds of tokenizers.
_CORRECTIONS = 8
# Appended to a line, or to a word of it, when no cut has the required number of tokens. In most vocabularies, every
# filler is one token.
_FILLERS = (".", ",", "!", " a", " I", "a", "1", "..", ". .", " a a")


class ExactText:
    """Builds texts of an exact token count from ``lines``, which must not be empty.

    A text is a cut of the original wording and never decoded from token ids: with some tokenizers, decoding loses line
    breaks or case, and the result can encode to another number of tokens. Instead, the length is estimated from the
    costs of the single lines, the text is counted, and the estimate is corrected by the difference. With a tokenizer
    that splits at line breaks, the estimate is nearly always exact, and the count encodes only the start and the end of
    the text.
    """

    def __init__(self, tokenizer: Tokenizer, lines: Sequence[str]) -> None:
        counts = LineCounts(tokenizer, lines)
        self._count = counts.count
        self._lines = lines
        self._pieces = [f"{line}\n" for line in lines]
        words = {word.lower() for line in lines for word in re.findall(r"[A-Za-z]+", line)}
        self._vocabulary = sorted(word for word in words if len(word) >= _SHORTEST)
        # At least 1, so that drawing lines ends even with a tokenizer that encodes every text as one token.
        self._costs = [max(1, cost) for cost in counts.costs]
        # Filled on demand; two threads may compute the same entry, with equal results.
        self._cuts: dict[tuple[int, bool, bool], dict[int, str]] = {}

    @property
    def lines(self) -> int:
        """The number of lines that texts are built from."""
        return len(self._lines)

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return self._count(text) if text else 0

    def unique_line(self, rng: Random) -> str:
        """Return ``UNIQUE_WORDS`` words of the lines, drawn with ``rng``, and a line break."""
        # Only random() guarantees the same numbers in all Python versions.
        words = self._vocabulary
        return " ".join(words[int(rng.random() * len(words))] for _ in range(UNIQUE_WORDS)) + "\n"

    def build(
        self, head: str, order: Iterator[Sequence[int]], tokens: int, head_tokens: int | None = None
    ) -> str | None:
        """Return ``head`` and lines in ``order`` (endless passes) with exactly ``tokens`` tokens, or None.

        ``head`` is never cut: the result is None when it is too long, or when no text of this length was found.
        ``head_tokens`` is its number of tokens, if known.
        """
        if head_tokens is None:
            head_tokens = self.count(head)
        if head_tokens >= tokens:
            return head if head and head_tokens == tokens else None
        draft = _Draft(self._pieces, head, head_tokens)
        target, tried = tokens, {0}
        for _ in range(_CORRECTIONS):
            # The upper bound stops a tokenizer whose count does not grow with the text.
            if target <= head_tokens or target in tried or target > 2 * tokens + 64:
                break
            tried.add(target)
            while draft.ends[-1] < target:
                lines = next(order)
                draft.lines += lines
                draft.ends += accumulate(map(self._costs.__getitem__, lines), initial=draft.ends.pop())
            text = self._cut_at(draft, target)
            count = self._count(text)
            if count == tokens:
                return text
            target += tokens - count
        return self._search(draft, min(max(target, head_tokens + 1), draft.ends[-1]), tokens)

    def _cut_at(self, draft: _Draft, target: int) -> str:
        """Return the draft, cut at ``target`` tokens by estimate, after a complete word if possible."""
        at = bisect_left(draft.ends, target) - 1  # the line in which the target lies
        need = target - draft.ends[at]
        words = self._cuts_of(draft, at, words_only=True)
        if need in words:
            return draft.text(at, words[need])
        cuts = self._cuts_of(draft, at)
        if need in cuts:
            return draft.text(at, cuts[need])
        if at > 0:
            longer = self._cuts_of(draft, at - 1)
            cost = need + self._costs[draft.lines[at - 1]]
            if cost in longer:
                return draft.text(at - 1, longer[cost])
        return draft.text(at, cuts[min(cuts, key=lambda cost: abs(cost - need))])

    def _search(self, draft: _Draft, target: int, tokens: int) -> str | None:
        """Try every cut of the three lines around ``target``, also with fillers, the nearest estimates first."""
        at = bisect_left(draft.ends, target) - 1
        candidates: list[tuple[int, str, str]] = []
        for line in range(max(0, at - 1), min(at + 2, len(draft.lines))):
            cuts = self._all_cuts(draft, line)
            cuts += [word + filler for word in self._word_cuts(draft, line)[1:] for filler in _FILLERS]
            before, start = draft.text(line, ""), self._at_start(draft, line)
            for cost, cut in self._costed(cuts, start):
                candidates.append((abs(draft.ends[line] + cost - target), before, cut))
        candidates.sort(key=lambda candidate: candidate[0])
        texts = (before + cut for _, before, cut in candidates)
        return next((text for text in texts if self._count(text) == tokens), None)

    def _cuts_of(self, draft: _Draft, at: int, *, words_only: bool = False) -> dict[int, str]:
        """Return a mapping of cost to cut of the draft's line ``at``, with the most similar cut for every cost."""
        start = self._at_start(draft, at)
        key = (draft.lines[at], start, words_only)
        if key not in self._cuts:
            candidates = self._word_cuts(draft, at) if words_only else self._all_cuts(draft, at)
            # Reversed, because the first candidate of a cost is the best one and must overwrite the others.
            self._cuts[key] = dict(reversed(self._costed(candidates, start)))
        return self._cuts[key]

    def _costed(self, cuts: list[str], start: bool) -> list[tuple[int, str]]:
        context = "" if start else CONTEXT
        before = self._count(context) if context else 0
        return [(self._count(context + cut) - before, cut) for cut in cuts]

    def _word_cuts(self, draft: _Draft, at: int) -> list[str]:
        line = self._lines[draft.lines[at]]
        return [line[:end] for end in range(len(line), 0, -1) if end == len(line) or line[end] == " "]

    def _all_cuts(self, draft: _Draft, at: int) -> list[str]:
        # No cut ends in white space, which many chat templates strip: the server would count fewer tokens.
        line = self._lines[draft.lines[at]]
        inside = [line[:end] for end in range(len(line) - 1, 0, -1) if line[end - 1] != " "]
        alone = [filler.strip() for filler in _FILLERS] if self._at_start(draft, at) else []
        return self._word_cuts(draft, at) + inside + [line + filler for filler in _FILLERS] + alone

    @staticmethod
    def _at_start(draft: _Draft, at: int) -> bool:
        """Return whether the draft's line ``at`` starts the text, where many tokenizers add a mark."""
        return at == 0 and not draft.head


class _Draft:
    """Complete lines after a head. ``ends[i]`` is the estimated count before line i, ``ends[-1]`` the total.

    ``pieces`` are the texts that ``lines`` refers to.
    """

    def __init__(self, pieces: Sequence[str], head: str, head_tokens: int) -> None:
        self.pieces = pieces
        self.head = head
        self.lines: list[int] = []
        self.ends: list[int] = [head_tokens]

    def text(self, at: int, cut: str) -> str:
        """Return the text with the lines before ``at``, and ``cut`` instead of line ``at``."""
        return self.head + "".join(map(self.pieces.__getitem__, self.lines[:at])) + cut
