"""How long a user thinks before the next turn of a conversation: a law of times, written as an option.

Knows numbers only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from random import Random

_SHAPE = (
    "write a time (1s), exp:MEAN (exp:2s), MEAN,SD (2s,0.5s; below 0 counts as 0), lognormal:MEAN,SD or "
    "uniform:LOW,HIGH"
)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 366 * 86400.0
_NUMBERS = {"fixed": (1,), "exp": (1,), "normal": (2,), "lognormal": (2,), "uniform": (2,)}


@dataclass(frozen=True, slots=True)
class ThinkTime:
    """``name`` is fixed, exp, normal, lognormal or uniform; the times are what the law has behind its name."""

    name: str = "fixed"
    times_s: tuple[float, ...] = (1.0,)

    @classmethod
    def parse(cls, text: str) -> ThinkTime:
        """From ``1s``, ``exp:2s``, ``2s,0.5s``, ``lognormal:MEAN,SD`` or ``uniform:LOW,HIGH``. Raises ValueError."""
        name, colon, rest = text.strip().lower().partition(":")
        found = [_TIME.fullmatch(part.strip()) for part in (rest if colon else name).split(",")]
        times_s = tuple(float(each[1]) * _SECONDS[each[2] or ""] for each in found if each is not None)
        if not colon:
            name = "fixed" if len(found) == 1 else "normal"
        if None in found or len(found) not in _NUMBERS.get(name, ()) or max(times_s) > _LONGEST_S:
            raise ValueError(f"{text[:40]!r} is no think time; {_SHAPE}")
        if name == "uniform" and times_s[0] > times_s[1]:
            raise ValueError(f"{text[:40]!r}: uniform:LOW,HIGH needs LOW <= HIGH")
        if name == "lognormal" and not times_s[0]:
            raise ValueError(f"{text[:40]!r}: the mean of a lognormal law must be above 0")
        return cls(name, times_s)

    def draw_s(self, rng: Random) -> float:
        """One pause."""
        first_s, second_s = self.times_s[0], self.times_s[-1]
        if self.name == "exp":
            return -math.log(1.0 - rng.random()) * first_s
        if self.name == "normal":
            return max(0.0, rng.gauss(first_s, second_s))
        if self.name == "lognormal":
            variance = math.log1p((second_s / first_s) ** 2)
            return math.exp(rng.gauss(math.log(first_s) - variance / 2, math.sqrt(variance)))
        return first_s + rng.random() * (second_s - first_s)

    def __str__(self) -> str:
        return f"{self.name}:{','.join(f'{each:g}s' for each in self.times_s)}"
