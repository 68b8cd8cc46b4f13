"""The scripts and styles that draw charts in a browser: package data, read once. Knows no rows and no pandas.

``uPlot`` is vendored (its licence and origin stand beside it). ``chart_marks.js``, ``chart_paint.js``, ``charts.js``
and ``charts.css`` are the layer over it that the report and a live page share; ``report.js`` and ``report.css`` are the
report's own.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

STYLES = ("uPlot.min.css", "charts.css")
SCRIPTS = ("uPlot.iife.min.js", "chart_marks.js", "chart_paint.js", "charts.js")
REPORT_STYLES = (*STYLES, "report.css")
REPORT_SCRIPTS = (*SCRIPTS, "report.js")


@cache
def asset(name: str) -> str:
    """The text of one file."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


@cache
def colours() -> dict[str, str]:
    """The colours of the light theme by name (``ok``, ``ramp-0``, ...), from the place where they are declared."""
    first_block = asset("charts.css").partition("}")[0]
    return dict(re.findall(r"--llm-([\w-]+):\s*(#[0-9a-fA-F]{6});", first_block))
