"""Selection of the points to draw when there are too many to draw all.

Extremes and failures are always drawn, and every caption states that points are omitted. The selection is
deterministic: the same rows in any order give the same figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
_DIGITS = 5  # significant digits of drawn values: a screen shows at most four


def evenly(count: int, limit: int) -> Places:
    """Return at most ``limit`` evenly spaced indices of ``count`` items, including the first and the last."""
    if count <= limit:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, max(2, limit)).round().astype(np.int64))


def thinned(x: Floats, y: Floats, limit: int) -> Places:
    """Return the indices of about ``limit`` points: the extremes of every slice of x, and evenly spaced others.

    The points must be in ascending order of x.
    """
    count = len(x)
    if count <= limit:
        return np.arange(count)
    kept = [evenly(count, limit // 2)]
    borders = np.linspace(0, count, max(1, limit // 4) + 1).astype(np.int64)
    starts = borders[:-1]
    heights = np.where(np.isfinite(y), y, -math.inf)
    for sign in (1.0, -1.0):
        signed = heights * sign
        signed = np.where(np.isinf(signed), -math.inf, signed)
        highest = np.maximum.reduceat(signed, starts)
        slices = np.repeat(np.arange(len(starts)), np.diff(borders))
        at_the_top = np.flatnonzero(signed == highest[slices])
        # keep the first point of each slice that has the highest value
        kept.append(at_the_top[np.unique(slices[at_the_top], return_index=True)[1]])
    return np.unique(np.concatenate(kept))


def short(values: Iterable[float], digits: int = _DIGITS) -> list[float | None]:
    """Round numbers to the significant digits that a figure needs; values that are not finite become ``None``."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in map(float, values)]


def drawn(shown: int, total: int) -> str:
    """Return the caption text about omitted points; "" when all points are drawn."""
    if shown >= total:
        return ""
    return (
        f"{shown:,} of {total:,} requests are drawn: the highest and the lowest of every slice, and evenly spaced "
        "others. Counts and tables include all."
    )
