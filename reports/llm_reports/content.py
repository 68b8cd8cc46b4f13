"""The content of a report: the runs, their groups and tables, the warnings, and the results for the questions.

Every format is a function of a ``Content``. This module therefore does not import any format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from llm_reports.llmperf.tables import Table, tables_of, with_new_notes
from llm_reports.metrics.goodput import StagePoint, stage_points
from llm_reports.metrics.groups import Group, groups
from llm_reports.metrics.load_search import gate_of_runs, judged_groups, search_of
from llm_reports.metrics.open_loop import RateTable, open_loop_tables
from llm_reports.metrics.outcomes import succeeded
from llm_reports.run import Run, named_apart
from llm_reports.sections.summary_table import SummaryLine, summary_lines
from llm_reports.server_metrics.stages import ServerStage, server_stages
from llm_reports.slo.gate import ALL_STAGES, Gate
from llm_reports.slo.objectives import Objectives
from llm_reports.slo.sizing import Sizing, sizing
from llm_reports.stats.input_length import input_length_warning
from llm_users.prices import Prices
from llm_users.record import COL


@dataclass(frozen=True)
class Questions:
    """What a report contains in addition to its tables.

    The report states whether the stages meet the ``objectives``. The verdict in ``stage`` (all, best or a number)
    determines the exit code. ``prices`` adds costs. ``peak_per_s`` (requests/s) adds the number of replicas.
    """

    objectives: Objectives | None = None
    stage: str = ALL_STAGES
    prices: Prices | None = None
    peak_per_s: float | None = None


NO_QUESTIONS = Questions()


@dataclass(frozen=True)
class Content:
    """The input of every format: the runs, their groups, the tables, the warnings, and the results.

    LLMPerf's two tables come first; groups of an open loop have three additional tables.
    """

    runs: tuple[Run, ...]
    groups: tuple[Group, ...]
    tables: tuple[Table | RateTable, ...]
    warnings: tuple[str, ...]
    objectives: Objectives | None = None
    prices: Prices | None = None
    gate: Gate | None = None
    peak_per_s: float | None = None

    @cached_property
    def tables_with_notes(self) -> list[tuple[Table | RateTable, list[str]]]:
        """The tables, each with its notes; notes of an earlier table are replaced by a reference to the notes above."""
        return with_new_notes(self.tables)

    @cached_property
    def notes(self) -> list[str]:
        """The notes of all tables, each once."""
        return list(dict.fromkeys(note for table in self.tables for note in table.notes))

    @cached_property
    def summary(self) -> list[SummaryLine]:
        """The summary table: one line per group with the most important figures."""
        return summary_lines(self.groups, self.points)

    @cached_property
    def server_stages(self) -> list[ServerStage]:
        """The stages with metrics of the servers themselves."""
        return server_stages(self.groups)

    @cached_property
    def points(self) -> list[StagePoint]:
        """The stages as points of the curve, evaluated with the objectives if there are any."""
        return stage_points(self.groups, self.objectives) if self.objectives else stage_points(self.groups)

    @cached_property
    def drawn_objectives(self) -> Objectives | None:
        """The objectives that charts show: those of the report, or else those that all load searches have."""
        searched = {search.objectives for run in self.runs if (search := search_of(run)) is not None}
        return self.objectives or (searched.pop() if len(searched) == 1 else None)

    @cached_property
    def sizing(self) -> Sizing | None:
        """The number of replicas for the peak rate; ``None`` without a peak rate."""
        if self.peak_per_s is None:
            return None
        searches = [search for run in self.runs if (search := search_of(run)) is not None]
        searched = {search.objectives.text for search in searches}
        if self.objectives is None or searched == {self.objectives.text}:
            of_search = [run for run in self.runs if search_of(run) is not None]
            rest = [point for point in self.judged_points if point.group.run not in of_search]
            return sizing(self.peak_per_s, rest, searches)
        return sizing(self.peak_per_s, self.judged_points)

    @cached_property
    def judged_points(self) -> list[StagePoint]:
        """The points that the objectives judge: the levels of a load search, otherwise the stages."""
        judged = judged_groups(self.groups)
        return stage_points(judged, self.objectives) if self.objectives else stage_points(judged)


def content_of(runs: Sequence[Run], *, count_connect: bool = False, questions: Questions = NO_QUESTIONS) -> Content:
    """Return the content of a report of these runs, independent of its format."""
    runs = named_apart(runs) if len(runs) > 1 else runs
    all_groups = tuple(groups(runs, count_connect=count_connect))
    warnings = dict.fromkeys(
        warning for run in runs for warning in (*run.warnings, _input_length_warning(run)) if warning
    )
    return Content(
        tuple(runs),
        all_groups,
        (*tables_of(all_groups), *open_loop_tables(all_groups)),
        tuple(warnings),
        questions.objectives,
        questions.prices,
        gate_of_runs(all_groups, questions.objectives, questions.stage) if questions.objectives is not None else None,
        questions.peak_per_s,
    )


def _input_length_warning(run: Run) -> str:
    rows = run.requests
    counts = (rows[COL.measured] == 1) & (rows[COL.input_tokens_source] == "usage") & succeeded(rows[COL.error_code])
    return input_length_warning(run.name, run.manifest, float(rows[COL.input_tokens][counts].astype("float64").mean()))
