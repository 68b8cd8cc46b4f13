"""The cost of serving, from a price file of the user: per token, or per hour of the machines.

``Prices.read`` is the only reader of price files, for the budget of a run and for reports. It reads the project's own
format and LiteLLM's ``model_prices_and_context_window.json``. The program contains no prices, because prices change.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

_MILLION = 1_000_000
_TOKEN_KEYS = ("input", "output", "cache_read", "cache_write")
_HOUR_KEYS = ("gpu_hour", "gpus")
_EXAMPLE = '{"currency": "USD", "models": {"llama-3-8b": {"input": 0.2, "output": 0.6}, "own": {"gpu_hour": 2.5}}}'

_LITELLM_KEYS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
}
_LITELLM_SAMPLE = "sample_spec"
"""The entry that describes LiteLLM's format. Its values are not prices."""

T = TypeVar("T")


class PriceError(ValueError):
    """The price file cannot be used. The message names the file, the entry and what to write."""


@dataclass(frozen=True, slots=True)
class Price:
    """Prices of one model, per token. Cached input has the price of other input unless the file gives its own price."""

    input: float
    output: float
    cache_read: float
    cache_write: float

    def of(self, input_tokens: float, output_tokens: float, cache_read: float = 0, cache_write: float = 0) -> float:
        """Return the cost of tokens. ``input_tokens`` includes tokens that were read from or written to the cache."""
        fresh = max(0.0, input_tokens - cache_read - cache_write)
        return (
            fresh * self.input
            + output_tokens * self.output
            + cache_read * self.cache_read
            + cache_write * self.cache_write
        )

    @classmethod
    def mean(cls, shares: Sequence[tuple[float, Price]]) -> Price:
        """Return the mean of prices, each with its weight."""
        total = sum(weight for weight, _ in shares)

        def mean_of(price_of: Callable[[Price], float]) -> float:
            return sum(weight * price_of(price) for weight, price in shares) / total

        return cls(
            mean_of(lambda price: price.input),
            mean_of(lambda price: price.output),
            mean_of(lambda price: price.cache_read),
            mean_of(lambda price: price.cache_write),
        )


