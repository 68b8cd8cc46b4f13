"""``--llm-find``: a search chooses the loads of a run, and the report side judges each of them.

The module keeps the judged columns of every measured row, so that it need not read files after each stage. It loads
pandas between the first and the second stage, when nothing is measured.
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
from llm_users.load.coordinator.load_search import MOST_REPEATS, WITHIN, Judgement, LoadSearch, Point, Range
from llm_users.load.coordinator.stages import Minimum, StageSpec
from llm_users.number_words import counted, listed
from llm_users.options.table import Options
from llm_users.record import RequestRecord, StageLoad, StageRecord
from llm_users.verdict import Verdict

if TYPE_CHECKING:
    from llm_reports.metrics.load_search import LevelFigures
    from llm_reports.slo.objectives import Objective

logger = logging.getLogger(__name__)

MOST_TIMES_LOW = 1000.0
"""The upper end of a search among rates without a limit, as a multiple of the lowest rate."""

MOST_ROWS = 20_000
"""The search judges at most this many rows of a stage, the first ones. Their intervals are below one percent wide."""

LEAST_S = 30.0
LEAST_LIMITS = 10.0
LEAST_LATENCIES = 12.0
"""A stage lasts at least ``LEAST_S``, this many times the largest latency limit, and this many times the mean latency
of the first stage, because a growing queue needs time to show. --llm-stage-time overrides this time.

