"""The stages of a run, one after the other: fixed beforehand, or decided by the results of the stages before them.

A ``StageSpec`` says what is asked of one stage; ``coordinator`` runs it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_users.options.table import Options
from llm_users.prompts import Trace
from llm_users.record import RequestRecord, StageLoad, StageRecord


@dataclass(frozen=True, slots=True)
class Minimum:
    """What a stage needs at least: measured requests, and seconds of measuring."""

    requests: int
    seconds: float

    @property
    def text(self) -> str:
        requests = "1 request" if self.requests == 1 else f"{self.requests} requests"
        return f"at least {requests} and {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What one stage is asked for."""

    load: StageLoad
    requests: int | None = None
    """Measured requests where the stage itself says how many, and not the options."""
    minimum: Minimum | None = None
    """In a search: the stage goes on until it has both; ``requests`` then has both as a number of arrivals, if any."""

    times_s: Sequence[float] | None = None
    """In the replay of a trace: when each request of it is sent, from the beginning of the stage."""

    def length_text(self, requests: int | None, measure_s: float | None) -> str:
        """How long the stage lasts, in words."""
        if self.minimum is not None:
            return self.minimum.text
        return f"{requests} requests" if requests is not None else f"{measure_s or 0:g} s"

    def most(self, options: Options) -> int:
        """Requests in flight at most; 0 where nothing limits them."""
        return options.max_in_flight or 0 if self.load.is_open else self.load.concurrency


class StageSequence(Protocol):
    """Asked once before every stage."""

    @property
    def count(self) -> int:
        """How many stages the run has, as far as is known."""

    def next(self, last: StageRecord | None) -> StageSpec | None:
        """The next stage, once ``last`` is over (None: the first one). None: the run is over."""

    def seen(self, record: RequestRecord) -> str | None:
        """A row of the present stage has come: why the stage need not go on, or None."""

    def enough(self) -> bool:
        """Whether the present stage, whose end is not fixed beforehand, has measured enough. Asked once a second."""


class FixedStages:
    """The stages of a list."""

    def __init__(self, specs: tuple[StageSpec, ...]) -> None:
        self._sequence = specs
        self._given = 0

    @property
    def count(self) -> int:
        return max(1, len(self._sequence))

    def next(self, last: StageRecord | None) -> StageSpec | None:  # noqa: ARG002 - what was before changes nothing
        if self._given == len(self._sequence):
            return None
        self._given += 1
        return self._sequence[self._given - 1]

    def seen(self, record: RequestRecord) -> str | None:  # noqa: ARG002 - every stage is measured to its end
        return None

    def enough(self) -> bool:
        return False


def trace_stage(options: Options, trace: Trace) -> StageSpec:
    """The stage that replays a trace, or the first requests of it."""
    count = len(trace.entries)
    times_s = array("d", (entry.at_s for entry in trace.entries))
    load, requests = StageLoad(rate_per_s=trace.rate_per_s), min(count, options.requests or count)
    return StageSpec(load, requests=requests, times_s=times_s)


def listed_stages(options: Options, replay: StageSpec | None = None) -> StageSequence:
    """The stages that the options list: that of a trace, rates, else concurrencies; none when Locust's own users are
    the load."""
    if replay is not None:
        return FixedStages((replay,))
    if options.rate:
        return FixedStages(tuple(StageSpec(StageLoad(rate_per_s=rate)) for rate in options.rate))
    return FixedStages(tuple(StageSpec(StageLoad(users)) for users in options.sweep))
