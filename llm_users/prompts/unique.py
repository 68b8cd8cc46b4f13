"""Generates a line of random words that makes a text unique within its first few tokens.

A prefix cache stores a text from its first token, so the unique part must come first. It does not depend on prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from random import Random

UNIQUE_WORDS = 6
"""With the sonnets' 850 words, 6 words have 58 bits: in a million prompts, two lines are equal once in 700,000 runs.
The first two words are equal in one of 700,000 pairs, so a common prefix is much shorter than a cache block of 16
tokens."""

_SHORTEST = 3


def vocabulary_of(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the different words of 3 or more letters in ``lines``, in lower case, sorted."""
    words = {word.lower() for line in lines for word in re.findall(r"[A-Za-z]+", line)}
    return tuple(sorted(word for word in words if len(word) >= _SHORTEST))


def unique_line(vocabulary: Sequence[str], rng: Random) -> str:
    """Return ``UNIQUE_WORDS`` words, drawn with ``rng``, and a line break."""
    # Only random() guarantees the same numbers in all Python versions.
    return " ".join(vocabulary[int(rng.random() * len(vocabulary))] for _ in range(UNIQUE_WORDS)) + "\n"
