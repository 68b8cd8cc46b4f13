"""The interface of the coordinator that the tab uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llm_users.collect.writer import RunWriter
from llm_users.load.protocol.stage import StagePlan
from llm_users.options.table import Options
from llm_users.record import RequestRecord


class Course(Protocol):
    """A coordinator in the process that writes the rows, with one run after another."""

    options: Options
    writer: RunWriter | None
    active: bool
    refused: str | None

    def watch_rows(self, listener: Callable[[RequestRecord], None]) -> None:
        """Pass every row to the listener after it was counted."""

    @property
    def plan(self) -> StagePlan | None:
        """Return the present stage of the run, or None between runs."""

    @property
    def finishing(self) -> bool:
        """Return whether the run is stopping and requests in flight may end."""

    @property
    def stages(self) -> int:
        """Return the number of stages of the run."""

    @property
    def worker_names(self) -> dict[int, str]:
        """Return the names of the present workers by rank."""
