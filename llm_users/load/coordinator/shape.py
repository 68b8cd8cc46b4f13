"""The shape that Locust asks once a second for the user count; all decisions are the coordinator's."""

from __future__ import annotations

from collections.abc import Callable

from locust import LoadTestShape


class SweepShape(LoadTestShape):
    """Installed by the extension when ``--llm-sweep`` is given, for any locustfile."""

    abstract = True  # never picked up by its mere presence in a locustfile

    def __init__(self, tick: Callable[[], tuple[int, float] | None]) -> None:
        super().__init__()
        self._tick = tick

    def tick(self) -> tuple[int, float] | None:
        return self._tick()
