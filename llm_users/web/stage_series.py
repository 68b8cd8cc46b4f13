"""The stages in the tab: exact figures of finished stages, and figures from histograms while a stage is running.

The module keeps the values of the measured rows as they arrive, by framework and model as the report groups them. A
finished stage has the figures of ``llm-report`` to the last digit, because the values are rounded as in the rows file.
"""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

import gevent

from llm_users.outcome import BUFFERED, Outcome
from llm_users.quantile import DurationHistogram, quantile
from llm_users.record import COL, RequestRecord, StageLoad, StageRecord, cell

MOST_VALUES = 1_000_000
"""Maximum number of values kept per stage, which take 8 to 9 MB: all metrics of 250,000 requests of a closed loop. The
figures of a stage with more values come from histograms."""

MOST_GROUPS = 200
"""Maximum number of groups per stage; further models count as one. A locustfile can name one model per request."""

FIGURES = {"median": 0.5, "p25": 0.25, "p75": 0.75, "p95": 0.95, "p99": 0.99}
_METRICS = ("ttft", "throughput", "tpot", "e2e", "corrected_ttft", "corrected_e2e")
_RATES = (COL.output_throughput_token_per_s, COL.request_throughput_per_s)


class Series:
    """One metric: its values, and a histogram whose percentiles have an error of 0.1 %."""

    def __init__(self) -> None:
        self.values = array("d")
        self.histogram = DurationHistogram()
        self.sum = 0.0
        self.min, self.max = math.inf, -math.inf

    def add(self, value: float, *, keep: bool = True) -> None:
        """Add one value; ``keep``: whether exact figures are still possible."""
        if keep:
            self.values.append(value)
        self.histogram.add(value)
        self.sum += value
        self.min = min(self.min, value)
        self.max = max(self.max, value)

    def merge(self, other: Series) -> None:
        """Add the histogram and the sums of another series, without its values."""
        self.histogram.merge(other.histogram.counts)
        self.sum += other.sum
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)

    def exact(self) -> dict[str, float | None]:
        """Return the figures from the values, as ``llm_reports.metrics.summary`` computes them."""
        if not self.values:
            return estimate([])
        import numpy as np  # usually loaded already: the coordinator determines the steadiness of the stage first

        ordered: Any = np.sort(np.frombuffer(self.values))  # 70 ms for a million values; sorted() takes a second
        return {
            **{name: quantile(ordered, q) for name, q in FIGURES.items()},
            "mean": math.fsum(self.values) / len(self.values),
            "min": self.min,
            "max": self.max,
        }


def estimate(series: Sequence[Series]) -> dict[str, float | None]:
    """Return the figures from the histograms of one metric in several groups. All are None without values."""
    histogram = series[0].histogram if len(series) == 1 else DurationHistogram()
    if len(series) > 1:
        for part in series:
            histogram.merge(part.histogram.counts)
    if not histogram.total:
        return dict.fromkeys((*FIGURES, "mean", "min", "max"))
    low, high = min(part.min for part in series), max(part.max for part in series)
    quantiles = histogram.quantiles(tuple(FIGURES.values()))
    within = (min(max(value, low), high) for value in quantiles)  # not beyond the true extremes
    return {
        **dict(zip(FIGURES, within, strict=True)),
        "mean": sum(part.sum for part in series) / histogram.total,
        "min": low,
        "max": high,
    }


class Group:
    """The measured rows of one load, framework and model."""

    def __init__(self, load: StageLoad, framework: str, model: str) -> None:
        self.load, self.framework, self.model = load, framework, model
        self.outcomes: Counter[Outcome] = Counter()
        self.metrics = {name: Series() for name in _METRICS}


