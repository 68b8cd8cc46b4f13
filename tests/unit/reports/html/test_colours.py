"""The colours of runs: told apart by every reader, and seen on the paper of both themes."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from llm_reports.charts.assets import asset, colours
from llm_reports.plots.images import run_colour

Floats = NDArray[np.float64]

# Machado, Oliveira and Fernandes (2009), table 1, severity 1: what a colour looks like to such a reader.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(colour: str) -> Floats:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: Floats) -> Floats:
    ratio = TO_XYZ @ rgb / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(first: str, second: str) -> float:
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def themes() -> list[tuple[str, list[str]]]:
    """Paper and run colours of each block of the style sheet."""
    blocks = re.findall(r"--llm-paper: (#[0-9a-f]{6});(.*?)\}", asset("charts.css"), re.DOTALL)
    return [(paper, re.findall(r"--llm-run-\d: (#[0-9a-f]{6});", rest)) for paper, rest in blocks]


@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_runs_are_far_apart(vision: str) -> None:
    for _, found in themes():
        assert len(found) == 8
        seen = [lab(np.clip(VISIONS[vision] @ linear(colour), 0, 1)) for colour in found]
        assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > 20


def test_every_run_is_seen_on_its_paper() -> None:
    assert len(themes()) == 3  # light, dark by the system, dark by the page
    for paper, found in themes():
        assert min(contrast(colour, paper) for colour in found) >= 3
    assert [run_colour(k) for k in range(8)] == themes()[0][1]
    assert colours()["paper"] == themes()[0][0]
