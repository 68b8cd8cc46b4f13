"""Rendering of the templates in ``html/templates``, in which every text is escaped (Jinja2's autoescape).

A content security policy forbids all requests and all scripts except the page's own, so that a message from a server
has no effect even if it is not escaped. Jinja2 is imported when a page is rendered, because most commands do not.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from llm_reports.charts import curve
from llm_reports.charts.assets import REPORT_SCRIPTS, REPORT_STYLES, asset
from llm_reports.charts.downsampling import drawn
from llm_reports.charts.figures import Figures, as_json
from llm_reports.html import chart_words
from llm_reports.metrics.stage_load import SPOKEN, axis_name, load_columns, points_note
from llm_reports.plots.drawing import Picture, svg
from llm_reports.sections.section import plain

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

NOTHING = "-"
_FUNCTIONS = (
    axis_name, drawn, load_columns, points_note, chart_words.curve_words, chart_words.distribution_words,
    chart_words.input_rows, chart_words.input_words, chart_words.load_words, chart_words.lower_first,
    chart_words.model_rows, chart_words.model_words, chart_words.speed_rows, chart_words.timeline_words,
)  # fmt: skip
"""What the templates of the charts call."""
_CONSTANTS = ("LATENCY_NAMES", "SEEN_NOTE", "UNFIT_NOTE", "WORDS_PER_TOKEN")
_CODE = re.compile(r"`([^`]+)`")
_STRONG = re.compile(r"\*\*(.+?)\*\*")


def render(template: str, **values: object) -> str:
    """Return the text of a template with these values."""
    return _environment().get_template(template).render(values)


def render_page(template: str, title: str, figures: Figures | None = None, **values: object) -> str:
    """Return a page that works without a network; it contains a script only if there are figures to draw."""
    script = "\n".join(asset(name) for name in REPORT_SCRIPTS) if figures is not None else ""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return render(
        template,
        title=title,
        figures=figures,
        style="\n".join(asset(name) for name in REPORT_STYLES),
        script=script,
        script_source=f"script-src 'sha256-{digest}'; " if script else "",
        data=as_json(figures) if figures is not None else "",
        **values,
    )


def data_uri(picture: Picture) -> str:
    """Return a picture as the address of an image, so that its ids do not collide with those of other pictures."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg(picture).encode()).decode('ascii')}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("llm_reports.html"),
        autoescape=True,
        finalize=_one_line,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = _inline
    environment.filters["zip"] = zip
    environment.globals["column_kinds"] = _column_kinds
    environment.globals |= {function.__name__: function for function in _FUNCTIONS}
    environment.globals |= {name: getattr(curve, name) for name in _CONSTANTS} | {"SPOKEN": SPOKEN}
    return environment


def _one_line(value: Any) -> Any:
    """Return the text of a value on one line without control characters: ``None`` as a dash, markup unchanged."""
    if hasattr(value, "__html__"):
        return value
    return NOTHING if value is None else plain(str(value))


def _inline(text: str) -> Markup:
    """Escape a text of ``sections.section`` and mark up its emphasis and its code."""
    from markupsafe import Markup, escape

    safe = _CODE.sub(r"<code>\1</code>", str(escape(plain(text))))
    return Markup(_STRONG.sub(r"<strong>\1</strong>", safe))  # noqa: S704  the text is escaped above


def _column_kinds(header: Sequence[str], rows: Iterable[Sequence[object]], texts: Sequence[str]) -> list[str]:
    """Return the kind of each column: text for the names in ``texts``, number if all cells are numbers, else ""."""
    cells = [[str(cell) for cell in row] for row in rows]
    return [
        "text" if name in texts else "number" if cells and all(_is_number(row[index]) for row in cells) else ""
        for index, name in enumerate(header)
    ]


def _is_number(cell: str) -> bool:
    try:
        float(cell.rstrip("%").replace(",", "").strip())
    except ValueError:
        return cell == NOTHING
    return True
