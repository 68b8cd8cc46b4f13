"""Costs of the stages, per token or per hour of the serving machines, with the prices of a price file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame

from llm_reports.errors import PriceFileError
from llm_reports.metrics.goodput import StagePoint, highest, knee, sweeps
from llm_reports.run import AT
from llm_users.prices import PriceError, Prices
from llm_users.record import COL


@dataclass(frozen=True)
class Cost:
    """The costs of one stage; NaN where the rows or the price file do not contain the values."""

    point: StagePoint
    per_request: float
    per_million_output_tokens: float
    per_hour: float
    by: str


def load_prices(path: str | Path) -> Prices:
    """Read a price file. Raises ``PriceFileError``."""
    try:
        return Prices.read(Path(path))
    except PriceError as error:
        raise PriceFileError(str(error)) from None


def costs(points: Sequence[StagePoint], prices: Prices) -> list[Cost]:
    """Return the costs of each stage; NaN for a model without a price. Raises ``PriceFileError``."""
    return [_cost(point, prices) for point in points]


def costs_frame(points: Sequence[StagePoint], prices: Prices) -> DataFrame:
    """Return the costs of each stage as a DataFrame, for a notebook."""
    return DataFrame(
        [
            {
                **{name: value for name, value in cost.point.group.identity.items() if name != COL.framework},
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
    """Return the operating point of each sweep and the rule that selected it.

    The point is the highest load that meets the objectives, or the knee without objectives.
    """
    chosen = []
    for sweep in sweeps(points):
        choice = highest(sweep) if by_objectives else knee(sweep)
        if choice.point is not None:
            chosen.append((choice.point, "meets the objectives" if by_objectives else "knee"))
    return chosen


def _cost(point: StagePoint, prices: Prices) -> Cost:
    model = point.group.model.partition(AT)[0]
    per_hour = prices.hour_of_model(model)
    if per_hour is not None:
        per_request = _divided(per_hour / 3600, point.requests_per_s)
        per_token = _divided(per_hour / 3600, point.tokens_per_s)
        return Cost(point, per_request, per_token * 1e6, per_hour, "machine hours")
    try:
        price = prices.of_model(model)
    except PriceError as error:
        raise PriceFileError(str(error)) from None
    if price is None:
        return Cost(point, math.nan, math.nan, math.nan, "no price")
    rows = point.group.ok
    counts = (COL.input_tokens, COL.output_tokens, COL.cached_tokens, "cache_write_tokens")
    sums = [math.fsum(rows[name].astype("float64").fillna(0.0)) for name in counts]
    total = price.of(*sums)
    per_request = _divided(total, len(rows))
    return Cost(point, per_request, _divided(total, sums[1]) * 1e6, per_request * point.requests_per_s * 3600, "tokens")


def _divided(amount: float, by: float) -> float:
    return amount / by if by > 0 else math.nan
