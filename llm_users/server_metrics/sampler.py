"""Samples the metrics of the servers during a run, on the coordinator only.

A greenlet reads gauges and counters once a second. Around every stage, while no request is in flight, all metrics are
read, so the differences cover exactly the requests of the stage. No failure of a server ends or delays a run: after
``_MOST_FAILURES`` failures in a row a server is not asked again, and a note says why.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import gevent

from llm_users.record import ServerMetricRecord
from llm_users.server_metric import COUNTER, METRICS
from llm_users.server_metrics.endpoint import MetricsEndpoint, NoMetrics
from llm_users.server_metrics.exposition import NotMetrics, Reading, engine_of, read
from llm_users.server_metrics.stage_window import StageWindow

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
_MOST_FAILURES = 3
_KEPT_S = 600
_SETTLE_S = 0.1
"""A server may count the last token of a stage a moment after it has sent it."""


class Sample(NamedTuple):
    """What a server said at one time. Counters are rates per second; ``time_s`` is a Unix time."""

    number: int
    time_s: float
    server: str
    engine: str
    values: Mapping[str, float]


class ServerMetrics:
    """The servers of one run. ``note`` gets each problem once.

    Of ``sources``, only the servers that publish metrics of a known engine are sampled. ``asked``: the user named the
    URLs, so a server without metrics is worth a note.
    """

    def __init__(
        self,
        sources: Sequence[MetricsEndpoint],
        *,
        asked: bool,
        note: Callable[[str], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._note = note
        self._interval_s = interval_s
        self._numbers = 0
        self._samples: deque[Sample] = deque()
        self._stopped = False
        watched = [_Watched(source) for source in sources]
        gevent.joinall([gevent.spawn(server.probe) for server in watched])
        for server in watched:
            if server.engine:
                logger.info("reading the metrics of %s at %s", server.engine, server.source.url)
            elif asked:
                note(f"the server's metrics are not read: {server.source.url} {server.problem}")
        self._servers = [server for server in watched if server.engine]
        self._noted: set[tuple[str, str]] = set()
        self._greenlets = [gevent.spawn(self._watch, server) for server in self._servers]

    @property
    def about(self) -> dict[str, str]:
        """Return the engine of each server that is read, by URL, for the manifest."""
        return {server.source.url: server.engine for server in self._servers}

    @property
    def is_reading(self) -> bool:
        """Return whether a server publishes metrics."""
        return bool(self._servers)

    def latest(self) -> list[Sample]:
        """Return the last sample of each server."""
        last = {sample.server: sample for sample in self._samples}
        return list(last.values())

    def samples_since(self, number: int) -> list[Sample]:
        """Return the samples after the one with this number, of the last ten minutes; 0: all of them."""
        return [sample for sample in self._samples if sample.number > number]

    def stage_starts(self, stage: int) -> None:
        """Note that the users of a stage are let through now. The reading before is that after the last stage."""
        for server in self._servers:
            server.starts(stage)

    def stage_ends(
        self, stage: int, run_id: str, *, is_idle: bool = True, first_at: float | None = None
    ) -> list[ServerMetricRecord]:
        """Read all metrics after the last request of a stage, and return its rows. Waits up to ``TIMEOUT_S``.

        ``first_at`` is the Unix time of its first request, if its users need not have started together.

        Unless the server is idle, the stage ends and the next one begins with this reading.
        """
        ended_s = time.monotonic() if is_idle else None
        for server in self._servers:
            server.stops_sampling(is_idle=is_idle)
            if first_at is not None:
                server.begins_at(stage, time.monotonic() - (time.time() - first_at))
        if is_idle:
            gevent.sleep(_SETTLE_S)
        gevent.joinall([gevent.spawn(server.read_all) for server in self._servers])
        self._report()
        rows = []
        for server in self._servers:
            found, problem = server.ends(stage, ended_s, run_id)
            rows += found
            if problem and not server.gave_up and (server.source.url, problem) not in self._noted:
                self._noted.add((server.source.url, problem))
                self._note(f"stage {stage} has no figures of the server: {server.source.url} {problem}")
        return rows

    def stop(self) -> None:
        """Stop sampling and close the connections."""
        self._stopped = True
        gevent.killall(self._greenlets)
        for server in self._servers:
            server.source.close()

    def _watch(self, server: _Watched) -> None:
        while not self._stopped:
            gevent.sleep(self._interval_s)
            values = server.sample()
            if values:
                self._numbers += 1
                self._samples.append(Sample(self._numbers, time.time(), server.source.url, server.engine, values))
            while self._samples and self._samples[0].time_s < time.time() - _KEPT_S:
                self._samples.popleft()
            self._report()

    def _report(self) -> None:
        for server in self._servers:
            if server.gave_up and not server.reported:
                server.reported = True
                self._note(
                    f"the server's metrics are no longer read: {server.source.url} {server.problem}; the run continues "
                    "without them"
                )


class _Watched:
    """One server with its last readings."""

    def __init__(self, source: MetricsEndpoint) -> None:
        self.source = source
        self.engine = ""
        self.problem = ""
        self.reported = False
        self._failures = 0
        self._whole: Reading | None = None
        self._whole_s = 0.0
        self._was_idle = True
        self._last: tuple[float, Reading] | None = None
        self._windows: dict[int, StageWindow] = {}
        self._sampled: StageWindow | None = None

    @property
    def gave_up(self) -> bool:
        return self._failures >= _MOST_FAILURES

    def probe(self) -> None:
        """Find out which engine it is, and read all its metrics."""
        try:
            body, content_type = self.source.get()
            self.engine = engine_of(body) or ""
            if self.engine:
                self._whole = read(body, content_type, engine=self.engine, histograms=True)
            else:
                self.problem = "answers without metrics of a known server"
        except (NoMetrics, NotMetrics) as error:
            self.engine, self.problem = "", str(error)

    def read_all(self) -> None:
        """Read all metrics. After a failure the reading before the next stage is missing."""
        self._whole = self._read(histograms=True)
        self._whole_s = time.monotonic()

    def sample(self) -> dict[str, float] | None:
        """Read gauges and counters, and return them with the counters as rates. None after a failure."""
        window = self._sampled
        reading = self._read(histograms=False)
        if reading is None:
            self._last = None
            return None
        now_s, earlier = time.monotonic(), self._last
        self._last = now_s, reading
        if window is not None and window is self._sampled:  # the stage had begun before and has not ended since
            window.add(reading)
        values = {}
        for name, value in reading.values.items():
            if METRICS[name].kind != COUNTER:
                values[name] = value
            elif earlier is not None and name in earlier[1].values and value >= earlier[1].values[name]:
                values[name] = (value - earlier[1].values[name]) / (now_s - earlier[0])
        return values

    def starts(self, stage: int) -> None:
        """Open a stage, unless the reading before it is missing."""
        if self._whole is not None:
            self._windows[stage] = self._sampled = StageWindow(
                self._whole, time.monotonic() if self._was_idle else self._whole_s
            )

    def begins_at(self, stage: int, began_s: float) -> None:
        """Note when the first request of a stage began."""
        if stage in self._windows:
            self._windows[stage].begins_at(began_s)

    def stops_sampling(self, *, is_idle: bool) -> None:
        """Note that the last request of the stage has ended. Later readings show the idle server, or the next stage."""
        self._sampled, self._was_idle = None, is_idle

    def ends(self, stage: int, ended_s: float | None, run_id: str) -> tuple[list[ServerMetricRecord], str]:
        """Return the rows of a stage that ended at ``ended_s``, or with the last reading, and why some are missing."""
        ended_s = self._whole_s if ended_s is None else ended_s
        window = self._windows.pop(stage, None)
        if window is None:
            return [], ""
        if self._whole is None:
            return [], self.problem
        rows = window.records(self._whole, ended_s, run_id=run_id, stage=stage, server=self.source.url)
        return rows, "was restarted, or several servers answer there" if window.restarted(self._whole) else ""

    def _read(self, *, histograms: bool) -> Reading | None:
        if self.gave_up:
            return None
        try:
            body, content_type = self.source.get()
            reading = read(body, content_type, engine=self.engine, histograms=histograms)
            if not reading.values and engine_of(body) != self.engine:
                raise NotMetrics(f"answers without metrics of {self.engine}")
        except (NoMetrics, NotMetrics) as error:
            self._failures += 1
            self.problem = str(error)
            return None
        self._failures = 0
        return reading
