"""Costs from a price file of the user's own: by token, or by the hour of the machines that serve.

The file is JSON or TOML: a ``currency`` and ``models``, each with prices per million tokens (``input``, ``output``, and
where they differ ``cache_read``, ``cache_write``), or with ``gpu_hour`` and ``gpus`` (default 1). A model is found by
its name, or by the longest name in the file that it contains.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandas import DataFrame

from llm_reports.errors import InputError, unreadable
from llm_reports.metrics.goodput import StagePoint, highest, knee, sweeps
from llm_reports.run import AT
from llm_users.prices import PriceError, Prices

_EXAMPLE = '{"currency": "USD", "models": {"llama-3-8b": {"input": 0.2, "output": 0.6}, "own": {"gpu_hour": 2.5}}}'
_GPU_KEYS = {"gpu_hour", "gpus"}


@dataclass(frozen=True)
class PriceFile:
    """What is known of prices. ``machines`` has the price of an hour of everything that serves a model."""

    currency: str
    tokens: Prices
    machines: Mapping[str, float]


@dataclass(frozen=True)
class Cost:
    """One stage in money; NaN where the rows or the file do not say."""

    point: StagePoint
    per_request: float
    per_million_output_tokens: float
    per_hour: float
    by: str


def load_prices(path: str | Path) -> PriceFile:
    """Read a price file; raises ``InputError`` with what is wrong with it."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        document: Any = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
        models: dict[str, Any] = dict(document["models"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a price file ({error}). Write for example {_EXAMPLE}, per million tokens."
        ) from None
    machines = {name: _per_hour(entry, f"{path}: {name}") for name, entry in models.items() if _is_machine(entry)}
    try:
        tokens = Prices.load(text, str(path))
    except PriceError as error:
        raise InputError(str(error)) from None
    return PriceFile(tokens.currency, tokens, machines)


def costs(points: Sequence[StagePoint], prices: PriceFile) -> list[Cost]:
    """What each stage costs; a model without a price has NaN."""
    return [_cost(point, prices) for point in points]


def costs_frame(points: Sequence[StagePoint], prices: PriceFile) -> DataFrame:
    """The same for a notebook."""
    return DataFrame(
        [
            {
                "run": cost.point.group.run.name,
                "model": cost.point.group.model,
                "stage": cost.point.group.stage,
                "concurrency": cost.point.group.concurrency,
                "rate_per_s": cost.point.group.load.rate_per_s,
                "per_request": cost.per_request,
                "per_million_output_tokens": cost.per_million_output_tokens,
                "per_hour": cost.per_hour,
                "by": cost.by,
                "currency": prices.currency,
            }
            for cost in costs(points, prices)
        ]
    )


def chosen_points(points: Sequence[StagePoint], *, by_objectives: bool) -> list[tuple[StagePoint, str]]:
    """The point of each sweep to run at: the highest that meets the objectives, without any the knee; and which."""
    found = []
    for sweep in sweeps(points):
        choice = highest(sweep) if by_objectives else knee(sweep)
        if choice.point is not None:
            found.append((choice.point, "meets the objectives" if by_objectives else "knee"))
    return found


def _cost(point: StagePoint, prices: PriceFile) -> Cost:
    model = point.group.model.partition(AT)[0]
    per_hour = _of_model(prices.machines, model)
    if per_hour is not None:
        per_second = per_hour / 3600
        return Cost(
            point,
            _divided(per_second, point.requests_per_s),
            _divided(per_second, point.tokens_per_s) * 1e6,
            per_hour,
            "machine hours",
        )
    price = prices.tokens.of_model(model)
    if price is None:
        return Cost(point, math.nan, math.nan, math.nan, "no price")
    rows = point.group.ok
    sums = [
        math.fsum(rows[name].astype("float64").fillna(0.0))
        for name in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens")
    ]
    total = price.of(*sums)
    per_request = _divided(total, len(rows))
    return Cost(point, per_request, _divided(total, sums[1]) * 1e6, per_request * point.requests_per_s * 3600, "tokens")


def _of_model(machines: Mapping[str, float], model: str) -> float | None:
    if model in machines:
        return machines[model]
    names = [name for name in machines if name and name in model]
    return machines[max(names, key=len)] if names else None


def _is_machine(entry: object) -> bool:
    return isinstance(entry, dict) and "gpu_hour" in entry


def _per_hour(entry: dict[str, Any], where: str) -> float:
    unknown = sorted(set(entry) - _GPU_KEYS)
    if unknown:
        raise InputError(
            f"{where}: {unknown[0]!r} beside gpu_hour; a model is paid by the hour or by the token, not both"
        )
    price, machines = entry["gpu_hour"], entry.get("gpus", 1)
    for value in (price, machines):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(
                f"{where}: {value!r} is not a number above 0; write gpu_hour and gpus, for example 2.5 and 4"
            )
    return float(price) * float(machines)


def _divided(amount: float, by: float) -> float:
    return amount / by if by > 0 else math.nan
