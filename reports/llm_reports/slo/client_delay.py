"""What the health of the client may and may not put in doubt.

A client that is late to read makes TTFT and E2E latency look longer, never shorter. So an objective that is met with
the delay inside holds, whatever the client's health. A time per output token can look shorter (the first chunk is read
late, the last one in time), so it is judged with the client's delay added. Only a figure that misses its limit may be
the client's own doing, and a load that was not there says nothing about the load that was asked for.
"""

from __future__ import annotations

import math

from llm_reports.metrics.groups import Group
from llm_reports.slo.objectives import Objective
from llm_users.record import LOAD_SHARE

OK, STRAINED, SATURATED, DISTURBED = "ok", "strained", "saturated", "disturbed"
_REMEDIES = {
    SATURATED: "use more workers (--processes) or lower the load",
    DISTURBED: "stop the other programs on this machine, or run on another machine",
    STRAINED: "use more workers (--processes) or lower the load",
}
_CAUSES = {
    SATURATED: "the client was saturated and measured itself",
    DISTURBED: "other programs took the CPU from the client, whose delay is in the figure",
}


def delay_s(group: Group) -> float:
    """By how much (s) the client may have been late to read: the p99 of its lag where it was not well, else 0.

    While a client is ``ok`` its delay is below what is measured here (docs/accuracy.md).
    """
    if group.health not in (STRAINED, SATURATED, DISTURBED):
        return 0.0
    lag_s = _of_stage(group, "lag_p99_s")
    return lag_s if lag_s > 0 else 0.0


def doubt(group: Group, objective: Objective, *, failed: bool) -> str:
    """Why the client's health, or a load with too few users, leaves an objective undecided; "" when it does not.

    ``failed``: whether the figure is on the wrong side of its limit. Shares of requests, such as errors, are counted
    and not timed, so the client's health does not put them in doubt.
    """
    if not failed and group.shortfall is not None and group.shortfall.users_missing:
        return group.shortfall.text
    if objective.is_share or group.health not in (STRAINED, SATURATED, DISTURBED):
        return ""
    remedy = _REMEDIES[group.health]
    short = _load_missing(group)
    if short:
        return f"{short}, because the client was {group.health}: {remedy}"
    if failed and group.health in _CAUSES:
        return f"{_CAUSES[group.health]}: {remedy}"
    return ""


def late(group: Group, objective: Objective, late_s: float) -> str:
    """Why an objective that holds by its figure alone is undecided: not with the client's delay added."""
    return (
        f"{objective.text} holds only without the delay of the client, which was {group.health} and up to "
        f"{1000 * late_s:.3g} ms late (p99): {_REMEDIES[group.health]}"
    )


def _load_missing(group: Group) -> str:
    """How much of the load was there, when that is too little; "" otherwise, and when the files do not say."""
    target = group.load.level
    if not target:
        return ""
    if group.load.is_open:
        ran, unit = _of_stage(group, "started_rate_per_s"), "requests/s"
    else:
        ran, unit = _of_stage(group, "load_actual"), "users"
        if math.isnan(ran) and group.health == SATURATED:
            ran = _of_stage(group, "concurrency_actual")  # files of before that column
    return f"only {ran:.3g} of {target:g} {unit} ran" if ran < LOAD_SHARE * target else ""


def _of_stage(group: Group, column: str) -> float:
    """A figure of the stages file; NaN without one."""
    stages = group.run.stages
    if group.stage is None or column not in stages:
        return math.nan
    known = stages[stages["stage"] == group.stage][column].dropna()
    return float(known.iloc[0]) if len(known) else math.nan
