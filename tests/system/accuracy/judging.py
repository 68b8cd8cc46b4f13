"""A line of the table: medians over its runs, and whether they are within the bounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_users.calibration.measured_run import BUSY_CORES, SERVER_LATE_S, MeasuredRun
from tests.system.accuracy.bounds import OK_MEANS_BELOW_S, SATURATED_CPU_SHARE, SATURATED_FROM_S, Bounds
from tests.system.accuracy.load_run import Plan

PASS, MISS, NO_BOUND = "pass", "MISS", "-"


class Run(Protocol):
    """What the lines need of every run, of the product or of the control."""

    @property
    def cpu_per_token_s(self) -> float: ...
    @property
    def late_p99_s(self) -> float: ...
    @property
    def other_cores(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table, over all its runs."""

    plan: Plan
    outcomes: tuple[MeasuredRun, ...]
    bounds: Bounds | None
    references: tuple[Run, ...] = ()
    """The runs with which the CPU is compared, each next to the outcome with the same index. Empty: no comparison."""

    def median(self, of: Callable[[MeasuredRun], float]) -> float:
        return statistics.median(of(outcome) for outcome in self.outcomes)

    @property
    def reference_cpu_per_token_s(self) -> float | None:
        return statistics.median(run.cpu_per_token_s for run in self.references) if self.references else None

    @property
    def cpu_ratio(self) -> float | None:
        """The median of the ratios of runs that were next to each other, because the machine's speed varies."""
        pairs = zip(self.outcomes, self.references, strict=False)
        ratios = [outcome.cpu_per_token_s / reference.cpu_per_token_s for outcome, reference in pairs]
        return statistics.median(ratios) if ratios else None

    @property
    def spoilt(self) -> str | None:
        """Why the line cannot be judged, or None. Health beside busy programs is always judged."""
        if self.plan.busy:
            return None
        judged = self.references if self.bounds is not None and self.bounds.cpu_ratio is not None else ()
        return next((reason for run in (*self.outcomes, *judged) if (reason := spoilt(run))), None)

    @property
    def verdict(self) -> str:
        if self.spoilt:
            return self.spoilt
        misses = self.misses()
        if misses:
            return f"{MISS}: {', '.join(misses)}"
        return PASS if self.bounds is not None else NO_BOUND

    @property
    def missed(self) -> bool:
        return self.verdict.startswith(MISS)

    def misses(self) -> list[str]:
        """Return what is outside its bound. Lost and miscounted answers are always a miss."""
        found = []
        if any(outcome.failed for outcome in self.outcomes):
            found.append("failed requests")
        if any(outcome.miscounted for outcome in self.outcomes):
            found.append("token counts")
        if self.plan.sdk:
            return found
        found += [wrong for outcome in self.outcomes if (wrong := wrong_health(outcome))][:1]
        if self.bounds is None:
            return found
        bounds = self.bounds
        limits: Sequence[tuple[str, float | None, float | None]] = (
            ("TTFT p50", self.median(lambda o: o.ttft_p50_s), bounds.ttft_p50_s),
            ("TTFT p99", self.median(lambda o: o.ttft_p99_s), bounds.ttft_p99_s),
            ("last - first", self.median(lambda o: o.span_p99_s), bounds.span_p99_s),
            ("CPU", self.median(lambda o: o.cpu_per_token_s), bounds.cpu_per_token_s),
            ("CPU ratio", self.cpu_ratio, bounds.cpu_ratio),
        )
        found += [
            name for name, value, limit in limits if limit is not None and not (value is not None and value <= limit)
        ]
        if not self.median(lambda o: o.rate) >= bounds.rate:
            found.append("rate")
        if bounds.health is not None:
            allowed = sum(outcome.health in bounds.health for outcome in self.outcomes)
            if allowed * 2 <= len(self.outcomes):
                found.append("health")
        return found


def wrong_health(outcome: MeasuredRun) -> str | None:
    """Return what is wrong with the health that the client reported, or None."""
    if outcome.health == "ok" and outcome.ttft_p99_s >= OK_MEANS_BELOW_S:
        return "called ok"
    uses_its_core = outcome.cpu_share >= SATURATED_CPU_SHARE
    if outcome.health == "saturated" and not uses_its_core:
        return "called saturated"
    if outcome.health != "saturated" and uses_its_core and outcome.ttft_p99_s > SATURATED_FROM_S:
        return "not called saturated"
    return None


def spoilt(run: Run) -> str | None:
    """Return why a run does not describe the client, or None."""
    if run.late_p99_s > SERVER_LATE_S:
        return "server late"
    if run.other_cores > BUSY_CORES:
        return "machine busy"
    return None
