"""Counts the tokens of texts that consist mostly of known lines, without encoding these lines again.

Most tokenizers split texts at line breaks, so the tokens of a line do not depend on the lines around it. ``LineCounts``
checks this for its tokenizer and its lines. If it holds, a text of 128,000 tokens is counted in 3 ms instead of 160 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from llm_users.prompts.tokenizer import Tokenizer

CONTEXT = "so\n"
"""Represents the previous line when the tokens of a line are counted."""


class LineCounts:
    """Counts tokens with ``tokenizer``. The result is always the same as that of the tokenizer.

    ``lines`` must start with a letter and must not contain a line break. ``costs`` are their numbers of tokens after
    ``CONTEXT``, including the line break at the end.
    """

    def __init__(self, tokenizer: Tokenizer, lines: Sequence[str]) -> None:
        self._count = tokenizer.count
        before = tokenizer.encode(CONTEXT)
        self._before = len(before)
        encoded = [tokenizer.encode(f"{CONTEXT}{line}\n") for line in lines]
        self.costs = [len(tokens) - len(before) for tokens in encoded]
        # The joints between two lines: every kind of end with every first word.
        ends = {line[-1].isalnum() or line[-1]: number for number, line in enumerate(lines)}
        starts = {line.partition(" ")[0]: number for number, line in enumerate(lines)}
        numbers = [number for end in ends.values() for start in starts.values() for number in (end, start)]
        expected = [*before, *(token for number in numbers for token in encoded[number][len(before) :])]
        self.independent = tokenizer.encode(CONTEXT + "".join(f"{lines[number]}\n" for number in numbers)) == expected
        """Whether the tokens of a line do not depend on the lines around it."""
        self._known = dict(zip(lines, self.costs, strict=True)) if self.independent else {}

    def count(self, text: str) -> int:
        """Return the number of tokens of a text.

        The text is divided where a known line follows another one. Only the parts with other lines, the first part and
        the last part are encoded, each together with the known lines at its ends.
        """
        lines = text.split("\n")
        cost_of = self._known.get
        costs = [cost_of(line, 0) for line in lines]
        costs[-1] = 0  # it does not end with a line break
        total = begin = 0
        for end, (cost, next_cost) in enumerate(pairwise(costs), 1):
            if cost and next_cost:
                total += cost if begin == end - 1 > 0 else self._count_part(lines[begin:end], begin, "\n")
                begin = end
        return total + self._count_part(lines[begin:], begin, "")

    def _count_part(self, lines: Sequence[str], begin: int, end: str) -> int:
        """Return the number of tokens of lines that start with line ``begin`` of a text."""
        part = "\n".join(lines) + end
        if not begin:  # many tokenizers add a mark at the start of a text
            return self._count(part) if part else 0
        return self._count(CONTEXT + part) - self._before
