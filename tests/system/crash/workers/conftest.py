"""Masters and workers as processes of their own, so that signals can hit one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.system.crash.workers.cluster import Cluster
from tests.system.crash.workers.link import Link
from tests.system.runs.conftest import Finished, Locust, Running
from tests.system.runs.test_distributed import free_port


class Crew:
    """A master and its workers."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self._locust = Locust(folder)
        self._port = free_port()
        self.simulator = simulator
        self.workers: list[Running] = []
        self._links: list[Link] = []

    def start(self, workers: int, *arguments: str, expected: int = 0, **more: Any) -> Running:
        """A master that waits for so many workers (or ``expected``), and these."""
        self.master = self._locust.start(
            "--host", self.simulator.url, "--master", "--expect-workers", str(expected or workers),
            "--master-bind-port", self._port, *arguments, **more,
        )  # fmt: skip
        for _ in range(workers):
            self.join(**more)
        return self.master

    def join(self, *arguments: str, port: int | None = None, **more: Any) -> Running:
        """One more worker, at a port of its own if given."""
        name = f"worker{len(self.workers)}"
        to = self._port if port is None else str(port)
        self.workers.append(self._locust.start("--worker", "--master-port", to, *arguments, prefix=name, **more))
        return self.workers[-1]

    def join_by_link(self) -> Link:
        """One more worker, by way of a network that can be disturbed."""
        self._links.append(Link(self.port))
        self.join(port=self._links[-1].port)
        return self._links[-1]

    @property
    def port(self) -> int:
        return int(self._port)

    def send(self, worker: int, signal_: signal.Signals) -> None:
        os.kill(self.workers[worker].process.pid, signal_)

    def finish(self, timeout_s: float) -> Finished:
        return self.master.finish(timeout_s)

    def stop(self) -> None:
        for process in (self.master.process, *(worker.process for worker in self.workers)):
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
        for link in self._links:
            link.close()
        self._locust.stop_all()


def accounts(done: Finished) -> dict[int, dict[str, Any]]:
    """What the manifest says of each worker, by rank."""
    return {entry["worker"]: entry for entry in done.manifest["workers"].values()}


@pytest.fixture
def endpoint() -> Iterator[Simulator]:
    with launch("ttft=50ms,itl=10ms", max_seconds=120) as running:
        yield running


@pytest.fixture
def crew(tmp_path: Path, endpoint: Simulator) -> Iterator[Crew]:
    made = Crew(tmp_path, endpoint)
    yield made
    made.stop()


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Processes whose results are compared with the server's log; the test's name is the name of the case."""
    made = Cluster(tmp_path, name=request.node.name.removeprefix("test_").replace("_", " "))
    yield made
    made.stop()
