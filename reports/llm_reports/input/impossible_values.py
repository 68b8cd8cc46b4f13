"""Values that no measurement can give, such as negative times or 1e300 tokens: found, named, and left out.

The value becomes missing; its row stays and still counts as a request, because what became of the request is known all
the same. What was computed from an impossible value is left out with it. Knows no file format: a reader gives the
columns of a file and says how to name the place of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pandas import Series

from llm_reports.metrics.outcomes import buffered, succeeded
from llm_users.record import Column

LONGEST_S = 1e6
"""The longest duration that is believed: 11 days, far beyond any timeout."""
LATEST_UNIX_S = 4_102_444_800.0
"""The first second of the year 2100. Milliseconds or nanoseconds taken for seconds lie beyond it."""
_YEAR_S = 366 * 86_400.0
_MOST_NAMED = 10
_LIMITS: Mapping[str, tuple[float, float]] = {
    "s": (0.0, LONGEST_S),
    "s/token": (0.0, LONGEST_S),
    "unix s": (0.0, LATEST_UNIX_S),
    "tokens": (0.0, 1e8),  # the longest contexts have 1e7
    "count": (0.0, 1e10),
    "users": (0.0, 1e8),
    "requests": (0.0, 1e8),
    "tokens/s": (0.0, 1e10),
    "requests/s": (0.0, 1e8),
    "events/token": (0.0, 1e8),
    "share": (0.0, 1e4),  # CPU shares exceed 1 where a process has several threads
    "0/1": (0.0, 1.0),
}
_LIMITS_BY_NAME = {"stage": (0.0, 1e6), "stage_end": (0.0, 1e6), "usage_output_tokens": (0.0, math.inf)}
_ROUNDING_S = 1e-6  # files have microseconds or more; E2E may be this much below TTFT
_DERIVED = {
    "ttft_s": ("tpot_s",),
    "end_to_end_latency_s": ("request_output_throughput_token_per_s",),
    "output_tokens": ("tpot_s", "window_tokens", "request_output_throughput_token_per_s"),
}
"""What was computed from a column, and so is as wrong as that."""
_FIRST = ("ttft_s", "ttfat_s")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Impossible:
    """One value that was left out: the row's index, the column, the value, and why."""

    row: int
    column: str
    value: float
    why: str


def without_impossible(
    values: Mapping[str, Series], columns: Sequence[Column]
) -> tuple[dict[str, Series], list[Impossible]]:
    """The columns with impossible values missing, and these values in the order of the rows."""
    kept = dict(values)
    found: list[Impossible] = []
    for column in columns:
        series = kept.get(column.name)
        limits = _LIMITS_BY_NAME.get(column.name) or _LIMITS.get(column.unit)
        if series is None or limits is None or column.type is str:
            continue
        array = series.to_numpy(dtype=np.float64, na_value=math.nan)
        bad = _outside(array, limits)
        if column.unit == "unix s":
            bad |= _years_away(array, bad)
        if bad.any():
            why = f"outside {limits[0]:g} to {limits[1]:g} {column.unit}".rstrip()
            found += _left_out(kept, column.name, array, bad, why)
    found += _contradictions(kept)
    return kept, sorted(found, key=lambda each: each.row)


def named(source: object, found: Sequence[Impossible], place_of: Callable[[Iterable[int]], Mapping[int, str]]) -> str:
    """The warning about impossible values; ``place_of`` names the places of rows, such as ``line 7``."""
    shown = found[:_MOST_NAMED]
    places = place_of(each.row for each in shown)
    said = "; ".join(f"{places.get(each.row, '?')}: {each.column} {each.value:g} ({each.why})" for each in shown)
    more = f"; and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return f"{source}: impossible values were left out, their rows still count as requests. {said}{more}."


def _outside(array: Floats, limits: tuple[float, float]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return (array < limits[0]) | (array > limits[1])


def _years_away(array: Floats, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Times more than a year away from the median: no run takes a year, but a broken clock may say so."""
    good = array[~bad & np.isfinite(array)]
    if not len(good):
        return np.zeros(len(array), dtype=bool)
    with np.errstate(invalid="ignore"):
        return np.abs(array - np.median(good)) > _YEAR_S


def _contradictions(kept: dict[str, Series]) -> list[Impossible]:
    """Times of successful requests that cannot be true together: nothing arrives in no time, or after the end."""
    codes = kept.get("error_code")
    rows = max((len(series) for series in kept.values()), default=0)
    if codes is None or not rows:
        return []
    ok = succeeded(codes).to_numpy()
    streamed = ok & ~buffered(codes).to_numpy()
    found: list[Impossible] = []
    for name in (*_FIRST, "end_to_end_latency_s"):
        if name in kept:
            array = kept[name].to_numpy(dtype=np.float64, na_value=math.nan)
            found += _left_out(kept, name, array, ok & (array == 0), "no answer arrives in no time")
            if name in _FIRST and (~ok & (array == 0)).any():
                # LLMPerf writes 0 for what a failed request does not have. That is a missing value, not a fault.
                kept[name] = kept[name].mask(~ok & (array == 0))
    if "end_to_end_latency_s" not in kept:
        return found
    end = kept["end_to_end_latency_s"].to_numpy(dtype=np.float64, na_value=math.nan)
    before_end = np.zeros(rows, dtype=bool)
    for name in _FIRST:
        if name in kept:
            array = kept[name].to_numpy(dtype=np.float64, na_value=math.nan)
            with np.errstate(invalid="ignore"):
                late = streamed & (array > end + _ROUNDING_S)
            before_end |= late
            found += _left_out(kept, name, array, late, "after the end of the request")
    # The file does not say which of both is wrong.
    found += _left_out(kept, "end_to_end_latency_s", end, before_end, "before the first token")
    return found


def _left_out(kept: dict[str, Series], name: str, array: Floats, bad: NDArray[np.bool_], why: str) -> list[Impossible]:
    if not bad.any():
        return []
    for column in (name, *_DERIVED.get(name, ())):
        if column in kept:
            kept[column] = kept[column].mask(bad)
    return [Impossible(int(row), name, float(array[row]), why) for row in np.flatnonzero(bad)]
