"""The formats of a report. A format is a function from a content to its file names and their text or bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from llm_reports.content import Content
from llm_reports.errors import InputError
from llm_reports.export import openmetrics, parquet, summary
from llm_reports.html import page
from llm_reports.llmperf import json_files, printout
from llm_reports.markdown import report
from llm_reports.plots import images

FORMATS: dict[str, Callable[[Content], Mapping[str, str | bytes]]] = {
    "md": report.files,
    "csv": summary.files,
    "json": json_files.files,
    "llmperf": printout.files,
    "html": page.files,
    "summary": summary.json_files,
    "openmetrics": openmetrics.files,
    "parquet": parquet.files,
    "svg": images.svg_files,
    "png": images.png_files,
}
DEFAULT_FORMATS = ("md", "csv")


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """Return the format names without duplicates; raise ``InputError`` with the valid names for an unknown format."""
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    for name in wanted:
        if name not in FORMATS:
            raise InputError(f"--format {name}: unknown format. Use {_choices()}.")
    if not wanted:
        raise InputError(f"--format: the list is empty. Use {_choices()}.")
    return wanted


def _choices() -> str:
    *others, last = FORMATS
    return f"{', '.join(others)} or {last}, or several as in {','.join(DEFAULT_FORMATS)}"
