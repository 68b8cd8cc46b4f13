"""Seeded draws that are the same in every process, thread and Python version: random streams, orders and lengths.

The lengths of prompt i and of its answer depend on the seed and i only; they come in pairs if a mix defines both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from random import Random

from llm_users.distributions import LENGTHS, Distribution, DistributionError, Mixed
from llm_users.prompts.prompt import PromptError

_MIX_SHAPE = (
    "write WEIGHT:INPUT/OUTPUT[,...] in tokens, for example 80:500/100,20:4000/500; a distribution such as "
    "lognormal:500,300 can replace a number"
)
# A comma inside a distribution precedes a single number. A new part starts with its weight and a colon.
_NEXT_PART = re.compile(r"[,;](?=\s*[\d.]+\s*:)")


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

    It does not use ``Random.shuffle``: only ``random()`` guarantees the same result in all Python versions.
    """
    remaining = list(numbers)
    while remaining:
        index = int(rng.random() * len(remaining))
        remaining[index], remaining[-1] = remaining[-1], remaining[index]
        yield remaining.pop()


def passes(rng: Random, count: int, first: int | None = None) -> Iterator[list[int]]:
    """Yield the numbers below ``count`` in random orders without end, ``first`` at the start if given.

    Each pass is complete and sorted by random keys, which takes a third of the time of drawing the numbers one by one.
    """
    draw = rng.random
    while True:
        keys = [draw() for _ in range(count)]
        order = sorted(range(count), key=keys.__getitem__)
        if first is not None:
            order.remove(first)
            order.insert(0, first)
            first = None
        yield order


def parse_mix(text: str) -> tuple[Distribution, Distribution]:
    """Parse the lengths of inputs and outputs from ``80:500/100,20:4000/500``. Raises ``PromptError``.

    ``length_at`` selects the same part of both for the same prompt.
    """
    weights, inputs, outputs = [], [], []
    for part in _NEXT_PART.split(text):
        weight, colon, lengths = part.partition(":")
        input_text, slash, output_text = lengths.partition("/")
        try:
            weights.append(float(weight))
        except ValueError:
            colon = ""
        if not (colon and slash and 0 < weights[-1] < math.inf):
            raise PromptError(f"{part[:40]!r} is not a part of a mix of lengths; {_MIX_SHAPE}")
        try:
            inputs.append(Distribution.parse(input_text, LENGTHS))
            outputs.append(Distribution.parse(output_text, LENGTHS))
        except DistributionError as error:
            raise PromptError(f"mix of lengths: {error}") from None
    return Mixed(weights, inputs), Mixed(weights, outputs)


def length_at(lengths: Distribution, seed: int, index: int, purpose: str) -> int:
    """Return the length, in tokens or turns, of prompt ``index`` for ``purpose`` (``input``, ``output`` or ``turns``).

    It is a pure function of its arguments: it does not depend on the process or on the source of the text.
    """
    if isinstance(lengths, Mixed):
        lengths = lengths.choose(stream(seed, index, "mix"))
    return int(lengths.draw(stream(seed, index, purpose)))


def draw_cap(lengths: Distribution | None, seed: int, index: int) -> int | None:
    """Return the cap on the output tokens of prompt ``index``; None: no cap."""
    return None if lengths is None else length_at(lengths, seed, index, "output")
