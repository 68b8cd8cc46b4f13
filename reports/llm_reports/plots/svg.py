"""A drawing as SVG: text without dependencies that browsers, wikis and pull requests can show."""

from __future__ import annotations

import html
from collections.abc import Sequence

from llm_reports.markdown.text import plain
from llm_reports.plots.drawing import PAPER, WIDTH, Dot, Mark, Stroke, height_of

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def svg(marks: Sequence[Mark], title: str, description: str, *, ids: str = "") -> str:
    """Return the image, with its title and a description for screen readers.

    ``ids`` is a prefix for the identifiers, for pages with several images.
    """
    height = height_of(marks)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="{ids}title {ids}desc" font-family="{_FONT}">',
        f'<title id="{ids}title">{_text(title)}</title>',
        f'<desc id="{ids}desc">{_text(description)}</desc>',
        f'<rect width="100%" height="100%" fill="{PAPER}"/>',
        *map(_element, marks),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _element(mark: Mark) -> str:
    if isinstance(mark, Stroke):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
        dash = f' stroke-dasharray="{" ".join(f"{length:g}" for length in mark.dash)}"' if mark.dash else ""
        return f'<polyline points="{points}" fill="none" stroke="{mark.colour}" stroke-width="{mark.width:g}"{dash}/>'
    if isinstance(mark, Dot):
        return _dot(mark)
    turn = f' transform="rotate(-90 {mark.x:.1f} {mark.y:.1f})"' if mark.upright else ""
    weight = ' font-weight="600"' if mark.bold else ""
    return (
        f'<text x="{mark.x:.1f}" y="{mark.y:.1f}" fill="{mark.colour}" font-size="{mark.size:g}" '
        f'text-anchor="{mark.anchor}"{weight}{turn}>{_text(mark.text)}</text>'
    )


def _dot(mark: Dot) -> str:
    x, y, size = mark.x, mark.y, mark.size
    fill = PAPER if mark.hollow else mark.colour
    rim = f' stroke="{mark.colour}" stroke-width="2"' if mark.hollow else ""
    if mark.shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" fill="{fill}"{rim}/>'
    if mark.shape == "cross":
        return (
            f'<path d="M{x - size:.1f} {y - size:.1f}L{x + size:.1f} {y + size:.1f}'
            f'M{x + size:.1f} {y - size:.1f}L{x - size:.1f} {y + size:.1f}" stroke="{mark.colour}" stroke-width="2"/>'
        )
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners(mark))
    return f'<polygon points="{points}" fill="{fill}"{rim}/>'


def corners(mark: Dot) -> list[tuple[float, float]]:
    """Return the corners of a square, a triangle or a diamond."""
    x, y, size = mark.x, mark.y, mark.size
    if mark.shape == "triangle":
        return [(x, y - size * 1.2), (x + size * 1.1, y + size * 0.8), (x - size * 1.1, y + size * 0.8)]
    if mark.shape == "diamond":
        return [(x, y - size * 1.3), (x + size * 1.3, y), (x, y + size * 1.3), (x - size * 1.3, y)]
    half = size * 0.85
    return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]


def _text(text: str) -> str:
    return html.escape(plain(text))
