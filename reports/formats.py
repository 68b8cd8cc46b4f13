"""The formats of a report. A format is one module with ``files(content)``: the names and texts of its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from reports import llmperf_json, llmperf_text, report_md, summary_csv
from reports.errors import InputError

if TYPE_CHECKING:
    from reports.report import Content

FORMATS: dict[str, Callable[[Content], dict[str, str]]] = {
    "md": report_md.files,
    "csv": summary_csv.files,
    "json": llmperf_json.files,
    "llmperf": llmperf_text.files,
}
DEFAULT_FORMATS = ("md", "csv")
_PLANNED = ("html",)


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """The names of formats, each once, or an error that says which there are."""
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    for name in wanted:
        if name in _PLANNED:
            raise InputError(f"--format {name}: this version cannot write {name} yet. Use {_choices()}.")
        if name not in FORMATS:
            raise InputError(f"--format {name}: there is no such format. Use {_choices()}.")
    if not wanted:
        raise InputError(f"--format: no format was named. Use {_choices()}.")
    return wanted


def _choices() -> str:
    *others, last = FORMATS
    return f"{', '.join(others)} or {last}, or several as in {','.join(DEFAULT_FORMATS)}"