class StageSeries:
    """The rows of one stage."""

    def __init__(self, stage: int, load: StageLoad) -> None:
        self.stage = stage
        self.load = load
        self.exact = True
        """Whether the values of all rows are kept."""
        self._groups: dict[tuple[Any, ...], Group] = {}
        self._unmeasured: set[tuple[str, str]] = set()
        self._kept = 0

    @property
    def requests(self) -> int:
        """Return the number of measured rows."""
        return sum(group.outcomes.total() for group in self._groups.values())

    def groups(self) -> Sequence[Group]:
        """Return the groups that have measured rows."""
        return list(self._groups.values())

    def add(self, record: RequestRecord) -> None:
        """Add one row."""
        if not record.measured:
            if len(self._unmeasured) < MOST_GROUPS:
                self._unmeasured.add((record.framework, record.model))
            return
        key = record.framework, record.model, record.concurrency, record.rate_per_s
        load = dataclasses.replace(record.load, ramp=self.load.ramp, lengths=self.load.lengths)
        if not self._groups:
            self.load = load
        if key not in self._groups and len(self._groups) < MOST_GROUPS:
            self._groups[key] = Group(load, record.framework, record.model)
        group = self._groups.get(key) or self._groups.setdefault((), Group(self.load, "", "other models"))
        outcome = record.outcome
        group.outcomes[outcome] += 1
        if outcome is not Outcome.OK:
            return
        times_s = {"e2e": record.end_to_end_latency_s, "corrected_e2e": record.corrected_end_to_end_latency_s}
        if record.error_code != BUFFERED:
            times_s |= {"ttft": record.ttft_s, "tpot": record.tpot_s, "corrected_ttft": record.corrected_ttft_s}
        values = {name: as_written(time_s) for name, time_s in times_s.items() if time_s is not None}
        if record.output_tokens is not None and values.get("e2e", 0.0) > 0:
            values["throughput"] = record.output_tokens / values["e2e"]
        for name, value in values.items():
            self._add(group.metrics[name], value)

    def _add(self, series: Series, value: float) -> None:
        self._kept += 1
        if self._kept > MOST_VALUES and self.exact:
            self.exact = False
            for group in self._groups.values():
                for other in group.metrics.values():
                    other.values = array("d")
        series.add(value, keep=self.exact)

    def running_row(self) -> dict[str, Any]:
        """Return the figures of all rows so far in one row of the page, without the stage's rates."""
        groups = self.groups()
        figures = {name: estimate([group.metrics[name] for group in groups]) for name in _METRICS}
        outcomes = sum((group.outcomes for group in groups), Counter())
        return {**self._row(self.load, outcomes, figures), "finished": False, "exact": False}

    def finished_rows(self, record: StageRecord) -> list[dict[str, Any]]:
        """Return one row of the page per group of the finished stage; ``record`` is its row in the stages file.

        Other greenlets run between two metrics.
        """
        groups = list(self._groups.values())
        without_rows = self._unmeasured - {(group.framework, group.model) for group in groups}
        if not groups and not without_rows:
            without_rows = {("", "")}
        groups += [Group(record.load, *names) for names in without_rows]
        rows = []
        for group in sorted(groups, key=lambda group: (group.load.order, group.framework, group.model)):
            figures = {}
            for name, series in group.metrics.items():
                figures[name] = series.exact() if self.exact else estimate([series])
                gevent.sleep(0)
            row = self._row(group.load, group.outcomes, figures)
            row |= {COL.framework: group.framework, COL.model: group.model, "finished": True, "exact": self.exact}
            row |= {COL.health: record.health, COL.steadiness: record.steadiness}
            for name in _RATES if len(groups) == 1 else ():  # of several groups, only the total is known
                rate = getattr(record, name)
                row[name] = None if rate is None else as_written(rate)
            rows.append(row)
        return rows

    def _row(self, load: StageLoad, outcomes: Counter[Outcome], figures: dict[str, Any]) -> dict[str, Any]:
        return {
            COL.stage: self.stage,
            **load_fields(load),
            COL.health: None,
            COL.steadiness: None,
            **_counts(outcomes),
            **figures,
            **dict.fromkeys(_RATES),
        }


def load_fields(load: StageLoad) -> dict[str, Any]:
    """Return the fields of the page that name a stage's load. ``ramp`` and ``lengths`` are texts, or None."""
    return {
        COL.concurrency: load.users,
        COL.rate_per_s: None if load.rate_per_s is None else as_written(load.rate_per_s),
        "ramp": load.ramp.text if load.ramp is not None else None,
        "lengths": load.lengths.text if load.lengths is not None else None,
    }


class RunTotals:
    """The measured rows of all finished stages of a run. Its percentiles come from histograms."""

    def __init__(self) -> None:
        self._outcomes: Counter[Outcome] = Counter()
        self._metrics = {name: Series() for name in ("ttft", "tpot")}
        self._stages = 0
        self._measure_s = self._tokens = self._requests = 0.0

    def add(self, series: StageSeries, record: StageRecord) -> None:
        """Add a finished stage."""
        for group in series.groups():
            self._outcomes += group.outcomes
            for name, metric in self._metrics.items():
                metric.merge(group.metrics[name])
        self._stages += 1
        measure_s = record.measure_s or 0.0
        self._measure_s += measure_s
        self._tokens += record.window_tokens
        self._requests += (record.request_throughput_per_s or 0.0) * measure_s

    def figures(self) -> dict[str, Any]:
        """Return the figures of the run for the page. The rates are means over the time in which stages measured."""
        sums = dict(zip(_RATES, (self._tokens, self._requests), strict=True))
        return {
            "stages": self._stages,
            **_counts(self._outcomes),
            **{name: estimate([series]) for name, series in self._metrics.items()},
            **{name: total / self._measure_s if self._measure_s else None for name, total in sums.items()},
        }


def _counts(outcomes: Counter[Outcome]) -> dict[str, int]:
    return {
        "requests": outcomes.total(),
        "ok": outcomes[Outcome.OK],
        "failed": sum(count for outcome, count in outcomes.items() if outcome.is_failure),
        "throttled": outcomes[Outcome.THROTTLED],
        "aborted": outcomes[Outcome.ABORTED],
        "cancelled": outcomes[Outcome.CANCELLED],
    }


def as_written(value: float) -> float:
    """Return the number that a reader of the rows file gets."""
    return float(cell(value))
