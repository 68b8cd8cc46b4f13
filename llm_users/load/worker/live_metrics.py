"""The live metrics that a worker sends once per second if the run has a web interface. Their size is limited and they
can be merged.

They cost nothing per chunk: once per second, the reporter counts the stamps that have arrived since the last time, in
slices that are too short to delay a stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import sub
from typing import Protocol

import gevent

from llm_users.load.protocol.messages import Live, LiveMetrics
from llm_users.load.worker.admission_gate import AdmissionGate
from llm_users.outcome import Outcome
from llm_users.quantile import DurationHistogram
from llm_users.record import RequestRecord

PERIOD_S = 1.0

_SLICE_S = 0.0005
"""The maximum time that counting delays the streams of the process at once."""

_PAUSE_S = 0.002

_UPDATES = 20
"""The number of streams that decode what has arrived in the last second, before a pause."""

_NS = 1_000_000_000

_BUFFERED_CHUNKS, _AT_ONCE_NS = 8, 5_000_000
"""An answer with fewer chunks or a longer span does not count as buffered (``users.buffering``)."""

_ROW_WITHIN_NS = 200_000_000
"""The row of an answer is created within this time of its end, unless the client is overloaded."""


class Stream(Protocol):
    """The chunks of one answer as they arrive (``users.chunks``). The reporter only reads them."""

    stamps_ns: list[int]
    clocks_ns: list[int]
    choice_at: dict[int, int]


class LiveReporter:
    """Watches the requests in flight of one worker and sends the changes once per second."""

    def __init__(self, gate: AdmissionGate, send: Callable[[Live], None], run_id: str, worker: int) -> None:
        self._gate = gate
        self._send = send
        self._run_id = run_id
        self._worker = worker
        self._streams: dict[object, _Watched] = {}
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._tokens_of_ended = self._chunks_of_ended = 0
        self._clock_mark_s, self._cpu_mark_s = time.monotonic(), time.process_time()
        self._forget_counts()

    # Calls from the users of the process, once per request.

    def began(self, key: object, stream: Stream, sent_ns: int, update: Callable[[], None]) -> None:
        """Start to watch an answer. ``sent_ns`` is its t0, and ``update()`` updates its chunks soon."""
        self._streams[key] = _Watched(stream, sent_ns, update)

    def ended(self, key: object, record: RequestRecord) -> None:
        """Count a request that is over, with any outcome. Its record is complete."""
        watched = self._streams.pop(key, None)
        if watched is not None:
            self._count(watched, timed=not record.buffered)
        if record.output_tokens and record.chunks and not record.buffered:
            self._tokens_of_ended += record.output_tokens
            self._chunks_of_ended += record.chunks
        if record.output_tokens and not record.streamed:
            self._unstreamed_tokens += record.output_tokens
        outcome = record.outcome
        if outcome is Outcome.ABORTED:
            return
        self._requests += 1
        if record.measured:
            self._done[record.stage] = self._done.get(record.stage, 0) + 1
        if outcome.is_failure:
            self._failed += 1
            self._throttled += outcome is Outcome.THROTTLED
        elif outcome is Outcome.OK and record.tpot_s is not None:
            self._tpot.add(record.tpot_s)

    def add_lag(self, lag_s: float, own_s: float | None = None) -> None:
        """Add the delay of a short sleep's wake-up, and the process's own part of it (from the lag probe)."""
        self._lag.add(lag_s)
        if own_s is not None:
            self._lag_own.add(own_s)

    # Reports.

    def start(self) -> None:
        self._clock_mark_s, self._cpu_mark_s = time.monotonic(), time.process_time()
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Send the last report. No request is in flight any more."""
        if self._greenlet is None:
            return
        self._greenlet.kill(block=False)
        self._greenlet = None
        self._report()

    def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            due_s += PERIOD_S
            gevent.sleep(max(0.0, due_s - time.monotonic()))
            self._look()
            self._report()

    def _look(self) -> None:
        """Count the new chunks of every stream, in slices."""
        for number, watched in enumerate(list(self._streams.values()), 1):
            watched.update()
            if number % _UPDATES == 0:
                gevent.sleep(_PAUSE_S)
        gevent.sleep(_PAUSE_S)
        limit_s = time.perf_counter() + _SLICE_S
        for watched in list(self._streams.values()):
            if not watched.may_be_buffered():
                self._count(watched, timed=True)  # a stream that ended during a pause has no new chunks
            if time.perf_counter() > limit_s:
                gevent.sleep(_PAUSE_S)
                limit_s = time.perf_counter() + _SLICE_S

    def _count(self, watched: _Watched, *, timed: bool) -> None:
        """Count the chunks that arrived since the last time."""
        stream, seen = watched.stream, watched.seen
        count = len(stream.stamps_ns)
        if count == seen:
            return
        watched.seen = count
        self._chunks += count - seen
        if not timed:
            return
        stamps_ns = stream.stamps_ns[max(0, seen - 1) :]
        if 0 in stamps_ns:  # the kernel gave no timestamp
            stamps_ns = stream.clocks_ns[max(0, seen - 1) : count]
        if not seen:
            self._ttft.add((stamps_ns[0] - watched.sent_ns) / _NS)
        if not stream.choice_at:
            self._gap.add_ns(map(sub, stamps_ns[1:], stamps_ns))
            return
        for index, stamp_ns in enumerate(stamps_ns, max(0, seen - 1)):
            choice = stream.choice_at.get(index, 0)
            last_ns = watched.last_ns.get(choice)
            if last_ns is not None and index >= seen:
                self._gap.add_ns((stamp_ns - last_ns,))
            watched.last_ns[choice] = stamp_ns

    def _report(self) -> None:
        now_s, cpu_s = time.monotonic(), time.process_time()
        passed_s = max(1e-3, now_s - self._clock_mark_s)
        gate = self._gate
        per_chunk = self._tokens_of_ended / self._chunks_of_ended if self._chunks_of_ended else 1.0
        metrics = LiveMetrics(
            stage=gate.plan.stage,
            phase=gate.phase,
            measured_s=gate.measured_s,
            in_flight=gate.in_flight,
            done=self._done,
            requests=self._requests,
            failed=self._failed,
            throttled=self._throttled,
            tokens=self._chunks * per_chunk + self._unstreamed_tokens,
            cpu=(cpu_s - self._cpu_mark_s) / passed_s,
            ttft=dict(self._ttft.counts),
            gap=dict(self._gap.counts),
            tpot=dict(self._tpot.counts),
            lag=dict(self._lag.counts),
            lag_own=dict(self._lag_own.counts),
        )
        self._clock_mark_s, self._cpu_mark_s = now_s, cpu_s
        self._forget_counts()
        self._send(Live(self._run_id, self._worker, metrics=metrics))

    def _forget_counts(self) -> None:
        self._chunks = self._requests = self._failed = self._throttled = 0
        self._unstreamed_tokens = 0
        self._done: dict[int, int] = {}
        self._ttft, self._gap, self._tpot, self._lag, self._lag_own = (DurationHistogram() for _ in range(5))


@dataclass(slots=True, eq=False)
class _Watched:
    """A request in flight, and how many of its chunks are counted."""

    stream: Stream
    sent_ns: int
    update: Callable[[], None]
    seen: int = 0
    last_ns: dict[int, int] = field(default_factory=dict)  # last stamp of each choice, if there are several choices

    def may_be_buffered(self) -> bool:
        """Return whether an answer that arrived at once still waits for its row.

        The row tells whether a proxy held the answer back.
        """
        clocks_ns = self.stream.clocks_ns
        if self.seen or len(clocks_ns) < _BUFFERED_CHUNKS or clocks_ns[-1] - clocks_ns[0] >= _AT_ONCE_NS:
            return False
        return time.monotonic_ns() - clocks_ns[-1] < _ROW_WITHIN_NS
