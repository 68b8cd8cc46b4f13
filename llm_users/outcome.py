"""How a request ended, worked out from its row. Whatever asks whether a request succeeded or counts asks this module.

``llm_reports.metrics.outcomes`` has the same for columns of rows.
"""

from __future__ import annotations

from enum import StrEnum

BUFFERED = "buffered"
"""Value of ``error_code``: the complete answer arrived at once, so when its tokens were made is unknown. A success."""

ABORTED = "aborted"
"""Value of ``error_code``: the end of the stage or of the test cut the request."""

CANCELLED = "cancelled"
"""Value of ``error_code``: the client cancelled the request."""

OVERFLOW = "overflow"
"""Value of ``error_code``: the request found no place among ``--llm-max-in-flight``, so it was never sent."""

CLIENT_LIMIT = "client_limit"
"""Value of ``error_code``: this machine had no file descriptor, port or memory for another connection."""

TOO_MANY_REQUESTS = 429
"""HTTP status with which every failure counts as throttled."""


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    FAILED = "failed"
    THROTTLED = "throttled"
    """The endpoint rejected it because it was asked too often."""
    DROPPED = "dropped"
    """It found no place among ``--llm-max-in-flight``."""
    ABORTED = "aborted"
    """The end of the stage or of the test cut it."""
    CANCELLED = "cancelled"
    """The client gave it up on purpose."""

    @property
    def is_failure(self) -> bool:
        """True when the request counts as failed: throttled and dropped requests do."""
        return self in _FAILURES

    @property
    def is_unfinished(self) -> bool:
        """True when the client ended the request itself: it neither succeeded nor failed."""
        return self in _UNFINISHED


_FAILURES = frozenset({Outcome.FAILED, Outcome.THROTTLED, Outcome.DROPPED})
_UNFINISHED = frozenset({Outcome.ABORTED, Outcome.CANCELLED})

_OUTCOME_OF_OWN_CODE = {
    "": Outcome.OK,
    BUFFERED: Outcome.OK,
    ABORTED: Outcome.ABORTED,
    CANCELLED: Outcome.CANCELLED,
    OVERFLOW: Outcome.DROPPED,
}
OWN_CODES = tuple(_OUTCOME_OF_OWN_CODE)
"""Codes that only this program writes, and whose outcomes are special. All other codes are failures."""

_THROTTLED = frozenset({"429", "throttlingexception", "rate_limit_error", "rate_limit_exceeded"})
"""Codes of servers, in lower case, for a client that asks too often."""


def outcome_of(error_code: str | None, http_status: float | None = None) -> Outcome:
    """The outcome of a request, from two columns of its row. ``None`` and "" are empty cells."""
    known = _OUTCOME_OF_OWN_CODE.get(error_code or "")
    if known is not None:
        return known
    if http_status == TOO_MANY_REQUESTS or str(error_code).lower() in _THROTTLED:
        return Outcome.THROTTLED
    return Outcome.FAILED
