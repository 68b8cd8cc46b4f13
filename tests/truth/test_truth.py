"""The quick versions of the truth tests; ``make truth`` runs the full ones."""

from __future__ import annotations

import pytest

from tests.truth.main import AREAS, area_lines


@pytest.mark.parametrize("area", AREAS)
def test_figures_of_the_area_are_right(area: str) -> None:
    lines, _ = area_lines(area, full=False)
    assert lines, f"tests/truth/{area}.py has no lines"
    assert not [line for line in lines if not line.passed]
