"""The state of a run for the page: receives live metrics and rows, takes one sample per second and returns JSON.

It runs in the process of the coordinator, reads the coordinator and its writer, and changes neither.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent

from llm_users.load.protocol.messages import Live
from llm_users.load.protocol.stage import DRAIN, IDLE, MEASURE, RAMP, WARMUP
from llm_users.record import COL, RequestRecord
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from llm_users.secrets import redact
from llm_users.web.banners import Seen, banners
from llm_users.web.follower import Follower
from llm_users.web.history import History
from llm_users.web.run_view import Course
from llm_users.web.stage_series import StageSeries
from llm_users.web.windows import WINDOW_TICKS, Rate, SlidingHistogram
from llm_users.web.workers import Workers

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_TIMES = ("ttft", "gap", "tpot")
_RATES = ("tokens", "requests", "failed", "throttled")
_PHASES: dict[str, str] = {RAMP: "RAMP", WARMUP: "WARM-UP", MEASURE: "MEASURE", DRAIN: "DRAIN"}
_ORDER = (MEASURE, WARMUP, RAMP, DRAIN)  # the phase of a stage is the first of these phases that any process has
_STATES = {"ready": "ready", "spawning": "spawning", "running": "running", "cleanup": "stopping"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Values that only Locust knows."""

    state: Callable[[], str]
    host: Callable[[], str | None]
    objectives: Callable[[str], list[dict[str, Any]]]
    """Parses ``--llm-slo``."""


