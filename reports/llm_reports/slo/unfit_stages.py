"""Which stages can be the best: none of a client that was the limit, none that was unsteady, none that failed.

The highest load, the knee, the operating point of costs, the best point of the curve and the leaderboard ask it.
"""

from __future__ import annotations

from llm_reports.metrics.groups import Group
from llm_reports.slo.objectives import ERRORS, FAILURES_ALLOWED, Objectives
from llm_users.record import UNSTEADY

CLIENT_WAS_THE_LIMIT = ("saturated", "disturbed")
"""Values of the client's health: the load generator itself, or other programs on its machine, were the limit."""


def unfit(group: Group, objectives: Objectives | None = None) -> str:
    """Why the stage can be neither best, nor highest, nor the knee; "" when it can."""
    return failures(group, objectives) or queue_grew(group) or client(group)


def failures(group: Group, objectives: Objectives | None = None) -> str:
    """More requests failed than the objectives allow, or than ``FAILURES_ALLOWED`` where they do not say."""
    named = [each.limit for each in objectives.all if each.name == ERRORS] if objectives is not None else []
    ended, failed = group.counts.ended, group.counts.failed
    return f"{failed} of {ended} requests failed" if ended and failed > min(named or [FAILURES_ALLOWED]) * ended else ""


def queue_grew(group: Group) -> str:
    """The stage was unsteady."""
    return "unsteady: its queue grew through the window" if group.steadiness == UNSTEADY else ""


def client(group: Group) -> str:
    """The client was the limit."""
    return f"the client was {group.health}" if group.health in CLIENT_WAS_THE_LIMIT else ""
