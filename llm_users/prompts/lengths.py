"""The laws that lengths are drawn from: Gaussian as LLMPerf has it, lognormal, uniform, fixed, and mixes of them.

Knows nothing of texts.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

from llm_users.prompts.order import stream
from llm_users.prompts.prompt import PromptError

_SHAPE = (
    "write MEAN[,SD] in tokens, for example 550,150, or normal:550,150, lognormal:550,400, uniform:100,1000, fixed:500"
)
_MIX_SHAPE = (
    "write WEIGHT:INPUT/OUTPUT[,...] in tokens, for example 80:500/100,20:4000/500; in place of a number a law such as "
    "lognormal:500,300 may stand"
)
# A comma inside a law is followed by one number only; before a new part stands a weight, hence the colon.
_NEXT_PART = re.compile(r"[,;](?=\s*[\d.]+\s*:)")


class LengthLaw(ABC):
    """``LengthLaw.parse("550,150").draw(rng)`` is a length of at least 1; ``mean`` is that of the law as it is written.

    Laws are values: equal when they are written alike.
    """

    def __init__(self, mean: float, written: str) -> None:
        # From a mean of 1 at least every second Gaussian draw is positive, so that redrawing ends.
        if not (math.isfinite(mean) and mean >= 1):
            raise PromptError(f"length law: the mean must be 1 or more tokens, not {mean:g}")
        self.mean = mean
        self._written = written

    @staticmethod
    def parse(text: str) -> LengthLaw:
        """The law written as ``MEAN[,SD]`` or ``NAME:NUMBERS``. Raises ``PromptError``."""
        name, colon, rest = text.partition(":")
        make = _LAWS.get(name.strip().lower() if colon else "normal")
        try:
            numbers = [float(part) for part in (rest if colon else text).split(",")]
        except ValueError:
            numbers = []
        if make is None or len(numbers) not in _NUMBERS[make]:
            raise PromptError(f"length law: {text!r} is none; {_SHAPE}")
        return make(*numbers)

    @abstractmethod
    def draw(self, rng: Random) -> int:
        """A length."""

    def at(self, seed: int, index: int, purpose: str) -> int:
        """The length that prompt ``index`` has for ``purpose``, ``input`` or ``output``: always the same."""
        return self.draw(stream(seed, index, purpose))

    def __str__(self) -> str:
        return self._written

    def __repr__(self) -> str:
        return f"LengthLaw.parse({self._written!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LengthLaw) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(self._written)


class Normal(LengthLaw):
    """A Gaussian, rounded and redrawn until positive, as LLMPerf has it; with ``sd`` 0 it is always the mean."""

    def __init__(self, mean: float, sd: float = 0) -> None:
        super().__init__(mean, f"{mean:.15g},{sd:.15g}")
        self.sd = _deviation(sd)

    def draw(self, rng: Random) -> int:
        if self.sd == 0:
            return round(self.mean)
        while True:
            length = round(rng.gauss(self.mean, self.sd))
            if length > 0:
                return length


class LogNormal(LengthLaw):
    """A long tail: the logarithm is Gaussian. ``mean`` and ``sd`` are those of the lengths, not of the logarithm."""

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__(mean, f"lognormal:{mean:.15g},{sd:.15g}")
        if _deviation(sd) > 100 * mean:
            raise PromptError(f"length law: {self}: the standard deviation may be 100 times the mean in tokens at most")
        variance = math.log1p((sd / mean) ** 2)
        self._mu, self._sigma = math.log(mean) - variance / 2, math.sqrt(variance)

    def draw(self, rng: Random) -> int:
        return max(1, round(math.exp(rng.gauss(self._mu, self._sigma))))


class Uniform(LengthLaw):
    """Every length from ``low`` to ``high`` equally often."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = _whole(low), _whole(high)
        if not 1 <= low <= high:
            raise PromptError(f"length law: uniform:{low:g},{high:g} needs 1 <= LOW <= HIGH in tokens")
        super().__init__((low + high) / 2, f"uniform:{low:.15g},{high:.15g}")

    def draw(self, rng: Random) -> int:
        return self._low + int(rng.random() * (self._high - self._low + 1))


class Fixed(LengthLaw):
    """Always the same length."""

    def __init__(self, length: float) -> None:
        super().__init__(length, f"fixed:{length:.15g}")
        self._length = _whole(length)

    def draw(self, rng: Random) -> int:  # noqa: ARG002 - needs no chance
        return self._length


class Mixed(LengthLaw):
    """Each length from one of several laws, drawn by weight.

    The laws of inputs and outputs made by one ``parse_mix`` choose alike, since both are asked for the same index.
    """

    def __init__(self, weights: Sequence[float], laws: Sequence[LengthLaw]) -> None:
        total = sum(weights)
        mean = sum(weight * law.mean for weight, law in zip(weights, laws, strict=True)) / total
        written = ",".join(f"{weight:.15g}:{law}" for weight, law in zip(weights, laws, strict=True))
        super().__init__(mean, written)
        self._shares, self._laws = [weight / total for weight in weights], laws

    def draw(self, rng: Random) -> int:
        return self._choose(rng).draw(rng)

    def at(self, seed: int, index: int, purpose: str) -> int:
        return self._choose(stream(seed, index, "mix")).draw(stream(seed, index, purpose))

    def _choose(self, rng: Random) -> LengthLaw:
        left = rng.random()
        for share, law in zip(self._shares, self._laws, strict=True):
            left -= share
            if left < 0:
                return law
        return self._laws[-1]


def parse_mix(text: str) -> tuple[LengthLaw, LengthLaw]:
    """The laws of inputs and outputs, from ``80:500/100,20:4000/500``. Raises ``PromptError``."""
    weights, inputs, outputs = [], [], []
    for part in _NEXT_PART.split(text):
        weight, colon, laws = part.partition(":")
        before, slash, behind = laws.partition("/")
        try:
            weights.append(float(weight))
        except ValueError:
            colon = ""
        if not (colon and slash and 0 < weights[-1] < math.inf):
            raise PromptError(f"mix of lengths: {part!r} is no part of one; {_MIX_SHAPE}")
        inputs.append(LengthLaw.parse(before))
        outputs.append(LengthLaw.parse(behind))
    return Mixed(weights, inputs), Mixed(weights, outputs)


def draw_cap(output_law: LengthLaw | None, seed: int, index: int) -> int | None:
    """The output cap of prompt ``index``: the same whatever the text comes from."""
    return None if output_law is None else output_law.at(seed, index, "output")


def _deviation(sd: float) -> float:
    if not (math.isfinite(sd) and sd >= 0):
        raise PromptError(f"length law: the standard deviation must be 0 or more tokens, not {sd:g}")
    return sd


def _whole(tokens: float) -> int:
    if not (math.isfinite(tokens) and tokens == int(tokens)):
        raise PromptError(f"length law: {tokens:g} is not a whole number of tokens")
    return int(tokens)


_LAWS: dict[str, type[Normal] | type[LogNormal] | type[Uniform] | type[Fixed]] = {
    "normal": Normal,
    "lognormal": LogNormal,
    "uniform": Uniform,
    "fixed": Fixed,
}
_NUMBERS: dict[type[LengthLaw], tuple[int, ...]] = {Normal: (1, 2), LogNormal: (2,), Uniform: (2,), Fixed: (1,)}