class LiveState:
    """The current run as a page shows it."""

    # Attributes of one run; ``_begin`` sets all of them.
    run: str | None
    _began_s: float
    _ticked_s: float
    _now_s: float | None
    _over: bool
    _workers: Workers
    _times: dict[str, SlidingHistogram]
    _rates: dict[str, Rate]
    _done: dict[int, int]
    _running: dict[int, StageSeries]
    _finished: dict[int, list[dict[str, Any]]]
    _closed: int  # number of stages whose end was noticed
    _offset: int  # size of the rows file at the last tick
    _offset_before: int  # the earliest offset of the running stage's rows in the rows file
    _measuring: tuple[int, float] | None  # (stage, since when)
    _seen: Seen

    def __init__(self, coordinator: Course, surroundings: Surroundings) -> None:
        self.coordinator = coordinator
        self._around = surroundings
        self.follower = Follower()
        self._history = History()
        self._failed = False
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._begin(None)
        coordinator.watch_rows(self.on_row)

    # Input.

    def on_row(self, record: RequestRecord) -> None:
        """Count a row that was written."""
        self._notice_run()
        self._seen.add(record)
        if record.measured and record.run_id == self.run:
            series = self._running.get(record.stage)
            if series is None:
                series = self._running[record.stage] = StageSeries(record.stage, record.load)
            series.add(record)

    def on_live(self, message: Live) -> None:
        """Add the live metrics of a worker."""
        self._notice_run()
        if message.run != self.run or message.worker not in self.coordinator.worker_names:
            return  # from an earlier run
        metrics = message.metrics
        self._workers.add(message.worker, metrics)
        for name in _TIMES:
            self._times[name].merge(getattr(metrics, name))
        for name in _RATES:
            self._rates[name].add(getattr(metrics, name))
        for stage, done in metrics.done.items():
            self._done[stage] = self._done.get(stage, 0) + done

    def forget_samples(self) -> None:
        """Delete the samples of the charts after a reset of the statistics. Finished stages stay."""
        self._history.forget()

    # The clock.

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        gevent.spawn(self.follower.ask, "load")  # loads pandas before anything is measured

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
        self.follower.stop()

    def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            due_s = max(due_s + INTERVAL_S, time.monotonic() + INTERVAL_S / 2)
            gevent.sleep(due_s - time.monotonic())
            try:
                self.tick()
            except Exception:
                if not self._failed:  # log once: with a full disk this happens every second
                    logger.exception("the LLM tab could not take a sample")
                self._failed = True

    def tick(self) -> None:
        """Take a sample of the last second."""
        self._notice_run()
        writer = self.coordinator.writer
        if writer is None or self._over:
            return
        writer.flush()  # so that the file ends with a complete row
        self._notice_finished()
        now_s = time.monotonic()
        passed_s, self._ticked_s = now_s - self._ticked_s, now_s
        for window in self._times.values():
            window.tick()
        for rate in self._rates.values():
            rate.tick(passed_s)
        self._workers.tick()
        self._notice_measuring(now_s)
        self._over = not self.coordinator.active
        self._now_s = now_s - self._began_s
        self._history.add(self._sample())

    def _sample(self) -> dict[str, float | None]:
        plan, rates = self.coordinator.plan, self._rates
        sample: dict[str, float | None] = {
            "t": self._now_s,
            "tokens_per_s": rates["tokens"].per_s,
            "requests_per_s": rates["requests"].per_s,
            "errors_per_s": rates["failed"].per_s,
            "throttled_per_s": rates["throttled"].per_s,
            "in_flight": self._workers.in_flight if plan else 0,
            "users": plan.load.users if plan else 0,
            COL.rate_per_s: plan.load.rate_per_s if plan else None,
            "lag_p99": self._workers.lag_p99,
            "cpu_max": self._workers.cpu_max,
            **self._workers.cpu_sample(self._now_s or 0.0),
            "stage": plan.stage if plan else None,
        }
        for name, window in self._times.items():
            for key, value in zip(PERCENTILES, window.quantiles(tuple(PERCENTILES.values())), strict=True):
                sample[f"{name}_{key}"] = value
            gevent.sleep(0)  # in the only process, response streams take precedence
        return sample

    # Runs and stages.

    def _begin(self, run: str | None) -> None:
        self.run = run
        self._began_s = self._ticked_s = time.monotonic()
        self._now_s = None
        self._over = run is None
        self._history.forget()
        self._workers = Workers()
        self._times = {name: SlidingHistogram() for name in _TIMES}
        self._rates = {name: Rate() for name in _RATES}
        self._done, self._running, self._finished = {}, {}, {}
        self._closed = self._offset = self._offset_before = 0
        self._measuring = None
        self._seen = Seen()

    def _notice_run(self) -> None:
        writer = self.coordinator.writer
        if writer is None or writer.run_id == self.run:
            return
        self._begin(writer.run_id)
        self._began_s -= max(0.0, time.time() - writer.started_at)
        self._now_s = 0.0

    def _notice_finished(self) -> None:
        """Request the exact figures, from the files, of stages that ended since the last tick."""
        writer = self.coordinator.writer
        assert writer is not None
        rows, stages = path_of(writer.prefix, REQUESTS_CSV), path_of(writer.prefix, STAGES_CSV)
        offset = rows.stat().st_size
        for record in writer.stages[self._closed :]:
            question = {"rows": str(rows), "stages": str(stages), "stage": record.stage}
            question |= {"from": self._offset_before, "to": offset}
            gevent.spawn(self._ask_figures, self.run, record.stage, question)
            self._closed += 1
            self._offset_before = self._offset  # the file may contain the first rows of the next stage already
        self._offset = offset

    def _ask_figures(self, run: str | None, stage: int, question: dict[str, Any]) -> None:
        answer = self.follower.ask("stage", **question)
        if run != self.run:
            return
        if "stages" not in answer and stage in self._running:
            answer["stages"] = [self._running[stage].row() | {"finished": True}]
        self._finished[stage] = answer.get("stages", [])
        self._running.pop(stage, None)

    def _notice_measuring(self, now_s: float) -> None:
        plan = self.coordinator.plan
        if plan is None or self._phase(plan.stage) != MEASURE:
            return
        if self._measuring is None or self._measuring[0] != plan.stage:
            self._measuring = plan.stage, now_s

    def _phase(self, stage: int) -> str:
        phases = {metrics.phase for metrics in self._workers.in_stage(stage)}
        if phases == {IDLE}:
            return DRAIN  # all processes have finished the stage
        return next((phase for phase in _ORDER if phase in phases), RAMP)

    # Output.

    def json(self, run: str | None, since: int | None) -> dict[str, Any]:
        """Return the state for a page that has the samples of ``run`` up to number ``since``."""
        self._notice_run()
        reset, samples = self._history.after(since if run == self.run else None)
        unused = self._workers.cpu_lines.unused
        return {
            "run": self.run,
            "seq": self._history.seq,
            "reset": reset,
            "state": self._state(),
            "now_s": self._now_s,
            "interval_s": INTERVAL_S,
            "about": self._about(),
            "progress": self._progress(),
            "window_s": WINDOW_TICKS * INTERVAL_S,
            "samples": {name: values for name, values in samples.items() if name not in unused},
            "workers": self._workers.rows(self.coordinator.worker_names),
            "cpu_lines": self._workers.cpu_lines.legend(),
            "stages": self._stages(),
            "objectives": self._objectives(),
            "banners": self._banners(),
        }

    @property
    def finished(self) -> bool:
        """Return whether there is a run and it is over."""
        return self.run is not None and not self.coordinator.active

    def _state(self) -> str:
        if self.coordinator.finishing:
            return "stopping"
        return _STATES.get(self._around.state(), self._around.state())

    def _about(self) -> dict[str, str]:
        options, seen = self.coordinator.options, self._seen
        about = {
            "host": self._around.host() or "",
            "model": ", ".join(sorted(seen.models)[:4]) or options.model or "",
            "framework": ", ".join(sorted(seen.frameworks)[:4]) or options.framework or "",
            "api": ", ".join(sorted(seen.apis)[:4]) or options.api or "",
        }
        return {name: redact(text) for name, text in about.items()}

    def _progress(self) -> dict[str, Any] | None:
        plan, writer = self.coordinator.plan, self.coordinator.writer
        if plan is None or writer is None:
            return None
        of = plan.requests
        done = max(self._done.get(plan.stage, 0), writer.book.counts(plan.stage)[0])
        return {
            "stage": plan.stage,
            "stages": self.coordinator.stages,
            "concurrency": plan.load.users,
            COL.rate_per_s: plan.load.rate_per_s,
            "phase": _PHASES[self._phase(plan.stage)],
            "done": done if of is None else min(done, of),
            "of": of,
            "left_s": self._left_s(plan.stage, plan.measure_s, done, of),
        }

    def _left_s(self, stage: int, measure_s: float | None, done: int, of: int | None) -> float | None:
        """Estimate the remaining seconds of the stage by its time and by its requests; the shorter time counts."""
        left = []
        if self._measuring is None or self._measuring[0] != stage:
            return None
        passed_s = time.monotonic() - self._measuring[1]
        if measure_s is not None:
            left.append(max(0.0, measure_s - passed_s))
        if of is not None and done:
            left.append(max(0.0, (of - done) * passed_s / done))
        return round(min(left), 1) if left else None

    def _stages(self) -> list[dict[str, Any]]:
        running = [series.row() for series in self._running.values()]
        for row in running:
            if self._measuring is not None and row["stage"] == self._measuring[0] and not self._over:
                row[COL.output_throughput_token_per_s] = self._rates["tokens"].per_s
                row[COL.request_throughput_per_s] = self._rates["requests"].per_s
        rows = [*(row for finished in self._finished.values() for row in finished), *running]
        named = ("framework", "model")
        redacted = [row | {name: redact(str(row[name])) for name in named if row.get(name)} for row in rows]
        return sorted(redacted, key=lambda row: int(row["stage"]))

    def _objectives(self) -> Sequence[dict[str, Any]]:
        options = self.coordinator.options
        slo = options.slo or options.find
        return self._around.objectives(slo) if slo else []

    def _banners(self) -> list[dict[str, str]]:
        coordinator = self.coordinator
        client = self._workers.as_stage() if coordinator.active else None
        return banners(coordinator, self._seen, client)
