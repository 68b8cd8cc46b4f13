"""The state of a run for the page: receives live metrics and rows, takes one sample per second and returns JSON.

It runs in the process of the coordinator, reads the coordinator and its writer, and changes neither.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent

from llm_users.collect.client_health import verdict
from llm_users.collect.writer import RunWriter
from llm_users.load.protocol.messages import Live
from llm_users.load.protocol.stage import DRAIN, IDLE, MEASURE, RAMP, WARMUP, Phase, StagePlan
from llm_users.options.table import Options
from llm_users.record import COL, RequestRecord
from llm_users.secrets import redact
from llm_users.web.banners import Seen, banners
from llm_users.web.samples import WINDOW_TICKS, History, Rate, SlidingHistogram
from llm_users.web.server_lines import ServerLines, ServerSamples
from llm_users.web.stage_series import RunTotals, StageSeries, load_fields
from llm_users.web.workers import Workers

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_TIMES = ("ttft", "gap", "tpot")
_RATES = ("tokens", "requests", "failed", "throttled")
_PHASES: dict[str, str] = {RAMP: "RAMP", WARMUP: "WARM-UP", MEASURE: "MEASURE", DRAIN: "DRAIN"}
_ORDER: tuple[Phase, ...] = (
    MEASURE,
    WARMUP,
    RAMP,
    DRAIN,
)  # the phase of a stage is the first of these phases that any process has
_STATES = {"ready": "ready", "spawning": "spawning", "running": "running", "cleanup": "stopping"}


class Course(Protocol):
    """A coordinator in the process that writes the rows, with one run after another."""

    options: Options
    writer: RunWriter | None
    active: bool
    refused: str | None
    ended_by_itself: bool

    def watch_rows(self, listener: Callable[[RequestRecord], None]) -> None:
        """Pass every row to the listener after it was counted."""

    @property
    def plan(self) -> StagePlan | None:
        """Return the present stage of the run, or None between runs."""

    @property
    def finishing(self) -> bool:
        """Return whether the run is stopping and requests in flight may end."""

    @property
    def stages(self) -> int:
        """Return the number of stages of the run."""

    @property
    def worker_names(self) -> dict[int, str]:
        """Return the names of the present workers by rank."""


class LiveState:
    """The current run as a page shows it.

    ``objectives`` parses ``--llm-slo``. ``search`` returns the load search of the run, or None. ``servers`` reads the
    servers' own metrics.
    """

    def __init__(
        self,
        coordinator: Course,
        environment: Any,
        objectives: Callable[[str], list[dict[str, Any]]],
        search: Callable[[], dict[str, Any] | None],
        servers: ServerSamples | None = None,
    ) -> None:
        self.coordinator = coordinator
        self._servers = ServerLines(servers)
        self._environment = environment
        self._parse_objectives = objectives
        self._search_entry = search
        self._history = History()
        self._failed = False
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._begin(None)
        coordinator.watch_rows(self.on_row)

    def _begin(self, run: str | None) -> None:
        """Set all attributes that belong to one run."""
        self.run = run
        self._began_s = self._ticked_s = time.monotonic()
        self._now_s: float | None = None
        self._over = run is None
        self._history.forget()
        self._workers = Workers()
        self._times = {name: SlidingHistogram() for name in _TIMES}
        self._rates = {name: Rate() for name in _RATES}
        self._done: dict[int, int] = {}
        self._running: dict[int, StageSeries] = {}
        self._finished: dict[int, list[dict[str, Any]]] = {}
        self._totals = RunTotals()
        self._closed = 0  # number of stages whose end was noticed
        self._measuring: tuple[int, float] | None = None  # (stage, since when)
        self._seen = Seen()

    # Input.

    def on_row(self, record: RequestRecord) -> None:
        """Count a row that was written."""
        self._notice_run()
        self._seen.add(record)
        if record.run_id == self.run and record.stage not in self._finished:
            series = self._running.get(record.stage)
            if series is None:
                plan = self.coordinator.plan
                load = plan.load if plan is not None and plan.stage == record.stage else record.load
                series = self._running[record.stage] = StageSeries(record.stage, load)
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

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(block=False)

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
        self._over, is_finishing = not self.coordinator.active, self.coordinator.finishing
        now_s = time.monotonic()
        passed_s, self._ticked_s = now_s - self._ticked_s, now_s
        for window in self._times.values():
            window.tick()
        for rate in self._rates.values():
            rate.tick(passed_s)
        self._workers.tick()
        plan = self.coordinator.plan
        is_known = self._measuring is not None and plan is not None and self._measuring[0] == plan.stage
        if plan is not None and not is_known and self._phase(plan.stage) == MEASURE:
            self._measuring = plan.stage, now_s
        self._now_s = now_s - self._began_s
        self._history.add(self._sample())
        if not is_finishing:  # the last stage is finished after the last sample
            self._notice_finished(writer)

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
            COL.rate_per_s: self._target_rate(plan) if plan else None,
            "lag_p99": self._workers.lag_p99,
            **self._workers.cpu(),
            **self._servers.sample(),
            "stage": plan.stage if plan else None,
        }
        for name, window in self._times.items():
            for key, value in zip(PERCENTILES, window.quantiles(tuple(PERCENTILES.values())), strict=True):
                sample[f"{name}_{key}"] = value
            gevent.sleep(0)  # in the only process, response streams take precedence
        return sample

    # Runs and stages.

    def _notice_run(self) -> None:
        writer = self.coordinator.writer
        if writer is None or writer.run_id == self.run:
            return
        self._begin(writer.run_id)
        self._began_s -= max(0.0, time.time() - writer.started_at)
        self._now_s = 0.0

    def _notice_finished(self, writer: RunWriter) -> None:
        """Compute the exact figures of stages that ended since the last tick, and drop their values."""
        running, finished = self._running, self._finished
        for record in writer.stages[self._closed :]:
            series = running.get(record.stage) or StageSeries(record.stage, record.load)
            rows = series.finished_rows(record)
            if finished is not self._finished:
                return  # another run began while other greenlets ran
            finished[record.stage] = rows
            self._totals.add(series, record)
            running.pop(record.stage, None)
            self._closed += 1

    def _phase(self, stage: int) -> Phase:
        phases = {metrics.phase for metrics in self._workers.in_stage(stage)}
        if phases == {IDLE}:
            return DRAIN  # all processes have finished the stage
        return next((phase for phase in _ORDER if phase in phases), RAMP)

    @property
    def workers(self) -> Workers:
        """Return the workers of the run by their last live metrics."""
        return self._workers

    @property
    def phase(self) -> Phase:
        """Return the phase of the present stage; ``idle`` between runs."""
        plan = self.coordinator.plan
        return IDLE if plan is None else self._phase(plan.stage)

    @property
    def target_rate_per_s(self) -> float | None:
        """Return the present target rate of an open loop in requests/s, or None in a closed loop or between runs."""
        plan = self.coordinator.plan
        return None if plan is None else self._target_rate(plan)

    @property
    def health(self) -> str | None:
        """Return the client health of the last ten seconds, or None while it is unknown or between runs."""
        stage = self._workers.as_stage() if self.coordinator.active else None
        return None if stage is None else verdict(stage)

    # Output.

    def json(self, run: str | None, since: int | None) -> dict[str, Any]:
        """Return the state for a page that has the samples of ``run`` up to number ``since``."""
        self._notice_run()
        coordinator = self.coordinator
        reset, samples = self._history.after(since if run == self.run else None)
        slo = coordinator.options.slo or coordinator.options.find
        return {
            "run": self.run,
            "seq": self._history.seq,
            "reset": reset,
            "state": self._run_state(),
            "now_s": self._now_s,
            "interval_s": INTERVAL_S,
            "about": self.about(),
            "progress": self._progress(),
            "window_s": WINDOW_TICKS * INTERVAL_S,
            "samples": samples,
            "workers": self._workers.rows(coordinator.worker_names),
            "server": self._servers.latest() if coordinator.active else [],
            "stages": self._stages(),
            "totals": self._whole_run(),
            "search": self._search(),
            "objectives": self._parse_objectives(slo) if slo else [],
            "banners": banners(
                self._seen,
                self._workers.as_stage() if coordinator.active else None,
                coordinator.refused,
                coordinator.writer,
                processes=len(coordinator.worker_names),
            ),
        }

    @property
    def finished(self) -> bool:
        """Return whether there is a run and it is over."""
        return self.run is not None and not self.coordinator.active

    def _run_state(self) -> str:
        if self.coordinator.finishing:
            return "stopping"
        state = str(self._environment.runner.state)
        if state != "stopped" or not self.finished:
            return _STATES.get(state, state)
        if not self._is_counted():
            return "stopping"  # the figures of the last stage follow with the next sample
        return "finished" if self.coordinator.ended_by_itself else "stopped"

    def _is_counted(self) -> bool:
        writer = self.coordinator.writer
        return writer is not None and self._closed == len(writer.stages)

    def _whole_run(self) -> dict[str, Any] | None:
        """Return the figures of the whole run when it is over and its last stage is counted."""
        return self._totals.figures() if self.finished and self._is_counted() and self._closed else None

    def _search(self) -> dict[str, Any] | None:
        """Return the load search: the conclusion so far, its limitations, and the tried loads in ascending order."""
        entry = self._search_entry() if self.run is not None else None
        if entry is None:
            return None
        return {
            "unit": entry["unit"],
            "over": self.finished,
            "conclusion": redact(entry["conclusion"]),
            "reservations": [redact(text) for text in entry["reservations"]] if self.finished else [],
            "points": [point | {"reason": redact(point["reason"])} for point in entry["points"]],
        }

    def about(self) -> dict[str, str]:
        """Return host, model, framework and API of the run as texts without secrets; "" if they are unknown."""
        options, seen = self.coordinator.options, self._seen
        about = {
            "host": self._environment.host or "",
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
        # The remaining time by the time of the stage and by its requests; the shorter time counts.
        left = []
        if self._measuring is not None and self._measuring[0] == plan.stage:
            passed_s = time.monotonic() - self._measuring[1]
            if plan.measure_s is not None:
                left.append(max(0.0, plan.measure_s - passed_s))
            if of is not None and done:
                left.append(max(0.0, (of - done) * passed_s / done))
        return {
            "stage": plan.stage,
            "stages": self.coordinator.stages,
            **load_fields(plan.load),
            "phase": _PHASES[self._phase(plan.stage)],
            "done": done if of is None else min(done, of),
            "of": of,
            "left_s": round(min(left), 1) if left else None,
        }

    def _target_rate(self, plan: StagePlan) -> float | None:
        """Return the present target rate of an open loop in requests/s."""
        ramp = plan.load.ramp
        if ramp is None or not plan.measure_s:
            return plan.load.rate_per_s
        passed_s = 0.0
        if self._measuring is not None and self._measuring[0] == plan.stage:
            passed_s = time.monotonic() - self._measuring[1]
        return ramp.at(passed_s / plan.measure_s)

    def _stages(self) -> list[dict[str, Any]]:
        running = [series.running_row() for series in self._running.values() if series.requests]
        for row in running:
            if self._measuring is not None and row["stage"] == self._measuring[0] and not self._over:
                row[COL.output_throughput_token_per_s] = self._rates["tokens"].per_s
                row[COL.request_throughput_per_s] = self._rates["requests"].per_s
        rows = [*(row for finished in self._finished.values() for row in finished), *running]
        named = ("framework", "model")
        redacted = [row | {name: redact(str(row[name])) for name in named if row.get(name)} for row in rows]
        return sorted(redacted, key=lambda row: int(row["stage"]))
