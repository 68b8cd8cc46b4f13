"""Reasons to doubt the figures of a stage: the client's health, missing load, failed requests, a growing queue.

A client that reads late makes TTFT and E2E latency look longer, never shorter. So an objective that is met including
this delay passes, regardless of the client's health. A time per output token can look shorter (the first chunk is read
late, the last one on time), so it is evaluated with the client's delay added. The client may be the cause of a figure
that exceeds its limit by less than the client's delay (``stricter``). A load below the requested load does not show
whether the requested load meets the objectives.

A stage that was limited by the client, unsteady, or had too many failures is *unfit*: it cannot be the highest load,
the knee, the operating point of costs, the best point of the curve, or the top of the leaderboard.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

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


def delay_of(group: Group, column: str) -> float:
    """Return by how much the client's delay can worsen a figure: seconds for a time, a share of 1 for a throughput.

    The result is 0 if the client was healthy or if its delay does not change the figure, and infinite if the delay is
    unknown or is the figure itself, such as the wait in the client.
    """
    if group.health not in _REMEDIES or column in (COL.error_code, COL.answer_match, COL.answer_strict_match):
        return 0.0
    late_s = delay_s(group)
    if not late_s or column == COL.queue_s or not len(group.ok):
        return math.inf
    if column == COL.tpot_s:
        tokens = group.ok[COL.output_tokens].to_numpy(np.float64, na_value=math.nan)
        counted = tokens[tokens >= 2]  # one token has no time per token after the first
        return late_s / (float(counted.min()) - 1) if len(counted) else math.inf
    if column in (COL.request_output_throughput_token_per_s, COL.output_throughput_token_per_s):
        fastest_s = float(group.ok[COL.end_to_end_latency_s].min())
        return late_s / fastest_s if fastest_s > late_s else math.inf
    if column in (COL.corrected_ttft_s, COL.corrected_end_to_end_latency_s):
        queue_s = group.stage_figure(COL.queue_p99_s)
        return math.inf if math.isnan(queue_s) else late_s + queue_s
    return late_s


def stricter(group: Group, objective: Objective) -> Objective | None:
    """Return the objective that fails only if the given one fails without the client's delay; ``None`` if unknown.

    The limit is worse by the delay. The delay is a p99, so 1 % of the requests can be later: a quantile moves by 0.01,
    and by 0.02 if the wait in the client is part of the figure.
    """
    delay = delay_of(group, objective.kind.column)
    less = objective.kind.less_is_better
    if not 0 < delay < math.inf:
        return None
    limit = objective.limit + delay if less else objective.limit * (1 - delay)
    if objective.q is None:
        return replace(objective, limit=limit)
    later = 0.02 if objective.name.startswith("corrected_") else 0.01
    q = objective.q - later if less else objective.q + later
    return replace(objective, limit=limit, q=q) if 0 < q < 1 else None


def at_most(group: Group, column: str) -> str:
    """Return the client's delay in a figure in words, rounded up."""
    delay = delay_of(group, column)
    if column in (COL.request_output_throughput_token_per_s, COL.output_throughput_token_per_s):
        return f"client delay at most {math.ceil(1000 * delay) / 10:.1f} %"
    if column == COL.tpot_s:
        return f"client delay at most {math.ceil(1e5 * delay) / 100:.2f} ms per token"
    return f"client delay at most {math.ceil(1000 * delay) / 1000:.3f} s"


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
