"""``--llm-find``: the loads of a run are those of a search, and the report side judges each of them.

Keeps of every measured row what a judgement needs, so that files are not read again after every stage. pandas is loaded
between the first stage and the second, when nothing is measured.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_users.load.coordinator.early_stop import Allowance, FailureWatch
from llm_users.load.coordinator.load_search import (
    MOST_REPEATS,
    WITHIN,
    Judgement,
    LoadSearch,
    Range,
)
from llm_users.load.coordinator.stages import Minimum, StageSpec
from llm_users.options.table import Options
from llm_users.record import RequestRecord, StageLoad, StageRecord
from llm_users.verdict import Verdict

if TYPE_CHECKING:
    from llm_reports.metrics.load_search import LevelFigures
    from llm_reports.slo.objectives import Objective

logger = logging.getLogger(__name__)

MOST_TIMES_LOW = 1000.0
"""Where a search among rates ends when nobody says so: times the lowest."""

MOST_ROWS = 20_000
"""The search judges at most this many rows of a stage, the first ones. Their intervals are below a percent wide."""

LEAST_S = 30.0
LEAST_LIMITS = 10.0
"""A stage lasts at least ``LEAST_S`` and this many times the largest latency limit: a queue that grows needs time to
show. --llm-stage-time says another time."""

_PERIODS = 30  # of a stage, for ending it early; a period is longer where latencies are


class SearchStages:
    """The loads of one run, decided one after the other."""

    def __init__(self, options: Options) -> None:
        import llm_reports

        self._open_loop = bool(options.rate)
        self.unit = "requests/s" if self._open_loop else "users"
        self._objectives = llm_reports.parse_objectives(options.find or "")
        self._most_stages = options.find_stages
        self._search = LoadSearch(_range_of(options), options.find_stages, self._judge)
        self._minimum = minimum_of(options, self._objectives.all)
        self._columns = _judged_columns()
        self._watch = FailureWatch(())
        self._measured = 0  # rows of the present stage
        self._first_start: float | None = None  # of these; wall clock
        self._rows: dict[int, list[tuple[Any, ...]]] = {}
        self._stages: list[StageRecord] = []
        self._load = 0.0
        self._given = 0
        self._over = False
        for text in _too_few(self._objectives.all, options.stage_requests):
            logger.warning("--llm-find: %s", text)

    # What the coordinator asks.

    @property
    def count(self) -> int:
        return max(1, self._given)

    def next(self, last: StageRecord | None) -> StageSpec | None:
        if last is not None:
            self._stages.append(last)
            point = self._search.ended(self._load, last.stage)
            counted = Verdict.PASSED if point.passes else Verdict.FAILED
            counts = "" if point.decided else f"; counts as {counted} by its figures"
            logger.info("%s: %s%s: %s", self._shown(point.load), point.judgement.verdict, counts, point.judgement.text)
        load = self._search.next()
        self._over = load is None
        if load is None:
            return None
        self._load = load
        self._given += 1
        self._measured, self._first_start = 0, None
        minimum, requests = self._minimum, None
        if self._open_loop:  # arrivals are known beforehand
            requests = max(minimum.requests, math.ceil(load * minimum.seconds))
        allowances = _allowances(self._objectives.all, requests)
        self._watch = FailureWatch(allowances, minimum.seconds / _PERIODS)
        if self._open_loop:
            return StageSpec(StageLoad(rate_per_s=load), requests=requests, minimum=minimum)
        return StageSpec(StageLoad(int(load)), minimum=minimum)

    def seen(self, record: RequestRecord) -> str | None:
        if not record.measured:
            return None
        rows = self._rows.setdefault(record.stage, [])
        if len(rows) < MOST_ROWS:
            rows.append(tuple(getattr(record, name) for name in self._columns))
        if record.stage != self._given:
            return None
        self._measured += 1
        if record.started_at is not None:
            self._first_start = min(record.started_at, self._first_start or math.inf)
        return self._watch.add(record)

    def enough(self) -> bool:
        if self._open_loop or self._first_start is None:
            return False
        lasted_s = time.time() - self._first_start  # rows have no other clock that all workers share
        return self._measured >= self._minimum.requests and lasted_s >= self._minimum.seconds

    # The result.

    @property
    def conclusive(self) -> bool:
        """Whether a load was found, and not by undecided figures alone."""
        return self._search.best is not None and any(point.decided for point in self._search.points)

    def entry(self) -> dict[str, Any]:
        """The search as the manifest has it."""
        best, above = self._search.best, self._search.above
        return {
            "objectives": self._objectives.text,
            "unit": self.unit,
            "low": self._search.where.low,
            "high": self._search.where.high,
            "found": best.load if best is not None else None,
            "fails": above.load if above is not None else None,
            "conclusion": self.conclusion,
            "reservations": self.reservations,
            "points": [
                {
                    "level": point.load,
                    "stages": point.stages,
                    "passed": point.passes,
                    "decided": point.decided,
                    "reason": point.judgement.text,
                }
                for point in self._search.points
            ],
        }

    @property
    def conclusion(self) -> str:
        """The result in a sentence."""
        search, unit = self._search, self.unit
        best, above = search.best, search.above
        stages = f"{search.stages} {'stage' if search.stages == 1 else 'stages'}"
        if best is None and above is None:
            return f"No load was tried to the end, so nothing is known about {self._objectives.text}"
        if best is None and above is not None:
            text = f"No load was found that meets {self._objectives.text}: below {above.load:g} {unit} ({stages})"
        elif above is None and best is not None:
            top = best.load >= search.where.high
            text = (
                f"The highest load that meets {self._objectives.text}: at least {best.load:g} {unit} "
                f"({'the highest that was allowed' if top else 'nothing higher was tried'}; {stages})"
            )
        else:
            assert best is not None
            assert above is not None
            text = (
                f"The highest load that meets {self._objectives.text}: {best.load:g} {unit} "
                f"(between {best.load:g} and {above.load:g}; {stages})"
            )
        return text

    @property
    def reservations(self) -> list[str]:
        """What is to be known about the result besides."""
        said = []
        best = self._search.best
        if best is not None and not best.decided:
            said.append(
                f"The result, {best.load:g} {self.unit}, is not decided: only its figures meet the limits, not their "
                "intervals. More requests per stage (--llm-requests, --llm-stage-time), or a client that is not "
                "saturated, can decide it."
            )
        if not any(point.decided for point in self._search.points):
            said.append("No load was decided. Give more requests per stage, or use a client that is not saturated.")
        if not self._search.closed:
            used_up = self._over and self._search.stages >= self._most_stages
            why = f"--llm-find-stages {self._most_stages} were not enough" if used_up else "the run was ended before"
            said.append(f"The limit is not known to {100 * WITHIN:g} %: {why}.")
        return said

    @property
    def said(self) -> str:
        """All of it in a line."""
        return " ".join([f"{self.conclusion}.", *self.reservations])

    # Inside.

    def _shown(self, load: float) -> str:
        return f"{load:g} {self.unit}"

    def _judge(self, stages: Sequence[int]) -> Judgement:
        figures = self._figures(stages)
        text = figures.reason
        if figures.judgements and not any(each.n for each in figures.judgements):
            text = "no request succeeded"
        return Judgement(figures.verdict, figures.holds, text, figures.margin, figures.could_decide(MOST_REPEATS))

    def _figures(self, stages: Sequence[int]) -> LevelFigures:
        from pandas import Series

        from llm_reports.input.rows import typed_frame
        from llm_reports.metrics.load_search import level_figures
        from llm_reports.run import Run
        from llm_users.record import REQUEST_COLUMNS, STAGE_COLUMNS

        rows = [row for stage in stages for row in self._rows.get(stage, [])]
        texts = {column.name for column in REQUEST_COLUMNS + STAGE_COLUMNS if column.type is str}

        def series(name: str, values: list[Any]) -> Series:
            if name in texts:
                return Series(["" if value is None else value for value in values], dtype=object)
            return Series([math.nan if value is None else float(value) for value in values], dtype="float64")

        requests = {name: series(name, [row[i] for row in rows]) for i, name in enumerate(self._columns)}
        records = [dataclasses.asdict(record) for record in self._stages if record.stage in stages]
        about = {column.name: series(column.name, [r[column.name] for r in records]) for column in STAGE_COLUMNS}
        run = Run("search", Path(), typed_frame(requests, REQUEST_COLUMNS), typed_frame(about, STAGE_COLUMNS))
        return level_figures(run, self._load, stages, self._objectives)


def _range_of(options: Options) -> Range:
    if options.rate:
        low, high = options.rate[0], options.rate[1] if len(options.rate) > 1 else options.rate[0] * MOST_TIMES_LOW
        return Range(low, high, whole=False)
    low = options.sweep[0] if options.sweep else 1
    return Range(float(low), float(max(low, options.most_users)), whole=True)


def _too_few(objectives: Sequence[Objective], requests: int | None) -> list[str]:
    """What the requests of a stage can never decide."""
    from llm_reports.slo.gate import least_requests

    needed = {each.text: least_requests(each) for each in objectives}
    return [
        f"{text} needs at least {least} requests to be decided and a stage has {requests}: loads will count by their "
        f"figures; give --llm-requests {least}"
        for text, least in needed.items()
        if requests is not None and requests < least
    ]


def minimum_of(options: Options, objectives: Sequence[Objective]) -> Minimum:
    """What a stage of the search measures at least."""
    limits = [each.limit for each in objectives if each.kind.unit == "s"]
    least_s = max([LEAST_S, *(LEAST_LIMITS * limit_s for limit_s in limits)])
    seconds = options.stage_time_s if options.stage_time_s is not None else least_s
    return Minimum(options.stage_requests or 1, seconds)


def _judged_columns() -> tuple[str, ...]:
    from llm_reports.slo.judged_columns import JUDGED_COLUMNS

    return JUDGED_COLUMNS


# When a stage has failed before its end.


def _allowances(objectives: Sequence[Objective], requests: int | None) -> list[Allowance]:
    """``requests``: all that the stage will have; None when that is not known beforehand."""
    from llm_reports.slo.objectives import ERRORS, FAILURES_ALLOWED

    allowances = [found for each in objectives if (found := _allowance(each, requests)) is not None]
    if not any(each.name == ERRORS for each in objectives):
        text = f"errors<{FAILURES_ALLOWED:g}"
        allowances.append(Allowance(text, _failed, FAILURES_ALLOWED, _too_many(FAILURES_ALLOWED, requests)))
    return allowances


def _allowance(objective: Objective, requests: int | None) -> Allowance | None:
    """None for what single requests do not decide: means, and answers that are checked."""
    from llm_reports.slo.objectives import ERRORS

    if objective.name == ERRORS:
        return Allowance(objective.text, _failed, objective.limit, _too_many(objective.limit, requests))
    if objective.q is None:
        return None
    share = 1 - objective.q if objective.kind.less_is_better else objective.q
    # With this many values beyond the limit, both between which the quantile is interpolated are (quantile.py).
    sure = None if requests is None else requests - math.floor((requests - 1) * (1 - share))
    return Allowance(objective.text, _Breaks(objective), share, sure)


def _too_many(share: float, requests: int | None) -> int | None:
    return None if requests is None else math.floor(requests * share) + 1


def _failed(record: RequestRecord) -> bool | None:
    outcome = record.outcome
    return None if outcome.is_unfinished else outcome.is_failure


class _Breaks:
    """Whether a request is beyond an objective's limit; None where it has no such figure.

    A failed request is: it was infinitely slow, and gave no throughput.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._column = objective.kind.column
        self._streamed_only = objective.name in ("ttft", "ttfat", "tpot", "corrected_ttft")

    def __call__(self, record: RequestRecord) -> bool | None:
        if record.outcome.is_failure:
            return True
        if not record.ok or (self._streamed_only and record.buffered):
            return None
        value = _tokens_per_s(record) if self._objective.name == "throughput" else getattr(record, self._column)
        return None if value is None else self._objective.broken(value)


def _tokens_per_s(record: RequestRecord) -> float | None:
    """As the report side has it: from the row's own figures."""
    tokens, duration_s = record.output_tokens, record.end_to_end_latency_s
    return tokens / duration_s if tokens is not None and duration_s else None
