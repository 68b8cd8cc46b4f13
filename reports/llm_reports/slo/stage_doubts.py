"""Reasons to doubt the figures of a stage: the client's health, missing load, failed requests, a growing queue.

A client that reads late makes TTFT and E2E latency look longer, never shorter. So an objective that is met including
this delay passes, regardless of the client's health. A time per output token can look shorter (the first chunk is read
late, the last one on time), so it is evaluated with the client's delay added. If a figure exceeds its limit, the client
may be the cause. A load below the requested load does not show whether the requested load meets the objectives.

A stage that was limited by the client, unsteady, or had too many failures is *unfit*: it cannot be the highest load,
the knee, the operating point of costs, the best point of the curve, or the top of the leaderboard.
"""

from __future__ import annotations

from llm_reports.metrics.groups import Group
from llm_reports.metrics.stage_group import StageGroup
from llm_reports.slo.objectives import ERRORS, FAILURES_ALLOWED, Objective, Objectives
from llm_users.record import COL, LOAD_SHARE, UNSTEADY

STRAINED, SATURATED, DISTURBED = "strained", "saturated", "disturbed"
CLIENT_WAS_THE_LIMIT = (SATURATED, DISTURBED)
"""Values of the client's health that mean that the load generator or other programs on its machine were the limit."""
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

    While a client is ``ok``, its delay is below the resolution of this measurement (docs/client-health.md).
    """
    lag_s = group.stage_figure(COL.lag_p99_s) if group.health in _REMEDIES else 0.0
    return lag_s if lag_s > 0 else 0.0


def doubt(group: Group, objective: Objective, *, failed: bool) -> str:
    """Return why the client's health, or a load with too few users, leaves an objective undecided; "" otherwise.

    ``failed``: whether the figure exceeds its limit. Shares of requests, such as errors, are counted and not timed, so
    they do not depend on the client's health.
    """
    if not failed and group.shortfall is not None and group.shortfall.users_missing:
        return group.shortfall.text
    if objective.is_share or group.health not in _REMEDIES:
        return ""
    remedy = _REMEDIES[group.health]
    target = group.load.level
    ran = group.stage_figure(COL.started_rate_per_s if group.load.is_open else COL.load_actual)
    if target and ran < LOAD_SHARE * target:
        return f"only {ran:.3g} of {group.load.text} ran, because the client was {group.health}: {remedy}"
    if failed and group.health in _CAUSES:
        return f"{_CAUSES[group.health]}: {remedy}"
    return ""


def brief_doubt(group: Group, *, failed: bool) -> str:
    """Return the reason of ``doubt`` in a few words, for a list of stages: ``only 5 of 8 users ran``."""
    if not failed and group.shortfall is not None and group.shortfall.users_missing:
        return f"only {group.shortfall.short} ran"
    return f"the client was {group.health}"


def late(group: Group, objective: Objective, late_s: float) -> str:
    """Return why an objective that passes by its figure alone is undecided: it fails with the client's delay added."""
    return (
        f"{objective.text} holds only without the delay of the client, which was {group.health} and up to "
        f"{1000 * late_s:.3g} ms late (p99): {_REMEDIES[group.health]}"
    )


def unfit(group: StageGroup, objectives: Objectives | None = None) -> str:
    """Return why the stage cannot be the best, the highest load, or the knee; "" when it can."""
    return failures(group, objectives) or queue_grew(group) or client(group)


def failures(group: StageGroup, objectives: Objectives | None = None) -> str:
    """Return the reason if more requests failed than the objectives, or else ``FAILURES_ALLOWED``, allow; else ""."""
    limits = [objective.limit for objective in objectives.all if objective.name == ERRORS] if objectives else []
    allowed = min(limits or [FAILURES_ALLOWED])
    ended, failed = group.counts.ended, group.counts.failed
    return f"{failed} of {ended} requests failed" if ended and failed > allowed * ended else ""


def queue_grew(group: StageGroup) -> str:
    """Return the reason if the stage was unsteady; else ""."""
    return "unsteady: its queue grew through the window" if group.steadiness == UNSTEADY else ""


def client(group: StageGroup) -> str:
    """Return the reason if the client was the limit; else ""."""
    return f"the client was {group.health}" if group.health in CLIENT_WAS_THE_LIMIT else ""
