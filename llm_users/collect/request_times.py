"""Start and end times of the requests of a stage, kept until the steadiness of the stage is determined."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

from llm_users.outcome import Outcome
from llm_users.record import RequestRecord

MOST_TIMES = 50_000
"""Maximum number of requests kept per stage (0.9 MB); above it, every second, fourth, ... request in arrival order."""

Judge = Callable[["array[float]", "array[float]", "array[int]", bool], str]
"""Maps starts, ends, the measured flags and whether the loop is open to the value of the column ``steadiness``."""


class RequestTimes:
    """The request times of one stage, in seconds of the wall clock. An open loop counts from the intended start."""

    def __init__(self) -> None:
        self.starts = array("d")
        self.ends = array("d")
        self.measured = array("b")
        self.turns = False
        """Whether there are conversations, whose later turns take longer at any load."""
        self._every = 1
        self._seen = 0

    def add(self, record: RequestRecord) -> None:
        """Add one row, measured or not."""
        if record.started_at is None:
            return
        self._seen += 1
        if self._seen % self._every:
            return
        duration_s = record.end_to_end_latency_s
        if duration_s is None:
            duration_s = math.inf if record.outcome is Outcome.ABORTED else record.connect_s or 0.0
        is_open = record.load.is_open
        self.starts.append(record.started_at - ((record.queue_s or 0.0) if is_open else 0.0))
        self.ends.append(record.started_at + duration_s)
        # A closed loop is judged by its latencies, which only successful requests have.
        self.measured.append(int(bool(record.measured) and (is_open or record.ok)))
        self.turns = self.turns or (record.turn or 1) > 1
        if len(self.starts) > MOST_TIMES:
            self._every *= 2
            self.starts, self.ends, self.measured = self.starts[1::2], self.ends[1::2], self.measured[1::2]

    def judged(self, judge: Judge, *, is_open: bool) -> str:
        """Return the steadiness of the stage; empty when it cannot be determined."""
        if self.turns and not is_open:
            return ""
        return judge(self.starts, self.ends, self.measured, is_open)
