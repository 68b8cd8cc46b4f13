"""What a stage measures on one worker: its window, its totals, and its samples.

``admission_gate`` reports when measured requests start and end; the users report the outcome of each call. Moments are
nanoseconds of the monotonic clock and are arguments, so that a simulated clock can drive the same code. The module does
not depend on phases, quotas or users.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from llm_users.load.protocol.stage import StagePlan, StageTotals
from llm_users.load.worker.measure_window import MeasureWindow
from llm_users.load.worker.permits import Permit
from llm_users.load.worker.stage_sampler import StageSampler
from llm_users.record import StageLoad

_NS = 1_000_000_000


class Measurement:
    """The measurement of one stage after another. Requests in flight and users in a pause carry over."""

    def __init__(self, window: MeasureWindow | None = None) -> None:
        self.window = window or MeasureWindow()
        self.begin(StagePlan(stage=0, load=StageLoad()), (0, 0), 0)

    def next(self) -> Measurement:
        """Return the measurement of the next stage. This one still counts requests of its own stage that end."""
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
