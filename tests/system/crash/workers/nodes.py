"""A master and its workers, each a process to which a test can send signals; what has to hold after their run."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from llm_users.simulator.launch import Simulator
from tests.ports import free_port
from tests.system.crash.workers.link import Link
from tests.system.locust_runs import Finished, Locust, Running

ANSWERS = ("--llm-output-tokens", "15,0", "--llm-warmup", "0")  # 0.2 s each


class Nodes:
    """A master and its workers as processes of the `locust` command."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self._locust = Locust(folder)
        self._port = str(free_port())
        self.simulator = simulator
        self.workers: list[Running] = []
        self._links: list[Link] = []

    def start(self, workers: int, *arguments: str, expected: int = 0, **more: Any) -> Running:
        """Start a master that waits for ``expected`` workers (default: ``workers``), and ``workers`` workers."""
        self.master = self._locust.start(
            "--host", self.simulator.url, "--master", "--expect-workers", str(expected or workers),
            "--master-bind-port", self._port, *arguments, **more,
        )  # fmt: skip
        for _ in range(workers):
            self.join(**more)
        return self.master

    def join(self, *arguments: str, port: int | None = None, **more: Any) -> Running:
        """Start one more worker; ``port``: instead of the master's."""
        name = f"worker{len(self.workers)}"
        to = self._port if port is None else str(port)
        self.workers.append(self._locust.start("--worker", "--master-port", to, *arguments, prefix=name, **more))
        return self.workers[-1]

    def join_by_link(self) -> Link:
        """Start one more worker behind a network link that the test can disturb."""
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


def agree(nodes: Nodes, done: Finished, *, ready: int = 0) -> None:
    """Each request that came in has a row or is a counted loss; no row twice, no prompt twice.

    ``ready``: how many a dead worker may have built, and counted as started, but not yet sent.
    """
    rows = done.rows()
    came_in = nodes.simulator.stop()["requests"]
    lost = sum(account["lost"] for account in accounts(done).values())
    assert 0 <= len(rows) + lost - came_in <= ready, (len(rows), lost, came_in)
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert len({row["prompt_index"] for row in rows}) == len(rows)
    by_worker = Counter(int(row["worker"]) for row in rows)
    for rank, account in accounts(done).items():
        assert account["started"] == account["received"] + account["recovered"] + account["lost"]
        assert account["received"] + account["recovered"] == by_worker[rank]
    for stage in done.rows("stages"):
        measured = [row for row in rows if row["stage"] == stage["stage"] and row["measured"] == "1"]
        assert len(measured) == int(stage["requests_measured"])


def freeze_and_return(nodes: Nodes, frozen_s: float, stages: int, requests: int) -> Finished:
    """A worker that stands still for a while in the first stage; all requests are started all the same."""
    nodes.start(2, "--llm-sweep", ",".join(["4"] * stages), "--llm-requests", str(requests), *ANSWERS).await_rows(8)
    nodes.send(1, signal.SIGSTOP)
    time.sleep(frozen_s)
    nodes.send(1, signal.SIGCONT)
    done = nodes.finish(60)
    assert done.code == 0, done.err
    assert [stage["requests_measured"] for stage in done.rows("stages")] == [str(requests)] * stages
    assert not any(account["lost"] for account in accounts(done).values())
    assert {row["worker"] for row in done.rows() if row["stage"] == str(stages)} == {"0", "1"}
    agree(nodes, done)
    return done
