"""What many rows and a long run cost, the short version: the same code as the measurements proper."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.crash.workers.master_cost import measure
from tests.system.crash.workers.soak import soak

pytestmark = pytest.mark.slow


def test_rows_cost_a_master_little(tmp_path: Path) -> None:
    found = measure(rate=1000, workers=8, seconds=9, folder=tmp_path)
    assert found["sent"] == found["received"] == found["lines"]
    assert found["code"] == 0
    assert found["cpu_share"] < 0.25


def test_memory_stays_where_it_is(tmp_path: Path) -> None:
    found = soak(60, tmp_path, workers=1, users=16)
    assert found.code == 0, found.log
    assert found.lost == 0
    for memory in found.memories:
        assert not memory.growth(warm_s=20).exceeds(3000), memory.name
        assert len(memory.kilobytes) > 20, memory.name
