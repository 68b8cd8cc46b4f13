"""Seeded chance that is the same in every process, thread and Python version.

Knows nothing of what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random


def stream(seed: int | str, *names: object) -> Random:
    """The random stream of one purpose, e.g. ``stream(seed, index, "lines")``.

    ``seed`` is the seed of the run, or for texts the text seed, which also holds the run key (``text_seed_of``).

    Every purpose has its own, so that changing the output lengths leaves the texts as they were. A string seed goes
    through SHA-512 and not through ``hash()``, which differs from process to process.
    """
    return Random(":".join(map(str, (seed, *names))))


def text_seed_of(seed: int, run_key: str, purpose: str = "") -> str:
    """What generated texts are drawn from: unlike lengths and order, they also depend on the run key.

    Texts of another ``purpose`` have nothing in common with these: prompts and conversations are numbered apart.
    """
    return f"{seed}:{run_key}:{purpose}"


def shuffled(rng: Random, numbers: Iterable[int]) -> Iterator[int]:
    """``numbers`` in random order, drawn one by one.

    Not ``Random.shuffle``: only ``random()`` is promised to give the same in all Python versions, and a usual prompt
    takes a sixth of the lines it could have.
    """
    left = list(numbers)
    while left:
        pick = int(rng.random() * len(left))
        left[pick], left[-1] = left[-1], left[pick]
        yield left.pop()
