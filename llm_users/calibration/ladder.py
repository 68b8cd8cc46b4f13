"""The ladder of stream counts: increases the streams until the client's own errors show.

It chooses the next rung and judges every rung; the caller runs the rungs and prints them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_users.calibration.measured_run import BUSY_CORES, SERVER_LATE_S, MeasuredRun

FIRST, LAST = 16, 4096
"""The first and the last number of streams of the default ladder, which doubles them."""

_FINER = 2
"""Number of rungs between the highest that passed and the lowest that failed; every one halves the interval."""

_TTFT, _SPAN = "TTFT", "last - first"
_OF_TIMES = {_TTFT, _SPAN}

PASS, FAIL, UNJUDGED = "pass", "fail", "not judged"


@dataclass(frozen=True, slots=True)
class Rung:
    """One run and its judgement."""

    streams: int
    outcome: MeasuredRun | None
    """None: the run itself failed, for example because of far too many streams."""
    error_s: float
    """The limit in seconds that errors must stay below."""

    @property
    def server_was_late(self) -> bool:
        return self.outcome is not None and self.outcome.late_p99_s > max(SERVER_LATE_S, self.error_s)

    @property
    def was_disturbed(self) -> bool:
        """True when the client's times were wrong because it did not get the CPU.

        Such times give no information about the client's capacity.
        """
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
        """Return the names of the checks that failed; empty when the rung passes."""
        outcome = self.outcome
        if outcome is None:
            return ["the run"]
        checks = {
            "requests": outcome.failed > 0,
            "token counts": outcome.miscounted > 0,
            _TTFT: not outcome.ttft_p99_s < self.error_s,
            _SPAN: not outcome.span_p99_s < self.error_s,
            "saturated": outcome.health == "saturated",
        }
        return [name for name, failed in checks.items() if failed]


@dataclass(frozen=True, slots=True)
class Climb:
    """All rungs in the order of their runs."""

    rungs: tuple[Rung, ...]

    @property
    def best(self) -> Rung | None:
        """The highest rung that passed, or None."""
        return max((rung for rung in self.rungs if rung.passed), key=lambda rung: rung.streams, default=None)

    @property
    def stopped_by(self) -> Rung | None:
        """The lowest rung above the best one that did not pass; None when the ladder ended first.

        A judged run takes precedence over one that was not judged.
        """
        best = self.best.streams if self.best is not None else 0
        above = [rung for rung in self.rungs if rung.streams > best]
        return min(above, key=lambda rung: (rung.streams, rung.is_unjudged), default=None)

    @property
    def at_least(self) -> bool:
        """True when the client's own limit was not reached."""
        return self.stopped_by is None or self.stopped_by.is_unjudged

    @property
    def others_cores(self) -> float:
        """The maximum CPU use of other programs during a rung, in cores."""
        return max((rung.outcome.other_cores for rung in self.rungs if rung.outcome is not None), default=0.0)

    @property
    def was_disturbed(self) -> bool:
        return self.others_cores > BUSY_CORES


def climb(run: Callable[[int], Rung], listed: Sequence[int] | None, told: Callable[[Rung], None]) -> Climb:
    """Run the rungs of ``listed`` in ascending order, or double the streams and then try rungs below the first failure.

    A rung that does not pass runs a second time, because other activity on the machine can be the reason. ``told`` is
    called after every run.
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
    doubled = [FIRST << doublings for doublings in range((LAST // FIRST).bit_length())]
    for streams in sorted(set(listed)) if listed is not None else doubled:
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
