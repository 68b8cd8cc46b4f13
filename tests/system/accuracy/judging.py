"""A line of the table: medians over its runs, and whether they keep the bounds. boto3's own path has none."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_users.calibration.measured_run import BUSY_CORES, SERVER_LATE_S, MeasuredRun
from tests.system.accuracy.bounds import OK_MEANS_BELOW_S, SATURATED_CPU_SHARE, SATURATED_FROM_S, Bounds
from tests.system.accuracy.load_run import Plan

PASS, MISS, NO_BOUND = "pass", "MISS", "-"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table, over all its runs."""

    plan: Plan
    outcomes: tuple[MeasuredRun, ...]
    bounds: Bounds | None

    def median(self, of: Callable[[MeasuredRun], float]) -> float:
        return statistics.median(of(outcome) for outcome in self.outcomes)

    @property
    def spoilt(self) -> str | None:
        """Why the line cannot be judged, if so. Beside busy programs health is judged in any case."""
        if self.plan.busy:
            return None
        return next((reason for outcome in self.outcomes if (reason := spoilt(outcome))), None)

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
        """What is worse than it may be. Lost or miscounted answers are never fine."""
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
        limits: Sequence[tuple[str, Callable[[MeasuredRun], float], float | None]] = (
            ("TTFT p50", lambda o: o.ttft_p50_s, bounds.ttft_p50_s),
            ("TTFT p99", lambda o: o.ttft_p99_s, bounds.ttft_p99_s),
            ("last - first", lambda o: o.span_p99_s, bounds.span_p99_s),
            ("CPU", lambda o: o.cpu_per_token_s, bounds.cpu_per_token_s),
        )
        found += [name for name, of, limit in limits if limit is not None and not self.median(of) <= limit]
        if not self.median(lambda o: o.rate) >= bounds.rate:
            found.append("rate")
        return found


def wrong_health(outcome: MeasuredRun) -> str | None:
    """What is wrong with the client's own verdict, if anything."""
    if outcome.health == "ok" and outcome.ttft_p99_s >= OK_MEANS_BELOW_S:
        return "called ok"
    uses_its_core = outcome.cpu_share >= SATURATED_CPU_SHARE
    if outcome.health == "saturated" and not uses_its_core:
        return "called saturated"
    if outcome.health != "saturated" and uses_its_core and outcome.ttft_p99_s > SATURATED_FROM_S:
        return "not called saturated"
    return None


def spoilt(outcome: MeasuredRun) -> str | None:
    """Why a run says nothing about the client, if so."""
    if outcome.late_p99_s > SERVER_LATE_S:
        return "server late"
    if outcome.other_cores > BUSY_CORES:
        return "machine busy"
    return None
