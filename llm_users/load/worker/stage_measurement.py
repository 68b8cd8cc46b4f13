"""What a stage measures on one worker: its window, its totals, and its samples.

``admission_gate`` reports when measured requests start and end; the users report the outcome of each call. Moments are
nanoseconds of the monotonic clock and are arguments, so that a simulated clock can drive the same code. The module does
not depend on phases, quotas or users.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain

from llm_users.load.protocol.stage import MOST_GAP_MODELS, StagePlan, StageTotals
from llm_users.load.worker import machine_cpu
from llm_users.load.worker.permits import Permit
from llm_users.quantile import DurationHistogram
from llm_users.record import StageLoad

_NS = 1_000_000_000

SHORTEST = 0.5
"""A window shorter than this fraction of a mean latency describes the first wave of requests rather than the server.
Such a window stays open until the last measured request has ended."""


class Measurement:
    """The measurement of one stage after another. Requests in flight and users in a pause carry over."""

    def __init__(self, window: MeasureWindow | None = None) -> None:
        self.window = window or MeasureWindow()
        self.begin(StagePlan(stage=0, load=StageLoad()), (0, 0), 0)

    def next(self) -> Measurement:
        """Return the measurement of the next stage. The present one continues to count requests of its stage."""
        return Measurement(self.window.next())

    def begin(self, plan: StagePlan, starts: tuple[int, int], now_ns: int) -> None:
        """Begin a stage. ``starts``: starts and forced starts of the process before it."""
        self._plan = plan
        self._told_ns = now_ns
        self._unfinished = 0  # measured requests that have started and not ended
        self._last_end_ns = 0  # end of the last measured request
        self.totals = StageTotals(plan.stage, plan.worker)
        self.samples = StageSampler(starts)
        self.window.forget()

    def told(self, now_ns: int) -> None:
        """Set the moment of GO, from which the moments of the stage count."""
        self._told_ns = now_ns

    # Requests.

    def started(self, start_ns: int, now_ns: int) -> None:
        """Count a measured request that starts, and open the window unless it is open."""
        self._unfinished += 1
        self.window.lingers = False  # more requests start
        if not self.window.is_open:
            self.open(start_ns, now_ns)

    def followed(self) -> None:
        """Count a measured request that follows from one that has started before."""
        self._unfinished += 1

    def account(
        self, permit: Permit, start_ns: int, end_ns: int, stamps_ns: Sequence[int], *, ok: bool
    ) -> float | None:
        """Count a call that has ended, and return its ``window_share``.

        ``start_ns``: t0, or the start of connecting; 0: nothing was sent. ``end_ns``: the end of the answer, or of the
        attempt; 0: unknown. ``stamps_ns``: arrivals of its chunks in ascending order; empty if unknown.
        """
        if start_ns and end_ns:
            self.window.add_call(start_ns, end_ns)
            if permit.measured and permit.plan.stage == self._plan.stage:
                self._count_measured(start_ns, end_ns, is_arrival=permit.arrival, ok=ok)
        return self.window.share_of(stamps_ns, end_ns)

    def ended(self, permit: Permit) -> None:
        """Note that a request is over and has its row."""
        if permit.measured and permit.plan.stage == self._plan.stage:
            self._unfinished -= 1
            if self.window.lingers and not self._unfinished:
                self.close(self._last_end_ns or time.monotonic_ns())

    def _count_measured(self, start_ns: int, end_ns: int, *, is_arrival: bool, ok: bool) -> None:
        self._last_end_ns = max(self._last_end_ns, end_ns)
        if ok:
            self.window.add_latency(end_ns - start_ns)
        if is_arrival:
            totals, sent_s = self.totals, (start_ns - self._told_ns) / _NS
            totals.sent += 1
            totals.first_sent_s = sent_s if totals.first_sent_s is None else min(totals.first_sent_s, sent_s)
            totals.last_sent_s = sent_s if totals.last_sent_s is None else max(totals.last_sent_s, sent_s)

    # The window.

    def open(self, start_ns: int, now_ns: int) -> None:
        """Open the window at ``start_ns``, which may lie in the future."""
        if not self.window.exists:
            self.totals.measure_started_at = time.time() + (start_ns - now_ns) / _NS
        self.window.open(start_ns)
        self.samples.mark_cpu()

    def end(self, end_ns: int) -> None:
        """End the window because nothing more starts: here, or if that is too soon, with the last measured request.

        The decision is made before the row of any affected request exists.
        """
        if not self.window.is_open or self.window.lingers:
            return
        if self._unfinished and self.window.is_short_at(end_ns):
            self.window.lingers = True
        else:
            self.close(end_ns)

    def close(self, end_ns: int) -> None:
        """Close the window at ``end_ns`` if it is open."""
        if not self.window.is_open:
            return
        window, totals = self.window, self.totals
        window.close(end_ns)
        self.samples.add_cpu(totals)
        totals.window_s, totals.widened = window.length_s, int(window.widened)
        totals.windows = [((start - self._told_ns) / _NS, (end - start) / _NS) for start, end in window.spans_ns]

    def report(self, starts: tuple[int, int], quota: int | None) -> StageTotals:
        """Return the totals after all requests have ended. ``starts``: the counters of the process now."""
        self.samples.fill(self.totals, starts)
        self.totals.present_s = self.window.present_s
        self.totals.in_flight_s = self.window.in_flight_s  # includes requests that were in flight at the end
        self.totals.load_s = self.window.load_s
        self.totals.quota = quota
        return self.totals


class StageSampler:
    """The samples of one stage: lags, chunk gaps, starts, CPU."""

    def __init__(self, starts: tuple[int, int]) -> None:
        """Create empty samples. ``starts``: starts and forced starts of the process before the stage."""
        self._lag, self._lag_own = DurationHistogram(), DurationHistogram()
        self._gaps: dict[str, DurationHistogram] = {}
        self._starts_before, self._forced_before = starts
        self._cpu_mark_s = 0.0
        self._machine_mark: machine_cpu.CpuTimes | None = None
        self._machine_s = 0.0  # observed time of the machine, over all parts of the window

    def mark_cpu(self) -> None:
        """Remember the CPU counters at the opening of the window."""
        self._cpu_mark_s = time.process_time()
        self._machine_mark = machine_cpu.cpu_times()

    def add_cpu(self, totals: StageTotals) -> None:
        """Add the CPU of this process and of the machine to the totals when the window closes."""
        totals.cpu_s += time.process_time() - self._cpu_mark_s
        totals.machine, totals.machine_cores = machine_cpu.identity(), machine_cpu.cores()
        before, after = self._machine_mark, machine_cpu.cpu_times()
        use = machine_cpu.cpu_use(before, after) if before is not None and after is not None else None
        if before is None or after is None or use is None:
            return
        part_s = after.clock_s - before.clock_s
        self._machine_s += part_s
        weight = part_s / self._machine_s  # 1 unless the window had earlier parts
        totals.machine_busy_share = _mixed(totals.machine_busy_share, use.busy_share, weight)
        totals.machine_steal_share = _mixed(totals.machine_steal_share, use.steal_share, weight)

    def add_lag(self, lag_s: float, own_s: float | None = None) -> None:
        """Add the delay of a short sleep's wake-up, and the part in which the process did not wait for a CPU."""
        self._lag.add(lag_s)
        if own_s is not None:
            self._lag_own.add(own_s)

    def gaps(self, model: str) -> DurationHistogram:
        """Return the histogram of the chunk gaps of a model's measured requests that succeeded.

        A locustfile can invent model names, so all models after the first ``MOST_GAP_MODELS`` - 1 share one histogram.
        """
        histogram = self._gaps.get(model)
        if histogram is None:
            key = model if len(self._gaps) < MOST_GAP_MODELS - 1 else ""
            histogram = self._gaps.setdefault(key, DurationHistogram())
        return histogram

    def fill(self, totals: StageTotals, starts: tuple[int, int]) -> None:
        """Write the samples into the totals. ``starts``: the counters of the process now."""
        totals.starts = starts[0] - self._starts_before
        totals.forced = starts[1] - self._forced_before
        totals.lag_counts = dict(self._lag.counts)
        totals.lag_own_counts = dict(self._lag_own.counts)
        totals.gap_counts = {model: dict(histogram.counts) for model, histogram in self._gaps.items()}


