"""The law that lengths are drawn from: a Gaussian, rounded and redrawn until positive, as LLMPerf has it.

Knows nothing of texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from llm_users.prompts.order import stream
from llm_users.prompts.prompt import PromptError


@dataclass(frozen=True, slots=True)
class LengthLaw:
    """``LengthLaw.parse("550,150").draw(rng)`` is a length of at least 1; with ``sd`` 0 it is always the mean."""

    mean: float
    sd: float = 0

    def __post_init__(self) -> None:
        # From a mean of 1 at least every second draw is positive, so that redrawing ends.
        if not (math.isfinite(self.mean) and self.mean >= 1):
            raise PromptError(f"length law: the mean must be 1 or more tokens, not {self.mean:g}")
        if not (math.isfinite(self.sd) and self.sd >= 0):
            raise PromptError(f"length law: the standard deviation must be 0 or more tokens, not {self.sd:g}")

    @classmethod
    def parse(cls, text: str) -> LengthLaw:
        """The law written as ``MEAN`` or ``MEAN,SD``."""
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            raise PromptError(f"length law: {text!r} is not MEAN or MEAN,SD in tokens; write for example 550,150")
        return cls(*numbers)

    def draw(self, rng: Random) -> int:
        if self.sd == 0:
            return round(self.mean)
        while True:
            length = round(rng.gauss(self.mean, self.sd))
            if length > 0:
                return length

    def __str__(self) -> str:
        return f"{self.mean:g},{self.sd:g}"


def draw_cap(output_law: LengthLaw | None, seed: int, index: int) -> int | None:
    """The output cap of prompt ``index``: the same whatever the text comes from."""
    return None if output_law is None else output_law.draw(stream(seed, index, "output"))
