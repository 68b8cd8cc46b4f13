"""Prompts that take long to build: workers go on listening to their master, say how far they are, and keep few."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.system.crash.workers.cluster import wait_until
from tests.system.crash.workers.nodes import Nodes

LONG = ("--llm-input-tokens", "fixed:128000", "--llm-output-tokens", "4,0", "--llm-warmup", "0")


@pytest.fixture
def endpoint() -> Iterator[Simulator]:
    with launch("ttft=50ms,itl=10ms", max_seconds=900) as running:
        yield running


def peak_mib(pid: int) -> int:
    """The most memory that a process had, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def test_a_run_can_be_stopped_while_prompts_are_built(nodes: Nodes, tmp_path: Path) -> None:
    log = tmp_path / "master.log"
    running = nodes.start(1, "--llm-sweep", "400", "--llm-requests", "2000", "--logfile", str(log), *LONG)
    wait_until(lambda: log.exists() and "building prompts: " in log.read_text(), "progress in the log", 30)
    assert "stage 1: building prompts: " in log.read_text()
    began_s = time.monotonic()
    running.interrupt()
    done = nodes.finish(40)
    assert time.monotonic() - began_s < 20, "the worker's next 400 prompts would have taken a minute"
    assert done.code == 3, done.err
    assert "no request was started" in log.read_text()
    nodes.workers[0].finish(20)


@pytest.mark.slow
def test_a_worker_holds_a_bounded_amount_of_prompts(nodes: Nodes) -> None:
    running = nodes.start(1, "--llm-sweep", "4", "--llm-requests", "350", *LONG)  # all of them: 185 MB of text
    running.await_rows(300, timeout_s=600)
    peak = peak_mib(nodes.workers[0].process.pid)
    done = nodes.finish(120)
    assert done.code == 0, done.err
    assert len(done.rows()) == nodes.simulator.stop()["requests"] == 350
    # A worker without prompts has 140 MiB, to build one takes 80, and 63 prompts are 34.
    assert peak < 350, f"{peak} MiB; with all prompts it would be more than 400"
