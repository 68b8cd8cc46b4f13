"""What a stage measures on one worker: its window, its totals, what is sampled meanwhile.

``admission_gate`` says when measured requests start and end; the users say what became of each call. Moments are
nanoseconds of the monotonic clock and are given, so that a simulated clock can drive the same code. Knows nothing of
phases, budgets or users.
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
    """Of one stage after the other; requests in flight and users in a pause are carried over."""

    def __init__(self, window: MeasureWindow | None = None) -> None:
        self.window = window or MeasureWindow()
        self.begin(StagePlan(stage=0, load=StageLoad()), (0, 0), 0)

    def next(self) -> Measurement:
        """Return the measurement of the next stage. This one still counts the requests of its own stage that end."""
        return Measurement(self.window.next())

    def begin(self, plan: StagePlan, starts: tuple[int, int], now_ns: int) -> None:
        """A stage comes. ``starts``: starts and forced starts of the process before it."""
        self._plan = plan
        self._told_ns = now_ns
        self._unfinished = 0  # measured requests that have started and not ended
        self._last_end_ns = 0  # of a measured request
        self.totals = StageTotals(plan.stage, plan.worker)
        self.samples = StageSampler(starts)
        self.window.forget()

    def told(self, now_ns: int) -> None:
        """The coordinator has said that the stage starts: its moments count from here."""
        self._told_ns = now_ns

    # Requests.

    def started(self, start_ns: int, now_ns: int) -> None:
        """A measured request starts, which opens the window unless it is open."""
        self._unfinished += 1
        self.window.lingers = False  # more starts after all
        if not self.window.is_open:
            self.open(start_ns, now_ns)

    def followed(self) -> None:
        """A measured request starts that belongs to one that has started before."""
        self._unfinished += 1

    def account(
        self, permit: Permit, start_ns: int, end_ns: int, stamps_ns: Sequence[int], *, ok: bool
    ) -> float | None:
        """Count a call that has ended; returns its ``window_share``.

        ``start_ns``: t0, or the start of connecting; 0: nothing was sent. ``end_ns``: the end of the answer, or of the
        attempt; 0: unknown. ``stamps_ns``: arrivals of its chunks in order; empty where they are not known.
        """
        if start_ns and end_ns:
            self.window.add_call(start_ns, end_ns)
            if permit.measured and permit.plan.stage == self._plan.stage:
                self._count_measured(start_ns, end_ns, is_arrival=permit.arrival, ok=ok)
        return self.window.share_of(stamps_ns, end_ns)

    def ended(self, permit: Permit) -> None:
        """A request is over, and its row is made."""
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
        """The window opens at ``start_ns``, which may be a moment from now."""
        if not self.window.exists:
            self.totals.measure_started_at = time.time() + (start_ns - now_ns) / _NS
        self.window.open(start_ns)
        self.samples.mark_cpu()

    def end(self, end_ns: int) -> None:
        """Nothing more is to start: the window ends here, or, if that is too soon, with the last measured request.

        Which of the two is decided before the row of any request that it concerns is made.
        """
        if not self.window.is_open or self.window.lingers:
            return
        if self._unfinished and self.window.is_short_at(end_ns):
            self.window.lingers = True
        else:
            self.close(end_ns)

    def close(self, end_ns: int) -> None:
        """The window ends here, if it is open."""
        if not self.window.is_open:
            return
        window, totals = self.window, self.totals
        window.close(end_ns)
        self.samples.add_cpu(totals)
        totals.window_s, totals.widened = window.length_s, int(window.widened)
        totals.windows = [((start - self._told_ns) / _NS, (end - start) / _NS) for start, end in window.spans_ns]

    def report(self, starts: tuple[int, int], quota: int | None) -> StageTotals:
        """The totals, once all requests have ended. ``starts``: those of the process by now."""
        self.samples.fill(self.totals, starts)
        self.totals.present_s = self.window.present_s
        self.totals.in_flight_s = self.window.in_flight_s  # requests that were in flight at the end are in it now
        self.totals.load_s = self.window.load_s
        self.totals.quota = quota
        return self.totals
