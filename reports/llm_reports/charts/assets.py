"""The scripts and styles that draw charts in a browser: package data that is read once.

This module does not depend on rows or pandas. ``uPlot`` is vendored (its license and origin are in the same folder).
``chart_marks.js``, ``chart_paint.js``, ``charts.js`` and ``charts.css`` are a layer on top of it that the report and a
live page share. ``report.js`` and ``report.css`` belong to the report only.
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
    """Return the text of one asset file."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


@cache
def colours() -> dict[str, str]:
    """Return the colours of the light theme by name (``ok``, ``ramp-0``, ...), as ``charts.css`` declares them."""
    first_block = asset("charts.css").partition("}")[0]
    return dict(re.findall(r"--llm-([\w-]+):\s*(#[0-9a-fA-F]{6});", first_block))