def _mixed(before: float | None, latest: float, weight: float) -> float:
    return latest if before is None else (1 - weight) * before + weight * latest


class MeasureWindow:
    """The time from the first to the last measured start, or the time for which the stage is measured.

    The window consists of spans: usually one, and more if the process had nothing left to start and then received a
    larger share. All counts for rates (tokens, requests, time in flight) refer to these spans and are divided by their
    length.
    """

    def __init__(self, in_flight: int = 0, resting: int = 0) -> None:
        """Create a window with the present number of requests in flight and of users in a pause."""
        self.in_flight, self._resting = in_flight, resting
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
        return MeasureWindow(self.in_flight, self._resting)

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
        first_ns = self._closed[0][0] if self._closed else self._start_ns
        return (now_ns - first_ns) / _NS

    @property
    def spans_ns(self) -> list[tuple[int, int]]:
        """Return the starts and ends of the closed spans."""
        return list(self._closed)

    @property
    def length_s(self) -> float:
        """Return the total length of the closed spans, in seconds."""
        return sum(end_ns - start_ns for start_ns, end_ns in self._closed) / _NS

    # What lies inside the window as it is known now.

    def count_inside(self, moments_ns: Sequence[int]) -> int:
        """Return how many of these past moments, in ascending order, lie inside: after the start, up to the end.

        The start is excluded, because a wave of answers that end at one moment would otherwise count at both borders.
        """
        if not moments_ns:
            return 0
        if self._start_ns and self._start_ns < moments_ns[0]:
            return len(moments_ns)
        inside = after = 0
        for start_ns, end_ns in self._spans_until(moments_ns[-1]):
            before, after = max(after, bisect_right(moments_ns, start_ns)), bisect_right(moments_ns, end_ns)
            inside += max(0, after - before)
        return inside

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
        self.in_flight += change

    def count_resting(self, change: int, now_ns: int) -> None:
        """Change the number of users in their own pause by ``change`` from now on."""
        self._add_up(now_ns)
        self._resting += change

    def _add_up(self, moment_ns: int) -> None:
        if self._start_ns and moment_ns > self._mark_ns:
            self._admitted_ns += self.in_flight * (moment_ns - self._mark_ns)
            self._resting_ns += self._resting * (moment_ns - self._mark_ns)
            self._mark_ns = moment_ns
