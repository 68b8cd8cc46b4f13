"""An endpoint, and a master with its workers, whose processes end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.system.crash.workers.cluster import Cluster
from tests.system.crash.workers.nodes import Nodes


@pytest.fixture
def endpoint() -> Iterator[Simulator]:
    with launch("ttft=50ms,itl=10ms", max_seconds=120) as running:
        yield running


@pytest.fixture
def nodes(tmp_path: Path, endpoint: Simulator) -> Iterator[Nodes]:
    made = Nodes(tmp_path, endpoint)
    yield made
    made.stop()


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Processes whose results are compared with the server's log; the test's name is the name of the case."""
    made = Cluster(tmp_path, name=request.node.name.removeprefix("test_").replace("_", " "))
    yield made
    made.stop()
