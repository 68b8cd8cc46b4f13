"""The shape that Locust asks once per second for the number of users. The coordinator makes all decisions."""

from __future__ import annotations

from collections.abc import Callable

from locust import LoadTestShape


class SweepShape(LoadTestShape):
    """The shape for ``--llm-sweep`` and other staged runs, for any locustfile. The extension installs it."""

    abstract = True  # Locust must not use the class only because a locustfile imports it

    def __init__(self, tick: Callable[[], tuple[int, float] | None]) -> None:
        super().__init__()
        self._tick = tick

    def tick(self) -> tuple[int, float] | None:
        return self._tick()
