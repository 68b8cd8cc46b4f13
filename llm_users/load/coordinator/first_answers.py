"""The first answers of a run: they show whether the endpoint can be used.

A wrong URL, key or model fails every request in the same way, so the run ends after a few of them. One answer of
another kind (a success, 429, 5xx, a timeout) shows that the endpoint can be used, and later answers no longer matter.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection

from llm_users.outcome import CLIENT_LIMIT, NOT_CONNECTED, Outcome
from llm_users.record import RequestRecord

ENOUGH_ANSWERS = 6
"""Number of refused requests that end a run. A single user sends them in 3 s, because it pauses after a failure. At an
endpoint that refuses half of all requests at random, the first six are all refused in one of 64 runs."""

_STATUSES = frozenset((301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 422))
"""Statuses that the same request gets again: wrong URL, request, key, account, permission, path or model."""

_CODES = frozenset((NOT_CONNECTED, "malformed"))
"""Codes of requests without an answer of the API: no connection, or for example a page of HTML."""

_MOST_REASONS = 3
_NO_INFORMATION = (Outcome.ABORTED, Outcome.CANCELLED, Outcome.DROPPED)


class FirstAnswers:
    """Collects the outcomes of a run's requests until one of them shows that the endpoint can be used."""

    def __init__(self) -> None:
        self._usable = False
        self._reasons: Counter[str] = Counter()
        self._ended: defaultdict[int, set[int]] = defaultdict(set)  # the first requests of each worker that have ended

    def add(self, record: RequestRecord) -> None:
        """Process the row of a request."""
        if self._usable:
            return
        number = record.request_id.rpartition("-")[2]
        if number.isdecimal() and int(number) < ENOUGH_ANSWERS:
            self._ended[record.worker].add(int(number))
        if record.error_code == CLIENT_LIMIT or (record.outcome in _NO_INFORMATION and not record.chunks):
            return  # it tells nothing about the endpoint
        if _is_refusal(record):
            self._reasons[f"{record.error_code}: {record.error_message}"] += 1
        else:
            self._usable = True

    def problem(self, workers: Callable[[], Collection[int]]) -> str | None:
        """Return why the endpoint cannot be used, or None if too few requests have ended to tell.

        ``workers`` returns the ranks of the workers that have users. The first requests of each one must have ended,
        because only one worker may lack a key, and the first answer of another endpoint may take longer than a refusal.
        """
        if self._usable or self._reasons.total() < ENOUGH_ANSWERS:
            return None
        ranks = workers()
        first = range(math.ceil(ENOUGH_ANSWERS / max(1, len(ranks))))
        return self.verdict() if all(self._ended[rank].issuperset(first) for rank in ranks) else None

    def verdict(self) -> str | None:
        """Return why the endpoint cannot be used, if all requests so far were refused and there was at least one."""
        if self._usable or not self._reasons:
            return None
        count = self._reasons.total()
        what = f"all {count} requests so far" if count > 1 else "the only request"
        reasons = "; ".join(reason for reason, _count in self._reasons.most_common(_MOST_REASONS))
        return f"the endpoint cannot be used: {what} failed. {reasons}"


def _is_refusal(record: RequestRecord) -> bool:
    """Return whether the same request would fail again: the endpoint refused it, or is not an endpoint of the API."""
    if record.outcome is not Outcome.FAILED or record.chunks:
        return False
    return record.error_code in _CODES or record.http_status in _STATUSES
