"""The outcome of a request, derived from its row. All code that asks whether a request succeeded uses this module.

``llm_reports.metrics.outcomes`` has the same rules for columns of rows.
"""

from __future__ import annotations

from enum import StrEnum

BUFFERED = "buffered"
"""Value of ``error_code``: the complete answer arrived at once, so the times of its tokens are unknown. Counts as
success."""

ABORTED = "aborted"
"""Value of ``error_code``: the request was cut off by the end of the stage or of the test."""

CANCELLED = "cancelled"
"""Value of ``error_code``: the client cancelled the request."""

OVERFLOW = "overflow"
"""Value of ``error_code``: the request exceeded ``--llm-max-in-flight``, so it was never sent."""

NOT_CONNECTED = "connect"
"""Value of ``error_code``: no connection to the endpoint was possible."""

CLIENT_LIMIT = "client_limit"
"""Value of ``error_code``: this machine had no file descriptor, port or memory for another connection."""

TOO_MANY_REQUESTS = 429
"""HTTP status of a throttled request."""


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    FAILED = "failed"
    THROTTLED = "throttled"
    """The endpoint rejected the request because the client sent too many."""
    DROPPED = "dropped"
    """The request exceeded ``--llm-max-in-flight``."""
    ABORTED = "aborted"
    """The end of the stage or of the test cut the request off."""
    CANCELLED = "cancelled"
    """The client cancelled the request on purpose."""

    __hash__ = str.__hash__  # Enum's own is a Python function, and every row is counted by its outcome

    @property
    def is_failure(self) -> bool:
        """Return whether the request counts as failed. Throttled and dropped requests count as failed."""
        return self in _FAILURES

    @property
    def is_unfinished(self) -> bool:
        """Return whether the client ended the request itself, so that it neither succeeded nor failed."""
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
"""Codes that only this program writes and that have special outcomes. All other codes mean failure."""

_THROTTLED = frozenset({"429", "throttlingexception", "rate_limit_error", "rate_limit_exceeded"})
"""Codes of servers, in lower case, for a client that sends too many requests."""


def outcome_of(error_code: str | None, http_status: float | None = None) -> Outcome:
    """Return the outcome of a request from two columns of its row. ``None`` and "" stand for empty cells."""
    outcome = _OUTCOME_OF_OWN_CODE.get(error_code or "")
    if outcome is not None:
        return outcome
    if http_status == TOO_MANY_REQUESTS or str(error_code).lower() in _THROTTLED:
        return Outcome.THROTTLED
    return Outcome.FAILED
