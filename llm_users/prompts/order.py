"""Seeded random streams that are the same in every process, thread and Python version.

It does not depend on the values that are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random


def stream(seed: int | str, *names: object) -> Random:
    """Return the random stream for one purpose, for example ``stream(seed, index, "lines")``.

    ``seed`` is the seed of the run, or for texts the text seed, which includes the run key (``text_seed_of``).

    Every purpose has a separate stream, so that a change of the output lengths does not change the texts. A string seed
    uses SHA-512 instead of ``hash()``, which differs between processes.
    """
    return Random(":".join(map(str, (seed, *names))))


def text_seed_of(seed: int, run_key: str, purpose: str = "") -> str:
    """Return the seed of generated texts, which, unlike lengths and order, also depend on the run key.

    Texts for different values of ``purpose`` have nothing in common: prompts and conversations have separate numbers.
    """
    return f"{seed}:{run_key}:{purpose}"


def shuffled(rng: Random, numbers: Iterable[int]) -> Iterator[int]:
    """Yield ``numbers`` in random order, drawn one by one.

    It does not use ``Random.shuffle``: only ``random()`` guarantees the same result in all Python versions, and a
    typical prompt uses a sixth of the available lines.
    """
    remaining = list(numbers)
    while remaining:
        index = int(rng.random() * len(remaining))
        remaining[index], remaining[-1] = remaining[-1], remaining[index]
        yield remaining.pop()
