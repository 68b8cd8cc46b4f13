"""Pictures drawn with matplotlib (the extra ``plots``): the sheet with its style, axes and legend, and its files.

``charts/assets`` draws the figures in a browser; this package draws the same figures for pipelines without a browser.
The module imports matplotlib only when it draws, so that reports without pictures do not load it.
"""

from __future__ import annotations

import importlib.util
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_reports.errors import InputError
from llm_reports.sections.section import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

WIDTH, HEIGHT = 9.6, 5.6  # inches; a PNG has 200 pixels per inch
INK, SOFT, GRID, PAPER, LIMIT = "#1c2126", "#59636e", "#e7ebef", "#ffffff", "#8a5a00"
SHAPES = ("o", "s", "^", "D")
DASHES = ("-", (0, (7, 3)), (0, (2, 3)), (0, (9, 3, 2, 3)), (0, (14, 4)), (0, (5, 2, 1, 2, 1, 2)))
MISSING = "--plots requires matplotlib. In a clone of the repository, run: pip install '.[plots]'"
_LETTER = 0.075  # inches, the mean width of a letter in the legend
_LEGEND_LINE = 0.2  # inches
_LEGEND_LINES = 3  # legend lines on a sheet of standard height; more lines make the sheet taller, not the plot smaller
_STYLE: Any = {  # matplotlib names the keys by a type that only type checkers have
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a model name may contain dollar signs
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "svg.fonttype": "none",  # texts stay texts, which readers can search
    "svg.hashsalt": "locust-llm",  # the same data gives the same file
}


@dataclass(frozen=True)
class Picture:
    """A finished drawing: the name of its file, its title, the note below it, and matplotlib's figure and axes."""

    name: str
    title: str
    note: str
    figure: Figure
    axes: Axes


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of the pictures while they are drawn or saved; raise ``InputError`` without matplotlib."""
    if not can_draw():
        raise InputError(MISSING)
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        # Matplotlib warns about characters that its font lacks and about long texts; the picture is still useful.
        warnings.simplefilter("ignore", UserWarning)
        yield


def sheet(name: str, title: str, x_label: str, y_label: str, note: str = "") -> Picture:
    """Return an empty picture: title, axes with labels, and a note at the bottom."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained", facecolor=PAPER)
    axes = figure.add_subplot(xlabel=plain(x_label), ylabel=plain(y_label))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    figure.suptitle(plain(title), x=0.01, ha="left", size=13, weight="bold")
    if note:
        figure.supxlabel(plain(note), x=0.01, ha="left", size=8, color=SOFT)
    return Picture(name, title, note, figure, axes)


def logarithmic_x(axes: Axes) -> None:
    """Give the axis x a logarithmic scale with ticks at 1, 2 and 5, or only at powers of 10 over four decades."""
    axes.set_xscale("log")
    _logarithmic_ticks(axes.xaxis, axes.get_xlim())


def logarithmic_y(axes: Axes) -> None:
    """Give the axis y a logarithmic scale with the same ticks."""
    axes.set_yscale("log")
    _logarithmic_ticks(axes.yaxis, axes.get_ylim())


def _logarithmic_ticks(axis: Axis, ends: tuple[float, float]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    low, high = ends
    axis.set_major_locator(LogLocator(subs=(1.0,) if math.log10(high / low) > 4 else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))


def from_zero(axes: Axes, *, x: bool = False) -> None:
    """Begin the axis y, and with ``x`` also the axis x, at 0 unless a value is negative."""
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)
    if x and axes.dataLim.x0 >= 0:
        axes.set_xlim(left=0)


def legend(picture: Picture, lines: Sequence[tuple[Line2D, str]]) -> None:
    """Add a legend above the axes if there are several lines; a long legend makes the sheet taller."""
    if len(lines) < 2:
        return
    # Matplotlib hides a label that begins with an underscore.
    labels = [f" {name}" if name.startswith("_") else name for name in (plain(name) for _, name in lines)]
    columns = max(1, int(WIDTH / (0.5 + _LETTER * max(map(len, labels)))))
    picture.axes.legend(
        [line for line, _ in lines], labels, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2
    )
    more = math.ceil(len(lines) / columns) - _LEGEND_LINES
    picture.figure.set_figheight(HEIGHT + max(0, more) * _LEGEND_LINE)


def svg(picture: Picture) -> str:
    """Return the picture as the text of an SVG file, from its root element on."""
    file = io.StringIO()
    with style():
        about = {"Title": plain(picture.title), "Description": plain(picture.note), "Date": None}
        picture.figure.savefig(file, format="svg", metadata=about)
    text = file.getvalue()
    return text[text.index("<svg") :]  # without the XML declaration, so that a notebook can show it


def png(picture: Picture) -> bytes:
    """Return the picture as the bytes of a PNG file."""
    file = io.BytesIO()
    with style():
        picture.figure.savefig(file, format="png", dpi=200)
    return file.getvalue()


def image_files(pictures: Iterable[Picture], kind: str) -> dict[str, tuple[str, str | bytes]]:
    """Return pictures as svg or png files: title and content by file name."""
    return {
        f"plot_{picture.name}.{kind}": (picture.title, png(picture) if kind == "png" else svg(picture))
        for picture in pictures
    }
