"""The log of failures: the first failure of each kind at once, and the number of all of them at the end of the run."""

from __future__ import annotations

import logging
from collections import Counter

from llm_users.collect.error_kinds import ErrorKinds
from llm_users.record import RequestRecord
from llm_users.secrets import redact

logger = logging.getLogger(__name__)


class FailureLog:
    """Logs the failures of one run."""

    def __init__(self) -> None:
        self._kinds = ErrorKinds()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def add(self, record: RequestRecord) -> None:
        """Count the row of a request if the request failed, and log it if it is the first of its kind."""
        if not record.outcome.is_failure:
            return
        code, message = record.error_code or "", record.error_message or ""
        kind = self._kinds.entry(code, message)
        self._counts[kind] += 1
        if kind not in self._first:
            self._first[kind] = redact(f"{code}: {message}")
            logger.warning("first failure of this kind: %s", self._first[kind])

    def end(self) -> None:
        """Log the number of failures of each kind that occurred more than once."""
        for kind, count in self._counts.most_common():
            if count > 1:
                logger.warning("%d failures in all: %s", count, self._first[kind])
