"""Creation of a report: the input is runs, the output is tables as text and files.

The command ``llm-report`` and the load test both call this module. A format is a function from a content to its file
names and their text or bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llm_reports.content import NO_QUESTIONS, Content, Questions, content_of
from llm_reports.errors import InputError
from llm_reports.export import parquet, server, summary
from llm_reports.html import page
from llm_reports.input.loader import load
from llm_reports.llmperf import writer
from llm_reports.llmperf.writer import print_out
from llm_reports.markdown import report
from llm_reports.markdown.report import all_notes, decisions, tables_and_notes
from llm_reports.output_folder import write_files
from llm_reports.plots import images
from llm_reports.run import Run
from llm_reports.slo.gate import Gate

FORMATS: dict[str, Callable[[Content], Mapping[str, str | bytes]]] = {
    "md": report.files,
    "csv": lambda content: {**summary.files(content), **server.files(content)},
    "json": writer.files,
    "llmperf": writer.console_files,
    "html": page.files,
    "summary": lambda content: {**summary.json_files(content), **server.json_files(content)},
    "parquet": parquet.files,
    "svg": partial(images.files, kind="svg"),
    "png": partial(images.files, kind="png"),
}
_REMOVED = {
    "openmetrics": "this format no longer exists; use /llm/metrics of a running test for Prometheus, and --otel for "
    "other systems.",
}
"""Formats of earlier versions, and what replaces them."""
DEFAULT_FORMATS = ("md", "csv")
SOME_FIGURES = 0
ALL_FAILED = 1
BAD_OUTPUT = 2
ZERO_REQUESTS = 3
NOT_PASSED = 3


@dataclass(frozen=True)
class Report:
    """A finished report of a content: ``text`` goes to stdout, ``files`` were written.

    ``exit_code`` is 0; 1 when all requests failed; 2 when files could not be written; 3 when a run does not have
    measured requests or the SLO gate does not pass. If it is not 0, ``problem`` describes the reason. ``text`` also
    contains the ``warnings``.
    """

    text: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    exit_code: int
    problem: str
    gate: Gate | None
    content: Content

    @property
    def markdown(self) -> str:
        """The text as Markdown for a page."""
        return tables_and_notes(self.content)


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """Return the format names without duplicates; raise ``InputError`` with the valid names for an unknown format."""
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    *others, last = FORMATS
    choices = f"{', '.join(others)} or {last}, or several as in {','.join(DEFAULT_FORMATS)}"
    for name in wanted:
        if name in _REMOVED:
            raise InputError(f"--format {name}: {_REMOVED[name]}")
        if name not in FORMATS:
            raise InputError(f"--format {name}: unknown format. Use {choices}.")
    if not wanted:
        raise InputError(f"--format: the list is empty. Use {choices}.")
    return wanted


def report_run(
    prefix: str | Path,
    *,
    out: Path | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    count_connect: bool = False,
    questions: Questions = NO_QUESTIONS,
) -> Report:
    """Write the report of one run to ``out`` or to PREFIX_report; raises ``InputError`` when it cannot be read."""
    return report_runs([load(prefix)], out=out, formats=formats, count_connect=count_connect, questions=questions)


def text_report(prefix: str | Path, *, questions: Questions = NO_QUESTIONS) -> Report:
    """Return the report of one run as text, without files; raises ``InputError`` when the run cannot be read."""
    return _finished(content_of([load(prefix)], questions=questions), DEFAULT_FORMATS, [])


def report_runs(
    runs: Sequence[Run],
    *,
    out: Path | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    count_connect: bool = False,
    questions: Questions = NO_QUESTIONS,
) -> Report:
    """Write one report of several runs.

    Without ``out``, each run gets its own files in PREFIX_report; foreign files do not get files.
    """
    wanted = checked(formats)
    content = content_of(runs, count_connect=count_connect, questions=questions)
    if out is not None:
        return _finished(content, wanted, [(out, content)])
    parts = [
        # Reuse the content of a single run: the computation takes seconds for a large run.
        (folder, content if len(runs) == 1 else content_of([run], count_connect=count_connect, questions=questions))
        for run in runs
        if (folder := run.report_dir) is not None
    ]
    return _finished(content, wanted, parts)


def _finished(content: Content, wanted: Sequence[str], parts: Sequence[tuple[Path, Content]]) -> Report:
    """Write the parts of a report to folders and return the report."""
    exit_code, problem = _verdict(content)
    # stdout gets the tables, LLMPerf's console output, or both, depending on the formats.
    text = tables_and_notes(content, for_terminal=True)
    if "llmperf" in wanted and "md" in wanted:
        text = f"{text}\n{print_out(content)}"
    elif "llmperf" in wanted:
        parts_of_text = (print_out(content), all_notes(content), decisions(content))
        text = "\n".join(filter(None, parts_of_text)).rstrip("\n") + "\n"
    files: list[Path] = []
    try:
        for folder, part in parts:
            for name in wanted:
                files += write_files(FORMATS[name](part), folder)
    except InputError as error:
        exit_code, problem = BAD_OUTPUT, str(error)  # the tables are valid and must still be printed
    return Report(
        text=text,
        files=tuple(files),
        warnings=content.warnings,
        exit_code=exit_code,
        problem=problem,
        gate=content.gate,
        content=content,
    )


def _verdict(content: Content) -> tuple[int, str]:
    unmeasured = [run for run in content.runs if not run.measured]
    if unmeasured:
        reasons = dict.fromkeys(run.unmeasured_cause for run in unmeasured)
        return ZERO_REQUESTS, (
            f"{', '.join(str(run.source) for run in unmeasured)}: no request was measured (no row has measured=1). "
            + ("; ".join(filter(None, reasons)) or "Did the run end during warm-up?")
        )
    if content.gate is not None and not content.gate.passed:
        return NOT_PASSED, f"SLO gate {content.gate.verdict}: {'; '.join(content.gate.reasons)}"
    if not any(len(group.ok) for group in content.groups):
        sources = ", ".join(str(run.source) for run in content.runs)
        return ALL_FAILED, (
            f"{sources}: every measured request failed, so there are no figures. "
            + "; ".join(dict.fromkeys(group.failure_reasons for group in content.groups if group.failure_reasons))
        )
    return SOME_FIGURES, ""
