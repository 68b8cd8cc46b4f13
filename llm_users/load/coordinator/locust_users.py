"""The two classes of Locust that decide how many users run and on which worker, controlled by the coordinator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent import GreenletExit
from locust import LoadTestShape
from locust.dispatch import UsersDispatcher
from locust.runners import STATE_INIT, STATE_RUNNING, STATE_SPAWNING

_TICK_S = 1.0


class SweepShape(LoadTestShape):
    """The shape for ``--llm-sweep`` and other staged runs, for any locustfile. The extension installs it.

    The coordinator makes all decisions. ``tick`` returns the users and the spawn rate of the current stage, or None at
    the end. ``await_change`` waits until ``tick`` may return something else.
    """

    abstract = True  # Locust must not use the class only because a locustfile imports it

    def __init__(
        self, runner: Any, tick: Callable[[], tuple[int, float] | None], await_change: Callable[[float], None]
    ) -> None:
        super().__init__()
        self.runner = self._runner = runner
        self._tick = tick
        self._await_change = await_change

    def tick(self) -> tuple[int, float] | None:
        """Start the users of all stages, and return None after the last stage.

        Locust would ask once per second, so each stage and the run would end up to a second late.
        """
        started: tuple[int, float] | None = None
        while self._runner.state in (STATE_INIT, STATE_SPAWNING, STATE_RUNNING):
            target = self._tick()
            if target is None:
                return None
            if target != started:
                self._runner.start(*target)
                started = target
            self._await_change(_TICK_S)
        raise GreenletExit  # the test is being stopped, and Locust ends the greenlet of the shape


class StageDispatcher(UsersDispatcher):
    """Locust moves users to a worker as soon as it connects, and stops them on other workers. In a sweep, this
    dispatcher waits for the next stage, so that the measured stage keeps its users. A worker gets users only after its
    extension listens.

    ``on_target`` receives the number of users when Locust starts to change it.
    """

    def __init__(
        self,
        worker_nodes: list[Any],
        user_classes: list[Any],
        *,
        holds: Callable[[str], bool],
        on_target: Callable[[int], None],
    ) -> None:
        super().__init__(worker_nodes=worker_nodes, user_classes=user_classes)
        self._holds = holds
        self._on_target = on_target
        self._held: list[Any] = []

    def new_dispatch(self, target_user_count: int, spawn_rate: float, user_classes: list[Any] | None = None) -> None:
        self._on_target(target_user_count)
        super().new_dispatch(target_user_count, spawn_rate, user_classes)

    @property
    def users_by_class(self) -> dict[str, int]:
        """Return how many users of each class the workers were told to run."""
        counts: dict[str, int] = {}
        for users in self._users_on_workers.values():
            for name, count in users.items():
                counts[name] = counts.get(name, 0) + count
        return counts

    def add_worker(self, worker_node: Any) -> None:
        if self._holds(worker_node.id):
            self._held = [node for node in self._held if node.id != worker_node.id] + [worker_node]
        else:
            super().add_worker(worker_node)

    def remove_worker(self, worker_node: Any) -> None:
        self._held = [node for node in self._held if node.id != worker_node.id]
        if any(node.id == worker_node.id for node in self._worker_nodes):
            super().remove_worker(worker_node)

    def admit(self) -> None:
        """Let workers that joined during a stage take part in the next one."""
        held, self._held = self._held, []
        for node in held:
            self._worker_nodes = [other for other in self._worker_nodes if other.id != node.id]
            super().add_worker(node)