@dataclass(frozen=True, slots=True)
class Prices:
    """The content of a price file: a ``currency`` and ``models``, each with prices per token or per hour.

    An entry has prices per million tokens (``input``, ``output``, and where they differ ``cache_read`` and
    ``cache_write``), or the price of a machine's hour and the number of machines (``gpu_hour``, and ``gpus`` if it is
    not 1). A model uses the entry with its exact name, or else the entry with the longest name that is part of the
    model's name.

    An entry of LiteLLM's file has prices in US dollars per token. Its name is exact and can begin with a provider
    (``azure/gpt-4o``). A model uses the entry with its exact name, or else the entry with the same name apart from the
    providers.
    """

    currency: str
    models: Mapping[str, Price] = field(default_factory=dict)
    """Models with prices per token."""
    machines: Mapping[str, float] = field(default_factory=dict)
    """Models with prices per hour. The value is the price of one hour of all machines that serve the model."""
    source: str = ""
    """The name of LiteLLM's file; "" for a file in the project's own format."""

    @classmethod
    def read(cls, path: Path) -> Prices:
        """Read a JSON file, or a TOML file if its name ends with ``.toml``. Raises ``PriceError``."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise PriceError(
                f"{path}: cannot be read ({error.strerror or error}). Check the path and its permissions."
            ) from None
        except UnicodeDecodeError as error:
            raise PriceError(f"{path}: not UTF-8 text (byte {error.start + 1}). Save it as UTF-8.") from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, name: str) -> Prices:
        """Read the content of the file ``name``. Raises ``PriceError``."""
        try:
            document: Any = tomllib.loads(text) if name.lower().endswith(".toml") else json.loads(text)
            if _is_litellm(document):
                return cls("USD", _litellm_models(document, name), source=name)
            entries = dict(document["models"])
            currency = str(document.get("currency", ""))
        except PriceError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PriceError(
                f"{name}: not a price file ({type(error).__name__}: {error}). Write for example {_EXAMPLE}, per "
                "million tokens and per hour, or use LiteLLM's model_prices_and_context_window.json."
            ) from None
        prices = cls(currency, models := {}, machines := {})
        for model, entry in entries.items():
            where = f"{name}: {model}"
            if isinstance(entry, dict) and "gpu_hour" in entry:
                machines[model] = _per_hour(entry, where)
            else:
                models[model] = _per_token(entry, where)
        return prices

    def of_model(self, model: str) -> Price | None:
        """Return the prices per token of a model, or None if the file has none.

        Raises ``PriceError`` if LiteLLM's file has several entries for the model, with different prices.
        """
        if self.source:
            return self._without_provider(model)
        return _entry_of(model, self.models)

    def hour_of_model(self, model: str) -> float | None:
        """Return the price of one hour of the machines that serve a model, or None if the file has none."""
        return _entry_of(model, self.machines)

    def _without_provider(self, model: str) -> Price | None:
        if model in self.models:
            return self.models[model]
        names = [name for name in self.models if name.endswith(f"/{model}")]
        names = names or [name for name in self.models if name and model.endswith(f"/{name}")]
        if len({self.models[name] for name in names}) > 1:
            raise PriceError(
                f"{self.source}: several entries with different prices match the model {model!r}: "
                f"{', '.join(sorted(names))}. Copy the entry that applies into another file under the name {model!r}."
            )
        return self.models[names[0]] if names else None

    def shown(self, amount: float) -> str:
        """Format an amount of money for a sentence, with at least two significant digits."""
        decimals = 2 if amount >= 1 else 4
        if 0 < amount < 0.001:
            decimals = 1 - math.floor(math.log10(amount))
        return f"{amount:,.{decimals}f} {self.currency}".rstrip()


def _entry_of(model: str, entries: Mapping[str, T]) -> T | None:
    if model in entries:
        return entries[model]
    names = [name for name in entries if name and name in model]
    return entries[max(names, key=len)] if names else None


def _is_litellm(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and "models" not in document
        and any(isinstance(entry, dict) and _LITELLM_KEYS["input"] in entry for entry in document.values())
    )


def _litellm_models(document: dict[str, Any], name: str) -> dict[str, Price]:
    """Return the models of LiteLLM's file that have prices per input and output token."""
    models = {}
    for model, entry in document.items():
        if model == _LITELLM_SAMPLE or not isinstance(entry, dict):
            continue
        given: dict[str, Any] = {
            key: entry[theirs] for key, theirs in _LITELLM_KEYS.items() if entry.get(theirs) is not None
        }
        if "input" not in given or "output" not in given:
            continue
        for key, value in given.items():
            if not _is_number(value) or value < 0:
                raise PriceError(f"{name}: {model}: {_LITELLM_KEYS[key]}: {value!r} is not a price per token")
        models[model] = Price(**{key: float(given.get(key, given["input"])) for key in _LITELLM_KEYS})
    return models


def _per_token(entry: Any, where: str) -> Price:
    if not isinstance(entry, dict) or "input" not in entry or "output" not in entry:
        raise PriceError(f"{where}: needs an input and an output price, per million tokens, or gpu_hour")
    for key, value in entry.items():
        if key not in _TOKEN_KEYS:
            raise PriceError(f"{where}: {key!r} is not a price; the prices are {', '.join(_TOKEN_KEYS)}")
        if not _is_number(value) or value < 0:
            raise PriceError(
                f"{where}: {key}: {value!r} is not a price; write a number of 0 or more per million tokens"
            )
    prices = {key: float(entry[key if key in entry else "input"]) / _MILLION for key in _TOKEN_KEYS}
    return Price(**prices)


def _per_hour(entry: dict[str, Any], where: str) -> float:
    unknown = sorted(set(entry) - set(_HOUR_KEYS))
    if unknown:
        raise PriceError(f"{where}: {unknown[0]!r} together with gpu_hour; give prices per hour or per token, not both")
    price, machines = entry["gpu_hour"], entry.get("gpus", 1)
    for value in (price, machines):
        if not _is_number(value) or value <= 0:
            raise PriceError(
                f"{where}: {value!r} is not a number above 0; write gpu_hour and gpus, for example 2.5 and 4"
            )
    return float(price) * float(machines)


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False
