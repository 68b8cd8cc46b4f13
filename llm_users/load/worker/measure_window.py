"""The MEASURE window of a stage on one worker, and the counts inside it.

The window consists of spans: usually one, and more if the process had nothing left to start and then received a larger
share. All counts for rates (tokens, requests, time in flight) refer to these spans and are divided by their length.
Moments are nanoseconds of the monotonic clock. The module does not depend on phases, quotas or users.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

_NS = 1_000_000_000

SHORTEST = 0.5
"""A window shorter than this fraction of a mean latency describes the first wave of requests rather than the server.
Such a window stays open until the last measured request has ended."""


class MeasureWindow:
    """The time from the first to the last measured start, or the time for which the stage is measured."""

    def __init__(self, in_flight: int = 0, resting: int = 0) -> None:
        """Create a window with the present number of requests in flight and of users in a pause."""
        self._in_flight, self._resting = in_flight, resting
        self.forget()

    def forget(self) -> None:
        """Reset the window. Requests in flight stay counted."""
        self._closed: list[tuple[int, int]] = []
        self._start_ns = 0  # start of the open span; 0: no span is open
        self._mark_ns = 0
        self._latency_sum_ns = self._latencies = 0
        self._admitted_ns = self._resting_ns = self._called_ns = 0
        self.lingers = False
        """Nothing more starts, and the window stays open until the last measured request has ended."""
        self.widened = False
        """The window stayed open until the last measured request had ended."""

    def next(self) -> MeasureWindow:
        """Return the window of the next stage, with the requests that are in flight now."""
        return MeasureWindow(self._in_flight, self._resting)

    def open(self, start_ns: int) -> None:
        """Begin a span."""
        self._start_ns = self._mark_ns = start_ns

    def close(self, end_ns: int) -> None:
        """End the span."""
        end_ns = max(end_ns, self._start_ns)
        self._add_up(end_ns)
        self._closed.append((self._start_ns, end_ns))
        self._start_ns = 0
        self.widened, self.lingers = self.lingers, False

    @property
    def exists(self) -> bool:
        """Return whether the window has been opened in the stage."""
        return bool(self._start_ns or self._closed)

    @property
    def is_open(self) -> bool:
        return bool(self._start_ns)

    def age_s(self, now_ns: int) -> float:
        """Return how long ago the window was first opened, in seconds, whether or not it is open now."""
        return (now_ns - self._first_ns) / _NS

    @property
    def spans_ns(self) -> list[tuple[int, int]]:
        """Return the starts and ends of the closed spans."""
        return list(self._closed)

    @property
    def length_s(self) -> float:
        """Return the total length of the closed spans, in seconds."""
        return sum(end_ns - start_ns for start_ns, end_ns in self._closed) / _NS

    @property
    def _first_ns(self) -> int:
        return self._closed[0][0] if self._closed else self._start_ns

    # What lies inside the window as it is known now.

    def count_inside(self, moments_ns: Sequence[int]) -> int:
        """Return how many of these past moments, in ascending order, lie inside: after the start, up to the end.

        The start is excluded, because a wave of answers that end at one moment would otherwise count at both borders.
        """
        if not moments_ns:
            return 0
        if self._start_ns and self._start_ns < moments_ns[0]:
            return len(moments_ns)
        spans = list(self._spans_until(moments_ns[-1]))
        return sum(any(start_ns < moment_ns <= end_ns for start_ns, end_ns in spans) for moment_ns in moments_ns)

    def share_of(self, stamps_ns: Sequence[int], end_ns: int) -> float | None:
        """Return the fraction of an answer that arrived inside: of its chunks, or without chunks, all of it at its end.

        None if the answer has neither chunks nor an end.
        """
        if stamps_ns:
            return self.count_inside(stamps_ns) / len(stamps_ns)
        return float(self.count_inside((end_ns,))) if end_ns else None

    def add_call(self, start_ns: int, end_ns: int) -> None:
        """Add the time in flight of a request that has ended. Time outside the window does not count."""
        for span_start_ns, span_end_ns in self._spans_until(end_ns):
            self._called_ns += max(0, min(end_ns, span_end_ns) - max(start_ns, span_start_ns))

    def _spans_until(self, now_ns: int) -> chain[tuple[int, int]]:
        """Return all spans. An open span ends now at the earliest."""
        return chain(self._closed, [(self._start_ns, now_ns)] if self._start_ns else [])

    # The length of the window.

    def add_latency(self, latency_ns: int) -> None:
        """Add the latency of a measured request that succeeded."""
        self._latency_sum_ns += latency_ns
        self._latencies += 1

    def is_short_at(self, end_ns: int) -> bool:
        """Return whether an end at this moment would make the window shorter than half the mean latency so far.

        Also True if no request has ended, because then no window describes the server.
        """
        length_ns = end_ns - self._start_ns + sum(end - start for start, end in self._closed)
        return not self._latencies or length_ns < SHORTEST * self._latency_sum_ns / self._latencies

    # Requests in flight, and users in their own pause.

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def in_flight_s(self) -> float:
        """Return the integral of the requests in flight over the window, from sending to the end of the answer.

        The integral excludes requests that have not ended. It also excludes the time in which this process creates the
        row of an answer: a late client does not add load.
        """
        return self._called_ns / _NS

    @property
    def present_s(self) -> float:
        """Return the integral over the window of the users in a request, from admission to row, or between two."""
        return (self._admitted_ns + self._resting_ns) / _NS

    @property
    def load_s(self) -> float:
        """Return the integral of the users inside a call or in their own pause over the window."""
        return (self._called_ns + self._resting_ns) / _NS

    def count(self, change: int, now_ns: int) -> None:
        """Change the number of admitted requests without a row by ``change`` from now on."""
        self._add_up(now_ns)
        self._in_flight += change

    def count_resting(self, change: int, now_ns: int) -> None:
        """Change the number of users in their own pause by ``change`` from now on."""
        self._add_up(now_ns)
        self._resting += change

    def _add_up(self, moment_ns: int) -> None:
        if self._start_ns and moment_ns > self._mark_ns:
            self._admitted_ns += self._in_flight * (moment_ns - self._mark_ns)
            self._resting_ns += self._resting * (moment_ns - self._mark_ns)
            self._mark_ns = moment_ns
