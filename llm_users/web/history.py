"""The samples of a run so far, for charts: one a second, bounded, older ones thinned out."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from llm_users.web.cpu_lines import COLUMNS, REST

MOST_SAMPLES = 1800
"""Half an hour of seconds; when it is full the older half keeps every second sample. About 300 kB as JSON."""

SERIES = (
    "t",
    "ttft_p50", "ttft_p95", "ttft_p99",
    "gap_p50", "gap_p95", "gap_p99",
    "tpot_p50", "tpot_p95", "tpot_p99",
    "tokens_per_s", "requests_per_s", "in_flight", "users", "rate_per_s", "errors_per_s", "throttled_per_s",
    "lag_p99", "cpu_max", *COLUMNS, REST, "stage",
)  # fmt: skip


class History:
    """Samples by number; numbers grow for as long as the process lives, so no page mistakes an old one for a new."""

    def __init__(self) -> None:
        self.seq = 0
        self._since = 0  # nothing up to here is known any more
        self._numbers: list[int] = []
        self._samples: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: Mapping[str, float | None]) -> None:
        """The next sample; what it lacks is None, and so is what is no number."""
        if len(self._samples) >= MOST_SAMPLES:
            self._thin()
        self.seq += 1
        self._numbers.append(self.seq)
        self._samples.append(tuple(_short(sample.get(name)) for name in SERIES))

    def forget(self) -> None:
        """Begin anew: a page has to forget what it has, too."""
        self.seq += 1
        self._since = self.seq
        self._numbers, self._samples = [], []

    def after(self, seq: int | None) -> tuple[bool, dict[str, list[Any]]]:
        """(whether these are all that there are, the samples after a number as columns)."""
        known = seq is not None and self._since <= seq <= self.seq and (not self._numbers or seq >= self._numbers[0])
        place = bisect_right(self._numbers, seq) if known and seq is not None else 0
        columns = zip(*self._samples[place:], strict=True) if place < len(self._samples) else ((),) * len(SERIES)
        return not known, {name: list(values) for name, values in zip(SERIES, columns, strict=True)}

    def _thin(self) -> None:
        half = len(self._samples) // 2
        self._numbers[:half] = self._numbers[:half:2]
        self._samples[:half] = self._samples[:half:2]


def _short(value: float | None) -> float | None:
    """Five digits are more than a chart shows."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None
