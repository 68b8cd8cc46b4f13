"""A line of random words that makes a text differ from all others within its first few tokens.

A prefix cache holds a text from its first token on, so what differs must come first. Knows no prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from random import Random

UNIQUE_WORDS = 6
"""Of the sonnets' 850 words that is 58 bits: in a million prompts two lines are alike once in 700,000 runs. The first
two words are alike in one pair of 700,000, so a common prefix stays far below a cache block of 16 tokens."""

_SHORTEST = 3


def vocabulary_of(lines: Iterable[str]) -> tuple[str, ...]:
    """The different words of 3 or more letters in ``lines``, in lower case, sorted."""
    words = {word.lower() for line in lines for word in re.findall(r"[A-Za-z]+", line)}
    return tuple(sorted(word for word in words if len(word) >= _SHORTEST))


def unique_line(vocabulary: Sequence[str], rng: Random) -> str:
    """``UNIQUE_WORDS`` words and a line break, drawn with ``rng``."""
    # Only random() gives the same numbers in all Python versions.
    return " ".join(vocabulary[int(rng.random() * len(vocabulary))] for _ in range(UNIQUE_WORDS)) + "\n"
