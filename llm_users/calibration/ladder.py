"""Up a ladder of stream counts until the client's own errors show, and what that says about the machine.

Decides which rung comes next and what a rung means; it runs none itself and prints nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llm_users.calibration.measured_run import MeasuredRun
from llm_users.calibration.other_programs import BUSY_CORES
from llm_users.calibration.truth import SERVER_LATE_S

FIRST, LAST = 16, 4096
"""The default ladder doubles from here to there."""

_FINER = 2
"""Rungs between the highest that passed and the lowest that failed: they halve a doubling, then halve it again."""

_TTFT, _SPAN = "TTFT", "last - first"
_OF_TIMES = {_TTFT, _SPAN}

PASS, FAIL, UNJUDGED = "pass", "fail", "not judged"


@dataclass(frozen=True, slots=True)
class Rung:
    """One run and what it means."""

    streams: int
    outcome: MeasuredRun | None
    """None: the run itself failed, as one of far too many streams does."""
    error_s: float
    """From where on an error is too large."""

    @property
    def server_was_late(self) -> bool:
        return self.outcome is not None and self.outcome.late_p99_s > max(SERVER_LATE_S, self.error_s)

    @property
    def was_disturbed(self) -> bool:
        """The client's times were wrong and it did not get the CPU: they say nothing about what it carries."""
        faults = self.faults()
        is_timing = bool(faults) and set(faults) <= _OF_TIMES
        return is_timing and self.outcome is not None and self.outcome.health == "disturbed"

    @property
    def is_unjudged(self) -> bool:
        return self.server_was_late or self.was_disturbed

    @property
    def judged(self) -> str:
        if self.is_unjudged:
            return UNJUDGED
        faults = self.faults()
        return f"{FAIL}: {faults[0]}" if faults else PASS

    @property
    def passed(self) -> bool:
        return self.judged == PASS

    def faults(self) -> list[str]:
        """What is wrong with the client's figures, or was with the client."""
        outcome = self.outcome
        if outcome is None:
            return ["the run"]
        found = {
            "requests": outcome.failed > 0,
            "token counts": outcome.miscounted > 0,
            _TTFT: not outcome.ttft_p99_s < self.error_s,
            _SPAN: not outcome.span_p99_s < self.error_s,
            "saturated": outcome.health == "saturated",
        }
        return [name for name, is_so in found.items() if is_so]


@dataclass(frozen=True, slots=True)
class Climb:
    """All rungs that were tried, in order."""

    rungs: tuple[Rung, ...]

    @property
    def best(self) -> Rung | None:
        """The highest that passed."""
        return max((rung for rung in self.rungs if rung.passed), key=lambda rung: rung.streams, default=None)

    @property
    def stopped_by(self) -> Rung | None:
        """The lowest rung above the best one that did not pass, judged if it ever was; None: the ladder ended first."""
        best = self.best.streams if self.best is not None else 0
        above = [rung for rung in self.rungs if rung.streams > best]
        return min(above, key=lambda rung: (rung.streams, rung.is_unjudged), default=None)

    @property
    def at_least(self) -> bool:
        """The client's own end was not seen."""
        return self.stopped_by is None or self.stopped_by.is_unjudged

    @property
    def others_cores(self) -> float:
        """What other programs used of the machine at most."""
        return max((rung.outcome.other_cores for rung in self.rungs if rung.outcome is not None), default=0.0)

    @property
    def was_disturbed(self) -> bool:
        return self.others_cores > BUSY_CORES


def climb(run: Callable[[int], Rung], listed: Sequence[int] | None, told: Callable[[Rung], None]) -> Climb:
    """Try rung after rung: those that are listed, else doubling ones and then finer ones below the first that failed.

    One that does not pass is tried a second time, because anything else on the machine can be the reason.
    """
    rungs: list[Rung] = []

    def passes(streams: int) -> bool:
        for _ in range(2):
            rungs.append(run(streams))
            told(rungs[-1])
            if rungs[-1].passed:
                return True
        return False

    low = 0
    high: int | None = None
    for streams in sorted(set(listed)) if listed is not None else _doubling():
        if not passes(streams):
            high = streams
            break
        low = streams
    finer = _FINER if listed is None and low and high and not Climb(tuple(rungs)).at_least else 0
    for _ in range(finer):
        assert high is not None
        middle = round(math.sqrt(low * high))
        if not low < middle < high:
            break
        if passes(middle):
            low = middle
        else:
            high = middle
    return Climb(tuple(rungs))


def _doubling() -> Iterator[int]:
    streams = FIRST
    while streams <= LAST:
        yield streams
        streams *= 2
