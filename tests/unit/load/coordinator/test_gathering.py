"""The users of a stage come to its gate while workers go and come back: when it begins, and with whom."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_users.collect.writer import RunWriter
from llm_users.load.coordinator import coordinator as coordinator_module
from llm_users.load.coordinator.coordinator import GATHER_S, Coordinator
from llm_users.load.protocol import messages
from llm_users.options.table import Options

Sent = list[tuple[messages.Message, str | None]]


class Stage:
    """A coordinator with three workers, "a", "b" and "c", that gathers the nine users of a sweep's first stage."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: Sent = []
        self._now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self._now, time=time.time)
        monkeypatch.setattr(coordinator_module, "time", clock)
        self.coordinator = Coordinator(
            lambda message, to: self.sent.append((message, to)),
            lambda: ["a", "b", "c"],
            lambda run_id, _, rows: RunWriter(str(folder / "run"), run_id, {}, offsets=False, observer=rows),
        )
        self.coordinator.begin(Options(sweep=(9, 9), requests=90), users=9, run_s=None)
        self.coordinator.tick()
        self.coordinator.on_spawned(9, 9, 0)

    def come(self, rank: int, users: int) -> None:
        """A worker says that so many users are at its gate, and that no more will come."""
        self.coordinator.on_ready(
            messages.Ready("run", rank, stage=1, waiting=users, all_users_came=True, no_users_reason=None)
        )

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self._now += 1
            for worker in self.coordinator.workers:
                worker.heard_at = time.monotonic()
            self.coordinator.tick()

    def lose(self, rank: int) -> None:
        worker = self.coordinator.workers.get(rank)
        assert worker is not None
        worker.lost = True
        worker.assignment.expected = False  # as of one that was lost when the stage was announced

    def users(self) -> int | None:
        """With how many users the stage began; None: it has not begun."""
        return next((message.users for message, _ in self.sent if isinstance(message, messages.Go)), None)

    @property
    def notes(self) -> str:
        assert self.coordinator.writer is not None
        return " ".join(self.coordinator.writer.notes)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    for rank in range(3):
        made.coordinator.on_final(messages.Final("run", rank, sent=0))
    made.coordinator.finish(abort=True, grace_s=0)


def test_a_stage_begins_when_all_users_are_there_or_can_not_come(stage: Stage) -> None:
    stage.come(0, 3)
    stage.come(1, 3)
    assert stage.users() is None
    stage.come(2, 2)
    assert stage.users() == 8
    assert "only 8 of 9 users were ready: the others failed or left" in stage.notes


@pytest.mark.parametrize("others_have_said_so", [True, False])
def test_the_users_of_a_worker_that_goes_come_on_the_others(stage: Stage, others_have_said_so: bool) -> None:
    for rank in (0, 1) if others_have_said_so else ():
        stage.come(rank, 3)
    stage.coordinator.on_final(messages.Final("run", 2, sent=0))
    stage.come(0, 3)
    stage.come(1, 3)
    assert stage.users() is None, "Locust has not moved them yet"
    stage.come(0, 5)
    stage.come(1, 4)
    assert stage.users() == 9
    assert "users were ready" not in stage.notes


def test_users_that_do_not_come_are_not_waited_for_for_ever(stage: Stage) -> None:
    stage.coordinator.on_final(messages.Final("run", 2, sent=0))
    stage.come(0, 3)
    stage.come(1, 3)
    stage.wait(GATHER_S + 2)
    assert stage.users() == 6
    assert f"only 6 of 9 users were ready: the others were not ready within {GATHER_S:g} s" in stage.notes


def test_a_worker_that_comes_back_in_time_has_its_users_in_the_stage(stage: Stage) -> None:
    """Locust had it back before the stage was announced, and gave it users."""
    stage.lose(2)
    stage.come(0, 3)
    stage.coordinator.on_back(messages.Back("run", 2, number=1, stage=0, measured=0))
    stage.come(1, 3)
    assert stage.users() is None
    stage.come(2, 3)
    assert stage.users() == 9


def test_more_users_than_asked_for_are_not_let_go_while_locust_may_take_them_away(stage: Stage) -> None:
    stage.come(0, 5)
    stage.come(1, 4)
    stage.come(2, 3)
    stage.wait(GATHER_S + 2)
    assert stage.users() is None
    stage.come(2, 0)
    assert stage.users() == 9


def test_a_stage_with_too_many_users_says_so(stage: Stage) -> None:
    stage.come(0, 5)
    stage.come(1, 4)
    stage.come(2, 3)
    stage.wait(6 * GATHER_S)
    assert stage.users() == 12
    assert "12 users were ready instead of 9" in stage.notes
    assert "only 12 of 9" not in stage.notes
