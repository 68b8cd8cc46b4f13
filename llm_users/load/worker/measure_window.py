"""The MEASURE window of a stage on one worker, and what happens inside it.

The window consists of spans: one as a rule, more when the process had nothing left to start and was then given more.
Everything that becomes a rate (tokens, requests, time in flight) is counted over these spans and divided by their
length. Knows moments of the monotonic clock in nanoseconds; nothing of phases, budgets or users.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

_NS = 1_000_000_000

SHORTEST = 0.5
"""A window shorter than this share of a mean latency says more about the first wave of requests than about the server;
it stays open until the last measured request has ended."""


class MeasureWindow:
    """From the first measured start to the last one, or as long as the stage is measured."""

    def __init__(self, in_flight: int = 0, resting: int = 0) -> None:
        """Requests in flight and users in a pause at the beginning."""
        self._in_flight, self._resting = in_flight, resting
        self.forget()

    def forget(self) -> None:
        """Start without a window; what is in flight stays so."""
        self._closed: list[tuple[int, int]] = []
        self._start_ns = 0  # of the open span; 0: there is none
        self._mark_ns = 0
        self._latency_sum_ns = self._latencies = 0
        self._admitted_ns = self._resting_ns = self._called_ns = 0
        self.lingers = False
        """Nothing more starts, and the window stays open until the last measured request has ended."""
        self.widened = False
        """It stayed open until the last measured request had ended."""

    def next(self) -> MeasureWindow:
        """Return the window of the next stage: what is in flight now is in flight there."""
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
        """Whether it has been opened in the stage."""
        return bool(self._start_ns or self._closed)

    @property
    def is_open(self) -> bool:
        return bool(self._start_ns)

    def age_s(self, now_ns: int) -> float:
        """How long ago it was first opened, in seconds, whether or not it is open."""
        return (now_ns - self._first_ns) / _NS

    @property
    def spans_ns(self) -> list[tuple[int, int]]:
        """Starts and ends of the spans that are over."""
        return list(self._closed)

    @property
    def length_s(self) -> float:
        """Length of the spans that are over, in seconds."""
        return sum(end_ns - start_ns for start_ns, end_ns in self._closed) / _NS

    @property
    def _first_ns(self) -> int:
        return self._closed[0][0] if self._closed else self._start_ns

    # What lies inside, as far as the window is known.

    def count_inside(self, moments_ns: Sequence[int]) -> int:
        """How many of these moments, which are past and in order, lie inside: after the start, up to the end.

        With both borders inside, a wave of answers that end at one moment would count at either border.
        """
        if not moments_ns:
            return 0
        if self._start_ns and self._start_ns < moments_ns[0]:
            return len(moments_ns)
        spans = list(self._spans_until(moments_ns[-1]))
        return sum(any(start_ns < moment_ns <= end_ns for start_ns, end_ns in spans) for moment_ns in moments_ns)

    def share_of(self, stamps_ns: Sequence[int], end_ns: int) -> float | None:
        """The fraction of an answer that arrived inside: of its chunks, or without any, all of it at its end.

        None when the answer has neither chunks nor an end.
        """
        if stamps_ns:
            return self.count_inside(stamps_ns) / len(stamps_ns)
        return float(self.count_inside((end_ns,))) if end_ns else None

    def add_call(self, start_ns: int, end_ns: int) -> None:
        """A request was in flight for this time, which is over. What lies outside the window does not count."""
        for span_start_ns, span_end_ns in self._spans_until(end_ns):
            self._called_ns += max(0, min(end_ns, span_end_ns) - max(start_ns, span_start_ns))

    def _spans_until(self, now_ns: int) -> chain[tuple[int, int]]:
        """All spans; one that is open goes on until now at least."""
        return chain(self._closed, [(self._start_ns, now_ns)] if self._start_ns else [])

    # Whether it is long enough.

    def add_latency(self, latency_ns: int) -> None:
        """A measured request has succeeded after this time."""
        self._latency_sum_ns += latency_ns
        self._latencies += 1

    def is_short_at(self, end_ns: int) -> bool:
        """Whether an end at this moment would leave it shorter than half the mean latency of what has ended.

        True as well when nothing has ended, since then no window says anything about the server.
        """
        length_ns = end_ns - self._start_ns + sum(end - start for start, end in self._closed)
        return not self._latencies or length_ns < SHORTEST * self._latency_sum_ns / self._latencies

    # Requests in flight, and users in a pause of their own.

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def in_flight_s(self) -> float:
        """Integral of the requests in flight over the window, from sending to the end of the answer.

        Requests that have not ended are not in it yet. The time in which this process makes the row of an answer that
        has ended is left out: a late client does not add load.
        """
        return self._called_ns / _NS

    @property
    def present_s(self) -> float:
        """Integral of the users in a request, from its admission to its row, or between two, over the window."""
        return (self._admitted_ns + self._resting_ns) / _NS

    @property
    def load_s(self) -> float:
        """Integral of the users inside a call or in a pause of their own over the window."""
        return (self._called_ns + self._resting_ns) / _NS

    def count(self, change: int, now_ns: int) -> None:
        """From now on ``change`` more requests have been admitted and have no row yet."""
        self._add_up(now_ns)
        self._in_flight += change

    def count_resting(self, change: int, now_ns: int) -> None:
        """From now on ``change`` more users are in their own pause."""
        self._add_up(now_ns)
        self._resting += change

    def _add_up(self, moment_ns: int) -> None:
        if self._start_ns and moment_ns > self._mark_ns:
            self._admitted_ns += self._in_flight * (moment_ns - self._mark_ns)
            self._resting_ns += self._resting * (moment_ns - self._mark_ns)
            self._mark_ns = moment_ns