The steadiness of a stage below 8 latencies is unknown (``llm_reports.metrics.steadiness``). Near the limit, answers
take longer than in the first stage, which has the lowest load; 12 leaves room for an increase by half."""

SHORT_LATENCIES = 8.0
"""A stage time below this many latencies causes a warning."""

_LONGER = 3  # factor of the stage time that the result suggests
_SPARE_MIN = 2  # for the pauses between stages

_PERIODS = 30  # periods of a stage for the early stop; long latencies make a period longer


class SearchStages:
    """The loads of one run; the results of the stages so far determine the next load."""

    def __init__(self, options: Options) -> None:
        import llm_reports
        from llm_reports.slo.objectives import JUDGED_COLUMNS

        self._open_loop = bool(options.rate)
        self.unit = "requests/s" if self._open_loop else "users"
        self._objectives = llm_reports.parse_objectives(options.find or "")
        self._most_stages = options.find_stages
        if options.rate:
            low, *rest = (rate.start_per_s for rate in options.rate)
            high = rest[0] if rest else low * MOST_TIMES_LOW
        else:
            low = float(options.sweep[0] if options.sweep else 1)
            high = max(low, float(options.most_users))
        loads = Range(low, high, whole=not options.rate)
        self._search = LoadSearch(loads, options.find_stages, self._judge)
        limits = [objective.limit for objective in self._objectives.all if objective.kind.unit == "s"]
        least_s = max([LEAST_S, *(LEAST_LIMITS * limit_s for limit_s in limits)])
        self._fixed_stage_time = options.stage_time_s is not None
        seconds = options.stage_time_s if options.stage_time_s is not None else least_s
        self._run_time_s: float | None = None
        self._latencies_s: list[float] = []  # of the requests of the first stage
        self._minimum = Minimum(options.stage_requests or 1, seconds)
        self._columns = JUDGED_COLUMNS
        self._watch = FailureWatch(())
        self._measured = 0  # number of measured rows of the present stage
        self._first_start: float | None = None  # start of the first of these rows; wall clock
        self._rows: dict[int, list[tuple[Any, ...]]] = {}
        self._stages: list[StageRecord] = []
        self._load = 0.0
        self._started_stages = 0
        self._over = False
        self._repeated = False  # whether the first stage was too short and does not count
        for text in _too_few(self._objectives.all, options.stage_requests):
            logger.warning("--llm-find: %s", text)

    # Methods for the coordinator.

    @property
    def count(self) -> int:
        return max(1, self._started_stages)

    @property
    def total_text(self) -> str:
        return f"at most {self._most_stages + self._repeated}"

    @property
    def later(self) -> None:
        return None

    def ended_by_run_time(self, run_time_s: float) -> None:
        """Record that ``--run-time`` (s) ended the search."""
        self._run_time_s = run_time_s

    def next(self, last: StageRecord | None) -> StageSpec | None:
        if last is not None:
            self._stages.append(last)
            too_short = len(self._stages) == 1 and self._set_stage_time() and self._repeats(last.stage)
            if not too_short:
                self._log(self._search.ended(self._load, last.stage))
        load = self._search.next()
        self._over = load is None
        if load is None:
            return None
        self._load = load
        self._started_stages += 1
        self._measured, self._first_start = 0, None
        minimum, requests = self._minimum, None
        if self._open_loop:  # the number of arrivals is known in advance
            requests = max(minimum.requests, math.ceil(load * minimum.seconds))
        allowances = _allowances(self._objectives.all, requests)
        self._watch = FailureWatch(allowances, minimum.seconds / _PERIODS)
        goal = f"the highest {'rate' if self._open_loop else 'number of users'} that meets {self._objectives.text}"
        if self._open_loop:
            return StageSpec(StageLoad(rate_per_s=load), requests=requests, minimum=minimum, goal=goal)
        return StageSpec(StageLoad(int(load)), minimum=minimum, goal=goal)

    def seen(self, record: RequestRecord) -> str | None:
        if not record.measured:
            return None
        rows = self._rows.setdefault(record.stage, [])
        if len(rows) < MOST_ROWS:
            rows.append(tuple(getattr(record, name) for name in self._columns))
        if record.stage != self._started_stages:
            return None
        self._measured += 1
        if not self._stages and record.end_to_end_latency_s is not None and len(self._latencies_s) < MOST_ROWS:
            self._latencies_s.append(record.end_to_end_latency_s)
        if record.started_at is not None:
            self._first_start = min(record.started_at, self._first_start or math.inf)
        return self._watch.add(record)

    def enough(self) -> bool:
        if self._open_loop or self._first_start is None:
            return False
        lasted_s = time.time() - self._first_start  # rows have no other clock that is common to all workers
        return self._measured >= self._minimum.requests and lasted_s >= self._minimum.seconds

    # The result.

    @property
    def conclusive(self) -> bool:
        """Return whether a load is confirmed: its intervals show that it meets the objectives."""
        return self._search.confirmed is not None

    def entry(self) -> dict[str, Any]:
        """Return the search as an entry of the manifest."""
        best, confirmed, above = self._search.best, self._search.confirmed, self._search.above
        return {
            "objectives": self._objectives.text,
            "unit": self.unit,
            "low": self._search.where.low,
            "high": self._search.where.high,
            "found": confirmed.load if confirmed is not None else None,
            "estimate": best.load if best is not None else None,  # the highest load whose figures meet the objectives
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

    def _in_words(self, load: float) -> str:
        return f"{load:g} {self.unit}" if self._open_loop else counted(load, "user")

    @property
    def conclusion(self) -> str:
        """Return the result as a sentence."""
        search = self._search
        best, above, confirmed = search.best, search.above, search.confirmed
        stages = counted(search.stages, "stage")
        objectives = self._objectives.text
        if best is None and above is None:
            return f"No stage was complete, so there is no result for {objectives}"
        if best is None:
            assert above is not None
            return f"No load was found that meets {objectives}: below {self._in_words(above.load)} ({stages})"
        undecided = [f"{point.load:g}" for point in search.undecided]
        are = "is" if len(undecided) == 1 else "are"
        if confirmed is None:
            bracket = [f"{listed(undecided)} {are} undecided", *self._failed_words(above)]
            return f"No load is confirmed to meet {objectives}: {', '.join(bracket)} ({self.unit}; {stages})"
        bracket = [*self._failed_words(above), *([f"{listed(undecided)} {are} undecided"] if undecided else [])]
        found = f"The highest load that meets {objectives}:"
        if above is None:
            option = "--llm-rate" if self._open_loop else "--llm-sweep"
            if not undecided:
                bracket = [
                    f"the highest that was allowed; {option} {search.where.low:g},{4 * search.where.high:g} goes higher"
                    if best.load >= search.where.high
                    else "nothing higher was tried"
                ]
            return f"{found} at least {self._in_words(confirmed.load)} ({', '.join(bracket)}; {stages})"
        bracket.insert(0, f"bracket: {confirmed.load:g} passed")
        return f"{found} {self._in_words(confirmed.load)} ({', '.join(bracket)}; {stages})"

    def _failed_words(self, above: Point | None) -> list[str]:
        if above is None:
            return []
        return [f"{above.load:g} failed" + ("" if above.decided else " by its figures alone")]

    @property
    def reservations(self) -> list[str]:
        """Return the limitations of the result."""
        search = self._search
        limitations = []
        undecided = search.undecided
        if undecided:
            from llm_reports.slo.gate import TOO_SHORT

            lowest = undecided[0]
            text = lowest.judgement.text
            doubt = "The figures meet the limits, but they do not show it with 95 % confidence. "
            limitations.append(
                f"{self._in_words(lowest.load)}: {text}. {'' if TOO_SHORT in text else doubt}"
                f"Longer stages (--llm-stage-time {self._longer_s:g}s) can decide it."
            )
        if self._run_time_s is not None:
            most_min = math.ceil(self._most_stages * self._minimum.seconds / 60)
            limitations.append(
                f"--run-time {self._run_time_s:g}s ended the search in stage {self._started_stages} of at most "
                f"{self._most_stages}. A stage lasts at least {self._minimum.seconds:g} s, so the search can take "
                f"{most_min} minutes or more. Give --run-time {most_min + _SPARE_MIN}m, or omit it, because a search "
                "ends by itself."
            )
        elif not search.closed and search.points:
            used_up = self._over and search.stages >= self._most_stages
            why = f"--llm-find-stages {self._most_stages} is not enough" if used_up else "the run was ended early"
            limitations.append(f"The limit is not known to {100 * WITHIN:g} %: {why}.")
        return limitations

    @property
    def said(self) -> str:
        """Return the conclusion and its limitations in one line."""
        return " ".join([f"{self.conclusion}.", *self.reservations])

    # Internal methods.

    @property
    def _longer_s(self) -> float:
        """Return a stage time (s) that decides more than the present one."""
        return _LONGER * math.ceil(self._minimum.seconds)

    def _log(self, point: Point) -> None:
        verdict, text = point.judgement.verdict, point.judgement.text
        direction = "above" if point.passes else "below"
        counts = "" if point.decided else f"; by its figures, the limit is {direction} it"
        logger.info("%s: %s%s: %s", self._in_words(point.load), verdict, counts, text)

    def _repeats(self, stage: int) -> bool:
        """Return whether the first stage does not count, because it is undecided and its figures meet the limits.

        The search then starts again at the same load with the longer stage time.
        """
        judgement = self._judge([stage])
        if self._most_stages == 1 or judgement.verdict is not Verdict.UNDECIDED or not judgement.holds:
            return False
        self._repeated = True
        logger.info("%s: measured again for %g s", self._in_words(self._load), self._minimum.seconds)
        return True

    def _set_stage_time(self) -> bool:
        """Set the length of later stages by the latency of the first one, or warn that the user's is too short.

        Return whether the first stage was shorter than ``SHORT_LATENCIES`` although the user did not set its time.
        """
        if not self._latencies_s:
            return False
        latency_s = math.fsum(self._latencies_s) / len(self._latencies_s)
        self._latencies_s.clear()
        sufficient_s = float(math.ceil(LEAST_LATENCIES * latency_s))
        given_s = self._minimum.seconds
        if not self._fixed_stage_time and sufficient_s > given_s:
            self._minimum = dataclasses.replace(self._minimum, seconds=sufficient_s)
            logger.info(
                "--llm-find: an answer takes %.3g s, so each further stage lasts at least %g s, %g times as long; "
                "--llm-stage-time sets another time",
                latency_s, sufficient_s, LEAST_LATENCIES,
            )  # fmt: skip
        elif self._fixed_stage_time and given_s < SHORT_LATENCIES * latency_s:
            logger.warning(
                "--llm-find: --llm-stage-time %gs is too short: an answer takes %.3g s, and a growing queue shows only "
                "in a stage that lasts much longer; give --llm-stage-time %gs or more",
                given_s, latency_s, sufficient_s,
            )  # fmt: skip
        return not self._fixed_stage_time and given_s < SHORT_LATENCIES * latency_s

    def _judge(self, stages: Sequence[int]) -> Judgement:
        figures = self._figures(stages)
        text = figures.reason
        if figures.judgements and not any(one.n or one.group.counts.ok for one in figures.judgements):
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


def _too_few(objectives: Sequence[Objective], requests: int | None) -> list[str]:
    """Return messages about objectives that the requests of one stage cannot decide."""
    from llm_reports.slo.evidence import least_requests

    needed = {objective.text: least_requests(objective) for objective in objectives}
    return [
        f"{text} needs at least {least} requests to be decided and a stage has {requests}, so one stage alone cannot "
        f"confirm a load; give --llm-requests {least}"
        for text, least in needed.items()
        if requests is not None and requests < least
    ]


# The early stop of a stage that has failed.


def _allowances(objectives: Sequence[Objective], requests: int | None) -> list[Allowance]:
    """Return the allowances of a stage. ``requests`` is the total number of its requests, or None if it is unknown.

    An objective that single requests do not decide (means, checked answers) has none.
    """
    from llm_reports.slo.objectives import ERRORS, FAILURES_ALLOWED

    def failures(text: str, share: float) -> Allowance:
        too_many = None if requests is None else math.floor(requests * share) + 1
        return Allowance(text, _failed, share, too_many)

    allowances = []
    for objective in objectives:
        if objective.name == ERRORS:
            allowances.append(failures(objective.text, objective.limit))
        elif objective.q is not None:
            share = 1 - objective.q if objective.kind.less_is_better else objective.q
            # With this many values beyond the limit, both values of the quantile's interpolation are beyond it
            # (quantile.py).
            sure = None if requests is None else requests - math.floor((requests - 1) * (1 - share))
            allowances.append(Allowance(objective.text, _Breaks(objective), share, sure))
    if not any(objective.name == ERRORS for objective in objectives):
        allowances.append(failures(f"errors<{FAILURES_ALLOWED:g}", FAILURES_ALLOWED))
    return allowances


def _failed(record: RequestRecord) -> bool | None:
    outcome = record.outcome
    return None if outcome.is_unfinished else outcome.is_failure


class _Breaks:
    """Decides whether a request is beyond an objective's limit, or None if the request has no such figure.

    A failed request is beyond the limit: it counts as infinitely slow and without throughput.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._column = objective.kind.column

    def __call__(self, record: RequestRecord) -> bool | None:
        needs_stream = self._objective.kind.needs_stream
        if needs_stream and not record.streamed:
            return None
        if record.outcome.is_failure:
            return True
        if not record.ok or (needs_stream and record.buffered):
            return None
        value = getattr(record, self._column)
        if self._objective.name == "throughput":  # from the request's own figures, as on the report side
            tokens, duration_s = record.output_tokens, record.end_to_end_latency_s
            value = tokens / duration_s if tokens is not None and duration_s else None
        return None if value is None else self._objective.broken(value)
