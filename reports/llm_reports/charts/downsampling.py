"""Which points of very many are drawn. Extremes and failures always are; every thinning is said in words.

A pure function of the points: no dice, so the same rows in any order give the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
_DIGITS = 5  # significant ones in what is drawn: a screen shows four at most


def evenly(count: int, limit: int) -> Places:
    """At most ``limit`` places out of ``count``, evenly spaced, the first and the last among them."""
    if count <= limit:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, max(2, limit)).round().astype(np.int64))


def thinned(x: Floats, y: Floats, limit: int) -> Places:
    """The places of at most about ``limit`` points: the lowest and the highest of every slice of x, and evenly more.

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
        # the first one of each slice that is as high as the highest
        kept.append(at_the_top[np.unique(slices[at_the_top], return_index=True)[1]])
    return np.unique(np.concatenate(kept))


def short(values: Iterable[float], digits: int = _DIGITS) -> list[float | None]:
    """Numbers as few characters as a picture needs; what is not a number becomes ``None``."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in map(float, values)]


def drawn(shown: int, total: int, what: str = "requests") -> str:
    """What a caption says about thinning; "" when all are drawn."""
    if shown >= total:
        return ""
    return (
        f"{shown:,} of {total:,} {what} are drawn: the highest and the lowest of every slice, and evenly spaced "
        "others. Counts and tables are of all."
    )
