"""The MEASURE window of a stage on one load process, and how many requests are in flight inside it.

Knows moments of the monotonic clock; nothing of phases, budgets or users.
"""

from __future__ import annotations

import time

_NS = 1_000_000_000


class MeasureWindow:
    """From the first measured start to the last one, or as long as the stage is measured."""

    def __init__(self) -> None:
        self._start_ns = 0
        self._end_ns: int | None = None
        self.in_flight_s = 0.0
        """Integral of the requests in flight over the window."""
        self._in_flight = 0
        self._mark_ns = 0

    def open(self, start_ns: int) -> None:
        self._start_ns, self._end_ns = start_ns, None
        self._mark_ns = start_ns
        self.in_flight_s = 0.0

    def close(self, end_ns: int) -> float:
        """End it; returns its length in seconds."""
        self._add_up(end_ns)
        self._end_ns = end_ns
        return (end_ns - self._start_ns) / _NS

    def reopen(self) -> float:
        """Go on as if it had never been closed; returns how long it has been open by now."""
        now_ns = time.monotonic_ns()
        self._end_ns = None
        self._mark_ns = now_ns
        return (now_ns - self._start_ns) / _NS

    def forget(self) -> None:
        """There is none any more; what is in flight stays so."""
        self._start_ns, self._end_ns = 0, None

    @property
    def exists(self) -> bool:
        return bool(self._start_ns)

    @property
    def is_open(self) -> bool:
        return bool(self._start_ns) and self._end_ns is None

    @property
    def open_s(self) -> float | None:
        """How long it has been open, in seconds; None before and after."""
        return (time.monotonic_ns() - self._start_ns) / _NS if self.is_open else None

    def share(self, stamps_ns: list[int]) -> int:
        """How many of these stamps, which are in order, lie inside, as far as the window is known."""
        if not self._start_ns:
            return 0
        start_ns, end_ns = self._start_ns, self._end_ns
        if end_ns is None:
            end_ns = time.monotonic_ns()
        if stamps_ns and start_ns <= stamps_ns[0] and stamps_ns[-1] <= end_ns:
            return len(stamps_ns)
        return sum(start_ns <= stamp_ns <= end_ns for stamp_ns in stamps_ns)

    # Requests in flight.

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def count(self, change: int) -> None:
        """So many requests more, or fewer, are in flight from now on."""
        self._add_up(time.monotonic_ns())
        self._in_flight += change

    def discount(self, early_ns: int) -> None:
        """A request was counted so long before it was really sent."""
        if self.is_open:
            self.in_flight_s -= early_ns / _NS

    def _add_up(self, moment_ns: int) -> None:
        if self.is_open and moment_ns > self._mark_ns:
            self.in_flight_s += self._in_flight * (moment_ns - self._mark_ns) / _NS
            self._mark_ns = moment_ns
