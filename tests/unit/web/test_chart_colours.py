"""The colours of the live charts: every reader can tell the lines apart, and sees them on the paper."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from tests.project import ROOT

# How a colour looks to those without the cones for red, for green, or for blue (Machado et al. 2009, severity 1), as
# matrices on linear RGB.
SEEN_BY = {
    "all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
WEB = ROOT / "llm_users" / "web" / "assets"


def lab(rgb: list[float]) -> tuple[float, float, float]:
    """CIELAB of linear RGB (D65)."""
    r, g, b = (min(1.0, max(0.0, each)) for each in rgb)
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    fx, fy, fz = (each ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116 for each in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def linear(hex_colour: str) -> list[float]:
    parts = [int(hex_colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_of_a_chart_are_told_apart_by_everybody(theme: str) -> None:
    # 2.3 is what an eye just notices of two patches side by side; thin lines need more, and differ in dashes besides.
    blocks = re.findall(r"\{([^}]*--llm-p50[^}]*)\}", (WEB / "live.css").read_text())
    colours = dict(re.findall(r"--llm-(p50|p95|p99|paper): (#\w{6})", blocks[theme == "dark"]))
    paper = linear(colours.pop("paper"))
    assert set(colours) == {"p50", "p95", "p99"}
    for eyes, matrix in SEEN_BY.items():
        seen = {
            name: lab([sum(a * b for a, b in zip(row, linear(code), strict=True)) for row in matrix])
            for name, code in colours.items()
        }
        for one, other in combinations(seen, 2):
            apart = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
            assert apart > 15, (theme, eyes, one, other, round(apart))
    for name, code in colours.items():
        lights = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (linear(code), paper))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 3, f"{name} is too pale on the {theme} paper"
