"""Effects of the client's health on the verdicts on objectives.

A client that reads late makes TTFT and E2E latency look longer, never shorter. So an objective that is met including
this delay passes, regardless of the client's health. A time per output token can look shorter (the first chunk is read
late, the last one on time), so it is evaluated with the client's delay added. If a figure exceeds its limit, the client
may be the cause. A load below the requested load does not show whether the requested load meets the objectives.
"""

from __future__ import annotations

import math

from llm_reports.metrics.groups import Group
from llm_reports.slo.objectives import Objective
from llm_users.record import COL, LOAD_SHARE

OK, STRAINED, SATURATED, DISTURBED = "ok", "strained", "saturated", "disturbed"
_REMEDIES = {
    SATURATED: "use more workers (--processes) or lower the load",
    DISTURBED: "stop the other programs on this machine, or run on another machine",
    STRAINED: "use more workers (--processes) or lower the load",
}
_CAUSES = {
    SATURATED: "the client was saturated, so the figure measures the client",
    DISTURBED: "other programs took CPU time from the client, and the figure includes the client's delay",
}


def delay_s(group: Group) -> float:
    """Return how late (s) the client may have read: the p99 of its lag if it was not healthy, otherwise 0.

    While a client is ``ok``, its delay is below the resolution of this measurement (docs/accuracy.md).
    """
    if group.health not in (STRAINED, SATURATED, DISTURBED):
        return 0.0
    lag_s = _of_stage(group, COL.lag_p99_s)
    return lag_s if lag_s > 0 else 0.0


def doubt(group: Group, objective: Objective, *, failed: bool) -> str:
    """Return why the client's health, or a load with too few users, leaves an objective undecided; "" otherwise.

    ``failed``: whether the figure exceeds its limit. Shares of requests, such as errors, are counted and not timed, so
    they do not depend on the client's health.
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
    """Return why an objective that passes by its figure alone is undecided: it fails with the client's delay added."""
    return (
        f"{objective.text} holds only without the delay of the client, which was {group.health} and up to "
        f"{1000 * late_s:.3g} ms late (p99): {_REMEDIES[group.health]}"
    )


def _load_missing(group: Group) -> str:
    """Return how much of the load ran, if it was too little; "" otherwise, and when the files do not contain it."""
    target = group.load.level
    if not target:
        return ""
    if group.load.is_open:
        ran, unit = _of_stage(group, COL.started_rate_per_s), "requests/s"
    else:
        ran, unit = _of_stage(group, COL.load_actual), "users"
        if math.isnan(ran) and group.health == SATURATED:
            ran = _of_stage(group, COL.concurrency_actual)  # older files do not have load_actual
    return f"only {ran:.3g} of {target:g} {unit} ran" if ran < LOAD_SHARE * target else ""


def _of_stage(group: Group, column: str) -> float:
    """Return a figure of the stages file; NaN if it is missing."""
    stages = group.run.stages
    if group.stage is None or column not in stages:
        return math.nan
    known = stages[stages[COL.stage] == group.stage][column].dropna()
    return float(known.iloc[0]) if len(known) else math.nan
