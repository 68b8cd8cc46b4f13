"""The stages of a run: a fixed list, or a sequence that depends on the results of earlier stages.

A ``StageSpec`` describes one stage; ``coordinator`` runs it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from llm_users.number_words import counted
from llm_users.options.table import Options
from llm_users.prompts import Trace
from llm_users.record import RateRange, RequestRecord, StageLoad, StageRecord


@dataclass(frozen=True, slots=True)
class Minimum:
    """The minimum length of a stage: measured requests, and seconds of measuring."""

    requests: int
    seconds: float

    @property
    def text(self) -> str:
        return f"at least {counted(self.requests, 'request')} and {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """The description of one stage."""

    load: StageLoad
    requests: int | None = None
    """Measured requests, if the stage and not the options define their number."""
    minimum: Minimum | None = None
    """In a search, the stage continues until it has reached both minima. ``requests`` is then the number of arrivals
    for both minima in an open loop."""

    goal: str = ""
    """What a search looks for, in words; "" for a fixed list of stages."""

    times_s: Sequence[float] | None = None
    """In the replay of a trace, the send time of each request, from the start of the stage."""

    def length_text(self, requests: int | None, measure_s: float | None) -> str:
        """Return the length of the stage as text, and the goal of a search."""
        if self.minimum is not None:
            return f"{self.minimum.text}; goal: {self.goal}" if self.goal else self.minimum.text
        return counted(requests, "request") if requests is not None else f"{measure_s or 0:g} s"

    def most(self, options: Options) -> int:
        """Return the maximum number of requests in flight, or 0 without a limit."""
        return options.max_in_flight or 0 if self.load.is_open else self.load.concurrency


class StageSequence(Protocol):
    """A sequence of stages. The coordinator asks for the next one before every stage."""

    @property
    def count(self) -> int:
        """Return the number of stages of the run that is known so far."""

    @property
    def total_text(self) -> str:
        """Return the number of stages of the whole run, for the log: ``4``, or ``at most 12`` in a search."""

    @property
    def later(self) -> Sequence[StageSpec] | None:
        """Return the stages after the present one, or None if they are not known yet."""

    def next(self, last: StageRecord | None) -> StageSpec | None:
        """Return the next stage after ``last`` (None: the first stage), or None if the run is over."""

    def seen(self, record: RequestRecord) -> str | None:
        """Process a row of the present stage. Return why the stage need not continue, or None."""

    def enough(self) -> bool:
        """Return whether the present stage, if its end is open, has measured enough. Called once per second."""


class FixedStages:
    """A fixed list of stages."""

    def __init__(self, specs: tuple[StageSpec, ...]) -> None:
        self._sequence = specs
        self._started = 0

    @property
    def count(self) -> int:
        return max(1, len(self._sequence))

    @property
    def total_text(self) -> str:
        return str(self.count)

    @property
    def later(self) -> Sequence[StageSpec] | None:
        return self._sequence[self._started :]

    def next(self, last: StageRecord | None) -> StageSpec | None:  # noqa: ARG002 - does not depend on results
        if self._started == len(self._sequence):
            return None
        self._started += 1
        return self._sequence[self._started - 1]

    def seen(self, record: RequestRecord) -> str | None:  # noqa: ARG002 - every stage runs to its end
        return None

    def enough(self) -> bool:
        return False


def trace_stage(options: Options, trace: Trace) -> StageSpec:
    """Return the stage that replays a trace, or the first requests of it."""
    count = len(trace.entries)
    times_s = array("d", (entry.at_s for entry in trace.entries))
    load, requests = StageLoad(rate_per_s=trace.rate_per_s), min(count, options.requests or count)
    return StageSpec(load, requests=requests, times_s=times_s)


def listed_stages(options: Options, replay: StageSpec | None = None) -> StageSequence:
    """Return the stages that the options define by a trace, by rates or by concurrencies.

    A sweep of lengths runs all loads with the first lengths, then with the next ones. The sequence is empty when
    Locust's own options define the users.
    """
    if replay is not None:
        return FixedStages((replay,))
    loads = [_load_of_rate(rate) for rate in options.rate] or [StageLoad(users) for users in options.sweep]
    return FixedStages(
        tuple(
            StageSpec(replace(load, lengths=lengths)) for lengths in options.length_sweep or (None,) for load in loads
        )
    )


def _load_of_rate(rate: RateRange) -> StageLoad:
    return StageLoad(rate_per_s=rate.mean_per_s, ramp=rate if rate.end_per_s != rate.start_per_s else None)
