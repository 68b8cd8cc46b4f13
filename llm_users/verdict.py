"""The verdict on objectives: of the SLO gate, a comparison, a load search and JUnit files alike.

Client health (``collect.client_health``) is another thing.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """The values are the words that files and tables use."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    """The requests do not suffice to tell, or the client itself may be the cause."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Failed if one is failed, else undecided if one is undecided, else passed."""
    found = set(verdicts)
    return next((verdict for verdict in (Verdict.FAILED, Verdict.UNDECIDED) if verdict in found), Verdict.PASSED)
