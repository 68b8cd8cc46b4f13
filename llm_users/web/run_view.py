"""What the tab reads of a run: the view of its coordinator that the web side has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llm_users.collect.writer import RunWriter
from llm_users.load.protocol.stage import StagePlan
from llm_users.options.table import Options
from llm_users.record import RequestRecord


class Course(Protocol):
    """One run after the other, where the rows are written. ``watch`` gets every row."""

    options: Options
    writer: RunWriter | None
    active: bool
    refused: str | None
    watch: Callable[[RequestRecord], None] | None

    @property
    def plan(self) -> StagePlan | None:
        """The stage that the run is in; None between runs."""

    @property
    def finishing(self) -> bool:
        """The run is stopping: what is in flight may end."""

    @property
    def stages(self) -> int:
        """How many stages the run has."""

    @property
    def worker_names(self) -> dict[int, str]:
        """The workers that are here, by rank."""
