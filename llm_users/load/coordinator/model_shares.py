"""The shares of several models in the load of a stage, for the log.

With ``--llm-targets`` the models share the requests, so the number of users that each of them has depends on the
latencies. ``StageLoad.share_text`` has the rule.
"""

from __future__ import annotations

from collections import defaultdict

from llm_users.record import RequestRecord, StageLoad


class ModelShares:
    """The time and the number of the measured requests of each stage and model."""

    def __init__(self) -> None:
        self._busy_s: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._counts: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, record: RequestRecord) -> None:
        """Add the row of a request."""
        if record.measured:
            self._busy_s[record.stage][record.model] += record.end_to_end_latency_s or 0.0
            self._counts[record.stage][record.model] += 1

    def text(self, stage: int, load: StageLoad) -> str:
        """Return how the models share the load of a stage; "" for fewer than two models."""
        return load.share_text((self._counts if load.is_open else self._busy_s)[stage])
