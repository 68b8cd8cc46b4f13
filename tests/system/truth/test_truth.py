"""The quick versions of the truth tests; ``make truth`` runs the full ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.project import ROOT
from tests.system.truth.main import AREAS


@pytest.fixture(scope="module")
def table() -> str:
    """What ``make truth`` prints: it computes two areas at a time, which takes half as long as one after the other."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.truth.main", "--quick"], cwd=ROOT, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("area", AREAS)
def test_figures_of_the_area_are_right(table: str, area: str) -> None:
    section = table.partition(f"\n{area} (")[2].partition("\n\n")[0]
    lines = section.splitlines()[1:]
    assert lines, f"no lines of tests/system/truth/{area}.py in\n{table}"
    assert not [line for line in lines if line.endswith("WRONG")]
