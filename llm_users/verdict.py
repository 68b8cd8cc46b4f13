"""The verdict on objectives, for the SLO gate, comparisons, load searches and JUnit files.

The health of the client is a separate concept, see ``collect.client_health``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """The result of a check. Files and tables contain these values."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    """There are too few requests for a decision, or the client itself may be the cause."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return FAILED if any verdict is FAILED, else UNDECIDED if any is UNDECIDED, else PASSED."""
    present = set(verdicts)
    return next((verdict for verdict in (Verdict.FAILED, Verdict.UNDECIDED) if verdict in present), Verdict.PASSED)
