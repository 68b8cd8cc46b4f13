"""A report from start to end: runs in, tables as text and files out. The command and the load side both call it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llm_reports.errors import InputError
from llm_reports.formats import DEFAULT_FORMATS, FORMATS, checked
from llm_reports.input.inputs import load
from llm_reports.llmperf.printout import print_out
from llm_reports.llmperf.tables import Table, tables_of
from llm_reports.markdown.report import all_notes, decisions, tables_and_notes
from llm_reports.markdown.summary_table import SummaryLine, summary_lines
from llm_reports.metrics.costs import PriceFile
from llm_reports.metrics.goodput import StagePoint, stage_points
from llm_reports.metrics.groups import Group, groups
from llm_reports.metrics.open_loop import RateTable, open_loop_tables
from llm_reports.output_folder import write_files
from llm_reports.run import Run, named_apart
from llm_reports.slo.gate import ALL_STAGES, Gate, gate
from llm_reports.slo.objectives import Objectives

SOME_FIGURES = 0
ALL_FAILED = 1
BAD_OUTPUT = 2
ZERO_REQUESTS = 3
NOT_PASSED = 3


@dataclass(frozen=True)
class Questions:
    """What a report is asked beyond its tables.

    ``objectives`` are reported on; their verdict in ``stage`` (all, best or a number) decides the exit code.
    """

    objectives: Objectives | None = None
    stage: str = ALL_STAGES
    prices: PriceFile | None = None


NO_QUESTIONS = Questions()


@dataclass(frozen=True)
class Content:
    """Everything a format can write about: the runs, their groups, the tables, the warnings, and the answers.

    LLMPerf's two tables come first; groups of an open loop have three more.
    """

    runs: tuple[Run, ...]
    groups: tuple[Group, ...]
    tables: tuple[Table | RateTable, ...]
    warnings: tuple[str, ...]
    objectives: Objectives | None = None
    prices: PriceFile | None = None
    gate: Gate | None = None

    @cached_property
    def summary(self) -> list[SummaryLine]:
        """One line for each group, with the figures that a reader looks for first."""
        return summary_lines(self.groups, self.points)

    @cached_property
    def points(self) -> list[StagePoint]:
        """The stages as points of the curve, judged by the objectives when there are some."""
        return stage_points(self.groups, self.objectives) if self.objectives else stage_points(self.groups)


@dataclass(frozen=True)
class Report:
    """A finished report: ``text`` is what goes to stdout, ``markdown`` the same for a page, ``files`` were written.

    ``exit_code`` is 0; 1 when no request succeeded at all; 2 when files could not be written; 3 when a run has no
    measured request or the gate does not pass. When it is not 0, ``problem`` says so in words. ``warnings`` are in the
    text too.
    """

    text: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    exit_code: int
    problem: str
    gate: Gate | None = None
    decisions: str = ""
    markdown: str = ""


def report_run(
    prefix: str | Path,
    *,
    out: Path | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    count_connect: bool = False,
    questions: Questions = NO_QUESTIONS,
) -> Report:
    """The report of one run, written to ``out`` or to PREFIX_report; raises ``InputError`` when it cannot be read."""
    runs = [load(prefix)]
    return report_runs(runs, out=out, formats=formats, count_connect=count_connect, questions=questions)


def text_report(prefix: str | Path, *, questions: Questions = NO_QUESTIONS) -> Report:
    """The report of one run as text, without files; raises ``InputError`` when the run cannot be read."""
    return _finished(content_of([load(prefix)], questions=questions), DEFAULT_FORMATS, [])


def report_runs(
    runs: Sequence[Run],
    *,
    out: Path | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    count_connect: bool = False,
    questions: Questions = NO_QUESTIONS,
) -> Report:
    """One report of several runs. Without ``out`` each run gets its own files in PREFIX_report, foreign files none."""
    wanted = checked(formats)
    content = content_of(runs, count_connect=count_connect, questions=questions)
    if out is not None:
        parts = [(out, content)]
    else:
        own = [(run.report_dir, run) for run in runs if run.report_dir is not None]
        parts = [
            # What was computed once is good enough twice: the rows of a large run take seconds.
            (folder, content if len(runs) == 1 else content_of([run], count_connect=count_connect, questions=questions))
            for folder, run in own
        ]
    return _finished(content, wanted, parts)


def _finished(content: Content, wanted: Sequence[str], parts: Sequence[tuple[Path, Content]]) -> Report:
    """The report of a content, with its parts written into folders."""
    exit_code, problem = _verdict(content)
    files: list[Path] = []
    try:
        for folder, part in parts:
            files.extend(_write(part, folder, wanted))
    except InputError as error:
        exit_code, problem = BAD_OUTPUT, str(error)  # the tables themselves are fine and must not be lost
    return Report(
        text=_printed(content, wanted),
        files=tuple(files),
        warnings=content.warnings,
        exit_code=exit_code,
        problem=problem,
        gate=content.gate,
        decisions=decisions(content),
        markdown=tables_and_notes(content),
    )


def content_of(runs: Sequence[Run], *, count_connect: bool = False, questions: Questions = NO_QUESTIONS) -> Content:
    """What a report of these runs says, before any format."""
    runs = named_apart(runs)
    made = tuple(groups(runs, count_connect=count_connect))
    warnings = dict.fromkeys(warning for run in runs for warning in run.warnings)
    return Content(
        tuple(runs),
        made,
        (*tables_of(made), *open_loop_tables(made)),
        tuple(warnings),
        questions.objectives,
        questions.prices,
        gate(made, questions.objectives, questions.stage) if questions.objectives is not None else None,
    )


def _printed(content: Content, wanted: Sequence[str]) -> str:
    """What goes to stdout: the tables; LLMPerf's print-out where that was asked for, and both when both were."""
    if "llmperf" not in wanted:
        return tables_and_notes(content, for_terminal=True)
    if "md" in wanted:
        return f"{tables_and_notes(content, for_terminal=True)}\n{print_out(content)}"
    parts = (print_out(content), all_notes(content), decisions(content))
    return "\n".join(filter(None, parts)).rstrip("\n") + "\n"


def _verdict(content: Content) -> tuple[int, str]:
    unmeasured = [str(run.source) for run in content.runs if not run.measured]
    if unmeasured:
        return ZERO_REQUESTS, (
            f"{', '.join(unmeasured)}: no request was measured (no row has measured=1). "
            "Was the run ended in its warm-up, or was the server out of reach?"
        )
    if content.gate is not None and not content.gate.passed:
        return NOT_PASSED, f"gate {content.gate.outcome}: {'; '.join(content.gate.reasons)}"
    if not any(len(group.ok) for group in content.groups):
        sources = ", ".join(str(run.source) for run in content.runs)
        return ALL_FAILED, (
            f"{sources}: every measured request failed, so there are no figures. "
            "The notes count the error codes; error_message in the rows says more."
        )
    return SOME_FIGURES, ""


def _write(content: Content, folder: Path, formats: Iterable[str]) -> list[Path]:
    written: list[Path] = []
    for name in formats:
        written += write_files(FORMATS[name](content), folder)
    return written
