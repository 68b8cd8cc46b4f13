"""A simulated endpoint, and runs of the `locust` command that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.system.locust_runs import Locust


@pytest.fixture
def locust(tmp_path: Path) -> Iterator[Locust]:
    runs = Locust(tmp_path)
    yield runs
    runs.stop_all()


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with launch("ttft=20ms,itl=5ms", max_seconds=120) as running:
        yield running
