"""Detection of stages that cannot be the best: limited by the client, unsteady, or with too many failures.

The highest load, the knee, the operating point of costs, the best point of the curve and the leaderboard use it.
"""

from __future__ import annotations

from llm_reports.metrics.groups import Group
from llm_reports.slo.objectives import ERRORS, FAILURES_ALLOWED, Objectives
from llm_users.record import UNSTEADY

CLIENT_WAS_THE_LIMIT = ("saturated", "disturbed")
"""Values of the client's health that mean that the load generator or other programs on its machine were the limit."""


def unfit(group: Group, objectives: Objectives | None = None) -> str:
    """Return why the stage cannot be the best, the highest load, or the knee; "" when it can."""
    return failures(group, objectives) or queue_grew(group) or client(group)


def failures(group: Group, objectives: Objectives | None = None) -> str:
    """Return the reason if more requests failed than the objectives, or else ``FAILURES_ALLOWED``, allow; else ""."""
    limits = [objective.limit for objective in objectives.all if objective.name == ERRORS] if objectives else []
    allowed = min(limits or [FAILURES_ALLOWED])
    ended, failed = group.counts.ended, group.counts.failed
    return f"{failed} of {ended} requests failed" if ended and failed > allowed * ended else ""


def queue_grew(group: Group) -> str:
    """Return the reason if the stage was unsteady; else ""."""
    return "unsteady: its queue grew through the window" if group.steadiness == UNSTEADY else ""


def client(group: Group) -> str:
    """Return the reason if the client was the limit; else ""."""
    return f"the client was {group.health}" if group.health in CLIENT_WAS_THE_LIMIT else ""
