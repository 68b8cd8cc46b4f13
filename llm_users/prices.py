"""What tokens cost: the user's own price list, and the sums made with it. Nothing is built in, prices change.

Knows no options, no Locust.
"""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from typing import Any

_MILLION = 1_000_000
_KINDS = ("input", "output", "cache_read", "cache_write")


class PriceError(ValueError):
    """A price list that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Price:
    """Of one model, per token. Cached input costs as other input where the list does not say otherwise."""

    input: float
    output: float
    cache_read: float
    cache_write: float

    def of(self, input_tokens: float, output_tokens: float, cache_read: float = 0, cache_write: float = 0) -> float:
        """``input_tokens`` are all of them, those from and for the cache included."""
        fresh = max(0.0, input_tokens - cache_read - cache_write)
        return (
            fresh * self.input
            + output_tokens * self.output
            + cache_read * self.cache_read
            + cache_write * self.cache_write
        )


@dataclass(frozen=True, slots=True)
class Prices:
    """A price list: ``{"currency": "USD", "models": {"MODEL": {"input": 3, "output": 15, "cache_read": 0.3}}}``,

    per million tokens. A model is found by its id, or by the longest name in the list that the id contains.
    """

    currency: str
    models: dict[str, Price]

    @classmethod
    def load(cls, text: str, name: str) -> Prices:
        """From the text of a JSON or TOML file; raises ``PriceError`` with what is wrong.

        Models that are paid by the hour (``gpu_hour``) have a price only for the report, and are left out.
        """
        try:
            document: Any = tomllib.loads(text) if name.lower().endswith(".toml") else json.loads(text)
            entries = {k: entry for k, entry in document["models"].items() if "gpu_hour" not in entry}
            models = {str(model): _price(entry, f"{name}: {model}") for model, entry in entries.items()}
        except PriceError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            raise PriceError(
                f'{name} is not a price list; write for example {{"currency": "USD", "models": '
                '{"anthropic.claude-3-haiku": {"input": 0.25, "output": 1.25}}}, per million tokens'
            ) from None
        return cls(str(document.get("currency", "")), models)

    def of_model(self, model: str) -> Price | None:
        """None: the list does not know this model."""
        if model in self.models:
            return self.models[model]
        names = [name for name in self.models if name in model]
        return self.models[max(names, key=len)] if names else None

    def shown(self, sum_: float) -> str:
        """A sum of money in words."""
        return f"{sum_:,.4f} {self.currency}".rstrip() if sum_ < 1 else f"{sum_:,.2f} {self.currency}".rstrip()


def _price(entry: Any, where: str) -> Price:
    if not isinstance(entry, dict) or "input" not in entry or "output" not in entry:
        raise PriceError(f"{where} needs an input and an output price, per million tokens")
    for kind, value in entry.items():
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
        if kind not in _KINDS or not good:
            raise PriceError(f"{where}: {kind!r}: {value!r} is no price; there are {', '.join(_KINDS)}")
    prices = {kind: float(entry[kind if kind in entry else "input"]) / _MILLION for kind in _KINDS}
    return Price(**prices)
