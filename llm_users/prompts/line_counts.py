"""Counts the tokens of texts that consist mostly of known lines, without encoding these lines again.

Most tokenizers split texts at line breaks, so the tokens of a line do not depend on the lines around it. ``LineCounts``
checks this for its tokenizer and its lines. If it holds, a text of 128,000 tokens is counted in 3 ms instead of 160 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from llm_users.prompts.tokenizer import Tokenizer

CONTEXT = "so\n"
"""Represents the previous line when the tokens of a line are counted."""

_FEWEST_LINES = 6  # a shorter text is encoded completely


class LineCounts:
    """Counts tokens with ``tokenizer``, with the same result as ``tokenizer.count``.

    ``lines`` must start with a letter and must not contain a line break. ``costs`` are their numbers of tokens after
    ``CONTEXT``, including the line break at the end.
    """

    def __init__(self, tokenizer: Tokenizer, lines: Sequence[str]) -> None:
        self._count = tokenizer.count
        before = tokenizer.encode(CONTEXT)
        self._before = len(before)
        encoded = [tokenizer.encode(f"{CONTEXT}{line}\n") for line in lines]
        self.costs = [len(tokens) - len(before) for tokens in encoded]
        # All kinds of joints between two lines: every last character, with one letter for all, before every first word.
        ends = {line[-1].isalnum() or line[-1]: number for number, line in enumerate(lines)}
        starts = {line.partition(" ")[0]: number for number, line in enumerate(lines)}
        numbers = [number for end in ends.values() for start in starts.values() for number in (end, start)]
        expected = [*before, *(token for number in numbers for token in encoded[number][len(before) :])]
        text = CONTEXT + "".join(f"{lines[number]}\n" for number in numbers)
        self.independent = min(self.costs) > 0 and tokenizer.encode(text) == expected
        """Whether the tokens of a line do not depend on the lines around it."""
        self._known = dict(zip(lines, self.costs, strict=True)) if self.independent else {}

    def count(self, text: str) -> int:
        """Return the number of tokens of a text.

        Only the first line, the last line and unknown lines are encoded, each together with the known line before it
        and the known line after it. So every joint of two lines is either encoded, or a joint of two known lines.
        """
        lines = text.split("\n")
        if len(lines) < _FEWEST_LINES or not self._known:
            return self._count(text)
        costs = list(map(self._known.get, lines, repeat(0)))
        costs[0] = costs[-1] = 0  # many tokenizers add a mark at the start, and no line break follows the last line
        total, begin, unknown, last = sum(costs), 0, 0, len(lines) - 1
        while unknown < last:
            following = costs.index(0, unknown + 1)
            if following - unknown > 2:  # otherwise both are in one part, with a known line between them or without
                total += self._added(lines, costs, begin, unknown + 2)
                begin = following - 1
            unknown = following
        return total + self._added(lines, costs, begin, last + 1)

    def _added(self, lines: list[str], costs: list[int], begin: int, end: int) -> int:
        """Return the tokens of lines ``begin`` to ``end`` - 1 of a text, less the costs of the known lines of these."""
        part = "\n".join(lines[begin:end]) + ("\n" if end < len(lines) else "")
        tokens = self._count(part) if begin == 0 else self._count(CONTEXT + part) - self._before
        return tokens - sum(costs[begin:end])
