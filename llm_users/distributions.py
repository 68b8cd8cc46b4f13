"""Probability distributions as users write them: gaps between arrivals, lengths, numbers of turns, think times.

``Distribution.parse("550,150", LENGTHS)`` parses the syntax: a distribution is ``NAME:NUMBERS``, and ``MEAN[,SD]``
stands for ``normal:MEAN[,SD]``. A ``Quantity`` defines which names exist, how its numbers are written and which draws
are possible. All randomness comes from the ``Random`` that ``draw`` receives, so the same seed gives the same draws.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from llm_users.number_words import duration_text, parse_duration

_SMALLEST_CV, _LARGEST_CV = 0.01, 100.0
"""Limits of the coefficient of variation. Above the largest, the mean of a run's draws is usually far below the
specified mean."""


class DistributionError(ValueError):
    """The text is not a usable distribution. The message quotes the text and says what to write."""


class Distribution(ABC):
    """A probability distribution of a quantity. Distributions are values: two distributions with the same text are
    equal.

    ``mean`` is the specified mean, in the unit of the quantity (tokens, turns, seconds). Rounding and the lower limit
    change the mean of the draws, most where the standard deviation is about as large as the mean.
    """

    def __init__(self, quantity: Quantity[Any], mean: float, written: str) -> None:
        if not quantity.least <= mean < math.inf:
            raise DistributionError(
                f"the mean must be {quantity.text(quantity.least)} or more {quantity.plural}, not {mean:g}"
            )
        self.quantity = quantity
        self.mean = mean
        self._written = written

    @staticmethod
    def parse(text: str, quantity: Quantity[AnyDistribution]) -> AnyDistribution:
        """Parse a distribution of a quantity. Raises ``DistributionError``."""
        name, colon, rest = text.partition(":")
        name = name.strip().lower()
        if not colon and name not in quantity.names:
            name, rest = "normal", text
        make, counts = quantity.names.get(name, (None, ()))
        try:
            numbers = [quantity.number(number) for number in rest.split(",")] if rest or colon else []
        except ValueError:
            make = None
        if make is None or len(numbers) not in counts:
            raise DistributionError(f"{text[:40]!r} is not a distribution of {quantity.plural}; write {quantity.forms}")
        try:
            return make(quantity, *numbers)
        except DistributionError as error:
            raise DistributionError(f"{text[:40]!r}: {error}; write {quantity.forms}") from None

    @abstractmethod
    def draw(self, rng: Random) -> float:
        """Draw one value. The value is a whole number if the quantity has only whole numbers."""

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        return self._written

    def __repr__(self) -> str:
        return f"<{self._written} {self.quantity.plural}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Distribution) and self._written == other._written and self.quantity is other.quantity

    def __hash__(self) -> int:
        return hash(self._written)


AnyDistribution = TypeVar("AnyDistribution", bound=Distribution)


@dataclass(frozen=True, eq=False)
class Quantity(Generic[AnyDistribution]):
    """A quantity to draw: the names of its distributions, the syntax of its numbers, and its possible draws."""

    plural: str
    """The name of the quantity in messages, for example ``turns``."""
    forms: str
    """The accepted forms, for messages."""
    names: Mapping[str, tuple[Callable[..., AnyDistribution], tuple[int, ...]]]
    """Maps a name to the constructor that takes the numbers after the name, and to the possible counts of numbers."""
    number: Callable[[str], float] = float
    """Parses one number. Raises ``ValueError``."""
    text: Callable[[float], str] = "{:.15g}".format
    """Formats one number as ``number`` parses it."""
    whole: bool = False
    """Whether draws are whole numbers."""
    least: float = 0.0
    """The smallest possible draw, and the smallest mean. A smaller draw counts as this value."""
    redraws: bool = False
    """Whether a normal distribution draws again when a value is too small, as LLMPerf does."""

    def rounded(self, value: float) -> float:
        """Round the value if draws are whole numbers."""
        return round(value) if self.whole else value

    def written(self, *numbers: float) -> str:
        """Format numbers as they follow a name."""
        return ",".join(map(self.text, numbers))

    def check_whole(self, value: float) -> None:
        """Raise ``DistributionError`` if draws are whole numbers and the value is not one."""
        if self.whole and not (math.isfinite(value) and value == int(value)):
            raise DistributionError(f"{value:g} is not a whole number of {self.plural}")

    def check_deviation(self, sd: float) -> None:
        """Raise ``DistributionError`` unless the value is a valid standard deviation."""
        if not 0 <= sd < math.inf:
            raise DistributionError(f"the standard deviation must be 0 or more {self.plural}, not {sd:g}")


class Fixed(Distribution):
    """Every draw is the same value."""

    cv = 0.0
    """The coefficient of variation: the standard deviation divided by the mean."""

    def __init__(self, quantity: Quantity[Any], value: float, written: str = "") -> None:
        """Create the distribution. ``written`` is its text, for a quantity whose texts do not contain the value."""
        super().__init__(quantity, value, written or f"fixed:{quantity.written(value)}")
        quantity.check_whole(value)

    def draw(self, rng: Random) -> float:  # noqa: ARG002 - does not use randomness
        return self.quantity.rounded(self.mean)


class Normal(Distribution):
    """A Gaussian distribution, limited to the possible draws. With ``sd`` 0 every draw equals the mean."""

    def __init__(self, quantity: Quantity[Any], mean: float, sd: float = 0.0) -> None:
        super().__init__(quantity, mean, quantity.written(mean, sd))
        quantity.check_deviation(sd)
        self.sd = sd

    def draw(self, rng: Random) -> float:
        if self.sd == 0:
            return self.quantity.rounded(self.mean)
        # The mean is a possible draw, so at least half of the values are possible and the loop ends.
        while True:
            value = self.quantity.rounded(rng.gauss(self.mean, self.sd))
            if value >= self.quantity.least or not self.quantity.redraws:
                return max(self.quantity.least, value)


class LogNormal(Distribution):
    """A long-tailed distribution whose logarithm is Gaussian.

    ``mean`` and ``sd`` describe the values, not the logarithm.
    """

    def __init__(self, quantity: Quantity[Any], mean: float, sd: float) -> None:
        super().__init__(quantity, mean, f"lognormal:{quantity.written(mean, sd)}")
        quantity.check_deviation(sd)
        if mean <= 0:
            raise DistributionError("the mean of a lognormal distribution must be above 0")
        if sd > _LARGEST_CV * mean:
            raise DistributionError(f"the standard deviation must be at most {_LARGEST_CV:g} times the mean")
        variance = math.log1p((sd / mean) ** 2)
        self._mu, self._sigma = math.log(mean) - variance / 2, math.sqrt(variance)

    def draw(self, rng: Random) -> float:
        return max(self.quantity.least, self.quantity.rounded(math.exp(rng.gauss(self._mu, self._sigma))))


class Uniform(Distribution):
    """All values from ``low`` to ``high``, both included, with equal probability."""

    def __init__(self, quantity: Quantity[Any], low: float, high: float) -> None:
        quantity.check_whole(low)
        quantity.check_whole(high)
        if not quantity.least <= low <= high:
            raise DistributionError(
                f"uniform:LOW,HIGH needs LOW <= HIGH, both {quantity.text(quantity.least)} or more {quantity.plural}"
            )
        super().__init__(quantity, (low + high) / 2, f"uniform:{quantity.written(low, high)}")
        self._low, self._width = quantity.rounded(low), high - low

    def draw(self, rng: Random) -> float:
        if self.quantity.whole:
            return self._low + int(rng.random() * (self._width + 1))
        return self._low + rng.random() * self._width


class Exponential(Distribution):
    """Times between independent events: many short ones, few long ones."""

    cv = 1.0

    def __init__(self, quantity: Quantity[Any], mean: float, written: str = "") -> None:
        """Create the distribution. ``written`` is its text, for a quantity whose texts do not contain the mean."""
        super().__init__(quantity, mean, written or f"exp:{quantity.written(mean)}")

    def draw(self, rng: Random) -> float:
        return max(self.quantity.least, self.quantity.rounded(-math.log(1.0 - rng.random()) * self.mean))


class Gamma(Distribution):
    """Bursty for a coefficient of variation ``cv`` above 1, more regular than ``Exponential`` for a ``cv`` below 1."""

    def __init__(self, quantity: Quantity[Any], mean: float, cv: float) -> None:
        super().__init__(quantity, mean, f"gamma:{quantity.written(cv)}")
        if not _SMALLEST_CV <= cv <= _LARGEST_CV:
            raise DistributionError(
                f"the coefficient of variation must be from {_SMALLEST_CV:g} to {_LARGEST_CV:g}, not {cv:g}"
            )
        self.cv = cv
        self._shape = cv**-2
        self._scale = mean / self._shape

    def draw(self, rng: Random) -> float:
        return rng.gammavariate(self._shape, self._scale)


class Mixed(Distribution):
    """A mix of distributions. For each draw, ``choose`` picks one of them according to their weights."""

    def __init__(self, weights: Sequence[float], parts: Sequence[Distribution]) -> None:
        total = sum(weights)
        mean = sum(weight * part.mean for weight, part in zip(weights, parts, strict=True)) / total
        written = ",".join(f"{weight:.15g}:{part}" for weight, part in zip(weights, parts, strict=True))
        super().__init__(parts[0].quantity, mean, written)
        self._shares, self._parts = [weight / total for weight in weights], parts

    def choose(self, rng: Random) -> Distribution:
        """Return the distribution of the next draw."""
        left = rng.random()
        for share, part in zip(self._shares, self._parts, strict=True):
            left -= share
            if left < 0:
                return part
        return self._parts[-1]

    def draw(self, rng: Random) -> float:
        return self.choose(rng).draw(rng)


_NAMES = {
    "normal": (Normal, (1, 2)),
    "lognormal": (LogNormal, (2,)),
    "uniform": (Uniform, (2,)),
    "fixed": (Fixed, (1,)),
    "exp": (Exponential, (1,)),
}

LENGTHS: Quantity[Distribution] = Quantity(
    "tokens",
    "MEAN[,SD] in tokens, for example 550,150, or lognormal:550,400, uniform:100,1000, exp:550, fixed:500",
    _NAMES,
    whole=True,
    least=1,
    redraws=True,
)
"""Lengths of prompts and answers, in tokens."""

TURNS: Quantity[Distribution] = Quantity(
    "turns",
    "MEAN[,SD], for example 3,1, or lognormal:5,4, uniform:1,6, exp:3, fixed:4",
    _NAMES,
    whole=True,
    least=1,
    redraws=True,
)
"""The number of turns of a conversation."""

THINK_TIMES: Quantity[Distribution] = Quantity(
    "think times",
    "a time (1s), MEAN,SD (2s,500ms), or lognormal:2s,1s, uniform:1s,3s, exp:2s, fixed:1s",
    _NAMES,
    number=parse_duration,
    text=duration_text,
)
"""Pauses of users, in seconds. A negative draw counts as 0."""

ArrivalGap = Fixed | Exponential | Gamma

ARRIVAL_GAPS: Quantity[ArrivalGap] = Quantity(
    "gaps between arrivals",
    "constant, poisson, or gamma:CV with the coefficient of variation of the gaps (0.01 to 100), for example gamma:2",
    {
        "constant": (lambda quantity: Fixed(quantity, 1.0, "constant"), (0,)),
        "poisson": (lambda quantity: Exponential(quantity, 1.0, "poisson"), (0,)),
        "gamma": (lambda quantity, cv: Gamma(quantity, 1.0, cv), (1,)),
    },
)
"""Gaps in units of their mean. The rate gives the mean in seconds."""
