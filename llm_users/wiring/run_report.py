"""What the report side makes of a run when it is over: tables and folder, the section in Locust's own report.

One of the few modules that call ``llm_reports``; pandas is loaded when they do, never while anything is measured.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from llm_users.collect.writer import RunWriter
from llm_users.options.table import Options
from llm_users.run_files import LOAD_SEARCH_CSV, REPORT_FOLDER, path_of
from llm_users.web.html_section import append_to_file

logger = logging.getLogger(__name__)


FORMATS = ("md", "csv", "html")
"""What the folder gets: of a million rows the page takes about 10 s more than the tables (docs/report-html.md)."""


MOST_ROWS_TO_PRINT = 300_000
"""Beyond it a run without ``--llm-report`` prints no tables: reading a million rows takes half a minute."""


def print_end(prefix: str, options: Options, parsed: Any, writer: RunWriter, decided: Iterable[str]) -> None:
    """Print what a run found: always the tables, with ``--llm-report`` from a report folder that is written first.

    Without tables (nothing was started, too many rows, no command line) only what was decided is printed: the result
    of a search, the gate. A library's user, who has no command line, prints tables by itself.
    """
    if writer.book.started and options.report:
        print_report(prefix, options, getattr(parsed, "llm_prices", None))
    elif parsed is None or not writer.book.started or not _print_tables(prefix, options, writer):
        for text in filter(None, decided):
            print(text)


def print_report(prefix: str, options: Options, prices: str | None = None) -> None:
    """``--llm-report``: the tables to stdout, the folder beside the rows; with a price file the costs too."""
    from llm_reports.report import BAD_OUTPUT

    report = _report(prefix, options, _prices(prices), folder=True)
    if report is not None and report.exit_code == BAD_OUTPUT:
        logger.error("--llm-report: %s", report.problem)
    elif report is not None and report.files:
        print(f"Report: {prefix}{REPORT_FOLDER}/", file=sys.stderr)


def _print_tables(prefix: str, options: Options, writer: RunWriter) -> bool:
    """The tables without files; returns whether they were printed."""
    rows = sum(writer.received.values())
    if rows > MOST_ROWS_TO_PRINT:
        print(f"The run has {rows:,} rows. Print its tables with: llm-report {prefix}", file=sys.stderr)
        return False
    return _report(prefix, options, None, folder=False) is not None


def _report(prefix: str, options: Options, prices: Any, *, folder: bool) -> Any:
    """Print the report of a run, written to its folder too if asked; ``None`` when it cannot be made."""
    import llm_reports
    from llm_reports.report import text_report

    try:
        objectives = llm_reports.parse_objectives(options.slo) if options.slo is not None else None
        questions = llm_reports.Questions(objectives, options.slo_stage, prices)
        if folder:
            report = llm_reports.report_run(
                prefix, out=path_of(prefix, REPORT_FOLDER), formats=FORMATS, questions=questions
            )
        else:
            report = text_report(prefix, questions=questions)
    except llm_reports.InputError as error:
        logger.error("no report: %s", error)
        return None
    print(report.text)
    return report


def publish_search(prefix: str) -> str:
    """``--llm-find``: PREFIX_llm_find.csv from the files of the run, and the text with the result and its table."""
    import llm_reports
    from llm_reports.markdown.load_search import find_csv, limit_section
    from llm_reports.metrics.load_search import search_of

    try:
        run = llm_reports.load(prefix)
    except llm_reports.InputError as error:
        logger.error("no table of the search: %s", error)
        return ""
    search = search_of(run)
    if search is None:
        return ""
    path = path_of(prefix, LOAD_SEARCH_CSV)
    try:
        path.write_text(find_csv(search), encoding="utf-8")
    except OSError as error:
        logger.error("%s cannot be written: %s", path, error.strerror or error)
    return limit_section([run])


def _prices(path: str | None) -> Any:
    """The report's view of the price file, which may also name the price of an hour; a bad one costs only the costs."""
    import llm_reports

    try:
        return llm_reports.load_prices(path) if path else None
    except llm_reports.InputError as error:
        logger.error("--llm-prices: no costs in the report: %s", error)
        return None


def add_to_html(prefix: str, options: Options, path: str, *, not_before: float) -> None:
    """``--html``: the section with tables and curve, in the file that Locust has written by now."""
    from llm_reports.errors import InputError
    from llm_reports.html.fragment import fragment_of

    try:
        section = fragment_of(prefix, slo=options.slo, stage=options.slo_stage)
    except InputError as error:
        logger.error("no LLM section in %s: %s", path, error)
        return
    append_to_file(path, section, not_before=not_before)


def objectives_of(slo: str) -> list[dict[str, Any]]:
    """The objectives as the page draws them; of one about a mean or a share the percentile is None."""
    import llm_reports

    found = []
    for each in llm_reports.parse_objectives(slo).all:
        percent = None if each.q is None else float(f"{each.q * 100:.10g}")
        percentile = int(percent) if percent is not None and percent.is_integer() else percent
        found.append({"text": each.text, "metric": each.name, "percentile": percentile, "limit": each.limit})
    return found
