"""Workers that are silent for longer than Locust waits: they are missing, and come back or do not."""

from __future__ import annotations

import signal

import pytest

from tests.system.crash.workers.nodes import ANSWERS, Nodes, agree, freeze_and_return

pytestmark = pytest.mark.slow


def test_a_worker_that_freezes_and_returns_spoils_nothing(nodes: Nodes) -> None:
    done = freeze_and_return(nodes, 10, 3, 110)
    assert any("was lost in stage 1" in note for note in done.manifest["notes"])
    assert any("was back in stage" in note for note in done.manifest["notes"])


def test_the_only_worker_is_killed(nodes: Nodes) -> None:
    nodes.start(1, "--llm-sweep", "2", "--llm-requests", "500", *ANSWERS).await_rows(8)
    nodes.send(0, signal.SIGKILL)
    done = nodes.finish(30)
    assert done.code == 3, done.err
    agree(nodes, done)
