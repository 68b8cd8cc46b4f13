"""A drawing as PNG, for programs that cannot show SVG. Requires Pillow (the extra ``plots``), which includes a font."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from llm_reports.errors import InputError
from llm_reports.markdown.text import plain
from llm_reports.plots.drawing import PAPER, WIDTH, Dot, Mark, Stroke, Words, height_of
from llm_reports.plots.svg import corners

_FINE = 3  # the image is drawn larger and scaled down, because Pillow's lines are not antialiased
_SCALE = 2  # device pixels per unit in the file


def png(marks: Sequence[Mark]) -> bytes:
    """Return the image as the bytes of a file. Raises ``InputError`` when Pillow is not installed."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise InputError(
            "--plots png requires Pillow. Run: pip install 'locust-llm[plots]'. --plots svg does not require it."
        ) from None
    fine = _FINE * _SCALE
    height = height_of(marks)
    image = Image.new("RGB", (WIDTH * fine, height * fine), PAPER)
    pen = ImageDraw.Draw(image)
    for mark in marks:
        if isinstance(mark, Stroke):
            for points in _dashed(
                [(x * fine, y * fine) for x, y in mark.points], [length * fine for length in mark.dash]
            ):
                pen.line(points, fill=mark.colour, width=round(mark.width * fine), joint="curve")
        elif isinstance(mark, Dot):
            _dot(pen, mark, fine)
    image = image.resize((WIDTH * _SCALE, height * _SCALE), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    for mark in marks:
        if isinstance(mark, Words):
            font = ImageFont.load_default(mark.size * _SCALE)
            _write(image, pen, mark, font)
    file = io.BytesIO()
    image.quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()


def _write(image: Any, pen: Any, mark: Words, font: Any) -> None:
    from PIL import Image, ImageDraw

    text = plain(mark.text)
    if not mark.upright:
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[mark.anchor]
        heavy = 1 if mark.bold else 0
        pen.text((mark.x * _SCALE, mark.y * _SCALE), text, mark.colour, font, anchor, stroke_width=heavy * 0.4)
        return
    left, top, right, bottom = pen.textbbox((0, 0), text, font)
    label = Image.new("RGB", (round(right - left) + 4, round(bottom - top) + 4), PAPER)
    ImageDraw.Draw(label).text((2 - left, 2 - top), text, mark.colour, font)
    rotated = label.rotate(90, expand=True)
    position = (round(mark.x * _SCALE - rotated.width), round(mark.y * _SCALE - rotated.height / 2))
    image.paste(rotated, (max(2, position[0]), max(0, position[1])))


def _dot(pen: Any, mark: Dot, fine: int) -> None:
    x, y, size = mark.x * fine, mark.y * fine, mark.size * fine
    fill, rim = (PAPER, 2 * fine) if mark.hollow else (mark.colour, 1)
    if mark.shape == "circle":
        pen.ellipse((x - size, y - size, x + size, y + size), fill, mark.colour, rim)
    elif mark.shape == "cross":
        pen.line((x - size, y - size, x + size, y + size), mark.colour, 2 * fine)
        pen.line((x + size, y - size, x - size, y + size), mark.colour, 2 * fine)
    else:
        pen.polygon([(a * fine, b * fine) for a, b in corners(mark)], fill, mark.colour, rim)


def _dashed(points: list[tuple[float, float]], dash: list[float]) -> Iterator[list[tuple[float, float]]]:
    """Yield the strokes of a dashed line; the pattern continues around corners."""
    if len(points) < 2:
        return
    if not dash:
        yield points
        return
    pattern = itertools.cycle(dash)
    remaining, is_drawn, stroke = next(pattern), True, [points[0]]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        done = 0.0
        while length - done > remaining:
            done += remaining
            point = (x0 + (x1 - x0) * done / length, y0 + (y1 - y0) * done / length)
            if is_drawn:
                yield [*stroke, point]
            remaining, is_drawn, stroke = next(pattern), not is_drawn, [point]
        remaining -= length - done
        stroke.append((x1, y1))
    if is_drawn and len(stroke) > 1:
        yield stroke
