"""The report at the end of a run: tables, the report folder, and the section in Locust's own report.

Few modules call ``llm_reports``; this is one of them. The functions load pandas when they run, never during
measurement.
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
"""The formats in the report folder. For a million rows the page takes about 10 s more than the tables
(docs/report-html.md)."""

MOST_ROWS_TO_PRINT = 300_000
"""With more rows, a run without ``--llm-report`` prints no tables: reading a million rows takes half a minute."""


def print_end(prefix: str, options: Options, parsed: Any, writer: RunWriter, decided: Iterable[str]) -> None:
    """Print the results of a run: the tables, and with ``--llm-report`` also write the report folder beside the rows.

    Without tables (nothing was started, too many rows, no command line) the function prints only ``decided``: the texts
    of a load search and of the SLO gate. A program that uses Locust as a library has no command line and prints tables
    itself.
    """
    rows = sum(writer.received.values())
    if writer.book.started and options.report:
        _print_report(prefix, options, getattr(parsed, "llm_prices", None), folder=True)
        return
    if parsed is not None and writer.book.started and rows <= MOST_ROWS_TO_PRINT:
        if _print_tables(prefix, options, complete=not writer.problem()):
            return
    elif parsed is not None and writer.book.started:
        print(f"The run has {rows:,} rows. Print its tables with: llm-report {prefix}", file=sys.stderr)
    for text in filter(None, decided):
        print(text)


def _print_tables(prefix: str, options: Options, *, complete: bool) -> bool:
    """Print the tables, without pandas if possible, whose import takes a second. Return False on an invalid run."""
    if complete and options.slo is None and options.find is None:
        from llm_reports.end_of_run import end_text

        if (text := end_text(prefix)) is not None:
            print(text)
            return True
    return _print_report(prefix, options, None, folder=False)


def _print_report(prefix: str, options: Options, price_file: str | None, *, folder: bool) -> bool:
    """Print the tables and, if ``folder`` is set, write the report folder. Return False on an invalid run.

    With a price file, both contain the costs; an invalid price file only removes the costs.
    """
    import llm_reports
    from llm_reports.errors import PriceFileError
    from llm_reports.report import BAD_OUTPUT, text_report

    try:
        prices = llm_reports.load_prices(price_file) if price_file else None
        objectives = llm_reports.parse_objectives(options.slo) if options.slo is not None else None
        questions = llm_reports.Questions(objectives, options.slo_stage, prices)
        if folder:
            report = llm_reports.report_run(
                prefix, out=path_of(prefix, REPORT_FOLDER), formats=FORMATS, questions=questions
            )
        else:
            report = text_report(prefix, questions=questions)
    except PriceFileError as error:
        logger.error("--llm-prices: no costs in the report: %s", error)
        return _print_report(prefix, options, None, folder=folder)
    except llm_reports.InputError as error:
        logger.error("no report: %s", error)
        return False
    print(report.text)
    if folder and report.exit_code == BAD_OUTPUT:
        logger.error("--llm-report: %s", report.problem)
    elif folder and report.files:
        print(f"Report: {prefix}{REPORT_FOLDER}/", file=sys.stderr)
    return True


def publish_search(prefix: str) -> str:
    """Write PREFIX_llm_find.csv (``--llm-find``) and return the text with the result and its table."""
    import llm_reports
    from llm_reports.markdown.report import search_text
    from llm_reports.metrics.load_search import search_of
    from llm_reports.sections.load_search import find_csv

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
    return search_text([run])


def add_to_html(prefix: str, options: Options, path: str, *, not_before: float) -> None:
    """Add the section with tables and curve to the file that Locust has written for ``--html``."""
    from llm_reports.errors import InputError
    from llm_reports.html.fragment import fragment_of

    try:
        section = fragment_of(prefix, slo=options.slo, stage=options.slo_stage)
    except InputError as error:
        logger.error("no LLM section in %s: %s", path, error)
        return
    append_to_file(path, section, not_before=not_before)


def objectives_of(slo: str) -> list[dict[str, Any]]:
    """Return the objectives for the page. The percentile of an objective on a mean or a share is None."""
    import llm_reports

    entries = []
    for objective in llm_reports.parse_objectives(slo).all:
        percent = None if objective.q is None else float(f"{objective.q * 100:.10g}")
        percentile = int(percent) if percent is not None and percent.is_integer() else percent
        entries.append(
            {"text": objective.text, "metric": objective.name, "percentile": percentile, "limit": objective.limit}
        )
    return entries
