"""The load side of a run, in every process that has users: runtime, gate, prompts, records on their way.

Does what the coordinator says; the same code runs in one process and on workers.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import gevent
from gevent import getcurrent
from gevent.event import Event

from llm_users import endpoint, runtime, secrets
from llm_users.arrivals import arrival_times_s, part_of
from llm_users.collect.lag import LagProbe
from llm_users.collect.live import LiveBeat
from llm_users.load import messages
from llm_users.load.feed import MOST_AHEAD, MOST_TOKENS_AHEAD, PromptFeed
from llm_users.load.messages import LEASE_S
from llm_users.load.pulse import Pulse
from llm_users.load.talks import Talks
from llm_users.open_gate import OpenGate
from llm_users.options import Options
from llm_users.plan import StagePlan, StageTotals
from llm_users.prompts import Prompt, Trace, load_tokenizer, make_source, read_trace
from llm_users.record import RequestRecord
from llm_users.targets import TargetWheel
from llm_users.transport.alarm import Alarm
from llm_users.transport.pool import Pool
from llm_users.transport.proxies import Proxies
from llm_users.transport.quiet import QuietQueue
from llm_users.transport.tls import TlsSettings

logger = logging.getLogger(__name__)

_READY_REPORT_S = 0.02
"""Arrivals of users at the gate are reported together: 512 users must not be 512 messages."""

_DRAIN_LOOK_S = 0.01
_CUT_S = 15.0
_ONE_MORE_ENDING_PER = 64
"""Else a process that has too much to read would keep its users from asking on."""

_GC_GENERATIONS = (50_000, 20, 1000)
"""Collections during a run: rare, and never of what lived before it (gc.freeze)."""


class LoadProcess:
    """One process's part in a run. ``keep`` takes finished records, ``flush`` sends what was kept."""

    def __init__(
        self,
        environment: Any,
        send: Callable[[str, dict[str, Any]], None],
        keep: Callable[[RequestRecord, list[float]], None],
        flush: Callable[[], int],
    ) -> None:
        self._environment = environment
        self._send_raw = send
        self._keep = keep
        self._flush = flush
        self.gate = OpenGate()
        self.gate.on_ready = self._on_ready
        self.gate.on_finished = self._on_stage_finished
        self.pulse = Pulse(self.gate, self.send)
        self.pulse.about_stage = self._about_stage
        self.pulse.on_pause = self._on_pause
        self._probe = LagProbe(self._on_lag)
        self._beat: LiveBeat | None = None  # when the run is watched
        self._run: dict[str, Any] = {}
        self._stage = 0  # the last that the coordinator announced in this run
        self._runtime: runtime.Runtime | None = None
        self._feed: PromptFeed[Prompt] | None = None
        self._talks: Talks | None = None
        self._most_ahead = MOST_AHEAD
        self._built_stage = -1
        self._reporting = False
        self._telling: gevent.Greenlet[..., None] | None = None
        self._finished = True
        self._cut = Event()
        self._over = Event()
        self._over.set()
        self._noted: set[str] = set()
        self._sent = 0  # rows, when the run was over
        self._old_gc = gc.get_threshold()

    # What the coordinator says.

    def on_run(self, data: dict[str, Any]) -> None:
        """A run begins; its options come with the test start. Another one that still goes on here is over."""
        if self.running and data["run_id"] == self.run_id:
            return
        self.cut_short()
        self._run = data
        self._runtime = self._feed = self._talks = self._beat = None
        self._built_stage = -1
        self._stage = 0
        self._finished = False
        self._cut.clear()
        self._over.clear()
        self._noted.clear()
        self.pulse.begin(data["run_id"], data["worker"], distributed=data["distributed"])

    def on_stage(self, data: dict[str, Any]) -> None:
        """A stage is coming: close the gate for it and build its prompts."""
        plan = StagePlan(**{name: value for name, value in data.items() if name != "run"})
        if plan.stage == self._stage:
            return  # said again, because it was not clear whether it had come
        self._stage = plan.stage
        self.gate.prepare(plan)
        if self._runtime is not None:
            self._build_prompts()

    def on_go(self, data: dict[str, Any]) -> None:
        if data["stage"] == self.gate.plan.stage and not self.gate.let_go:
            self.gate.go(data["quota"], _moment_ns(data.get("origin")))

    def on_quota(self, data: dict[str, Any]) -> None:
        """The share of the stage has changed, or the answer to "may I go on?"."""
        if data["number"] is not None:
            self.pulse.answered(data["number"])
        if data["stage"] == self.gate.plan.stage:
            self.gate.change_quota(data["quota"])
        elif data["stage"] > self.gate.plan.stage:
            self.gate.end_measure()  # that stage is over, and the word of the next is on its way

    def on_ack(self, data: dict[str, Any]) -> None:
        """The coordinator has heard a COUNT."""
        self.pulse.acknowledged(data["number"])

    def on_end(self, data: dict[str, Any]) -> None:
        if data["stage"] == self.gate.plan.stage:
            self.gate.end_measure()

    def on_finish(self, data: dict[str, Any]) -> None:
        """The run is over: let what is in flight end, or cut it; send everything. ``abort`` cuts a drain short."""
        if data["abort"]:
            self._cut.set()
        if self._finished:
            self._over.wait()
            self._tell_final()
            return
        self._stop(data["grace_s"])
        self._sent = self._flush()
        self.pulse.tell()
        self._tell_final()
        self.pulse.forget()
        self._over.set()

    def abandon(self, grace_s: float = 0.0) -> bool:
        """The run is over without the coordinator: nothing is sent to it. Returns whether there was a run."""
        if self._finished:
            return False
        self._stop(grace_s)
        self.pulse.forget()
        self._over.set()
        return True

    def cut_short(self) -> None:
        """The run is over at once, also when its end has begun already."""
        if self.running and not self.abandon():
            self._cut.set()
            self._over.wait(timeout=_CUT_S)

    def _stop(self, grace_s: float) -> None:
        """Nothing starts any more; what is in flight may end, up to ``grace_s``."""
        self._finished = True
        self.gate.close()
        self._await_drain(grace_s)
        if self._runtime is not None and self._runtime.open_loop is not None:
            self._runtime.open_loop.close()
        if self.gate.unfinished:
            self._kill_users()
        self._environment.stop_timeout = 0.0  # nobody is left to wait for; Locust would sleep it off on workers
        self._probe.stop()
        self.pulse.stop()
        if self._beat is not None:
            self._beat.stop()
        gc.set_threshold(*self._old_gc)
        gc.unfreeze()
        if self._runtime is not None:
            for end in self._runtime.at_end:
                end()
            self._runtime.pool.close()
            if self._runtime.alarm is not None:
                self._runtime.alarm.close()
        if self._telling is not None:
            self._telling.join()

    def _tell_final(self) -> None:
        self.send(messages.FINAL, {"sent": self._sent})

    def send(self, kind: str, data: dict[str, Any]) -> None:
        """A message to the coordinator, as one of this process in this run."""
        self._send_raw(kind, {"run": self.run_id, "worker": self._run.get("worker", 0), **data})

    # What Locust says.

    def on_test_start(self) -> None:
        """Options are known now: make everything that the users of this process share."""
        if not self._run:
            return
        try:
            options = Options.parse(self._environment.parsed_options)
            self._make_runtime(options)
        except Exception as error:
            self.gate.close()
            self.send(messages.REFUSED, {"reason": str(error) or repr(error)})

    def on_target_reached(self) -> None:
        """The users that Locust was told to run are running."""
        self.gate.target_reached()

    @property
    def run_id(self) -> str:
        """The run that this process takes part in, or the last one; "" before the first."""
        return str(self._run.get("run_id", ""))

    @property
    def rank(self) -> int:
        """The rank of this process in the run."""
        return int(self._run.get("worker", 0))

    @property
    def running(self) -> bool:
        """True until everything of the run has been sent."""
        return not self._over.is_set()

    # Inside.

    def _make_runtime(self, options: Options) -> None:
        host = self._environment.host or ""
        endpoint.forget()
        secrets.remember_named([options.extra_body, options.metadata])
        pool = Pool(
            keep_alive=not options.new_connections,
            tls=TlsSettings.parse(options.client_cert, insecure=options.insecure),
            proxies=Proxies.from_environment(loopback=options.proxy_loopback),
        )
        tokenizer = gevent.get_hub().threadpool.apply(load_tokenizer, (options.tokenizer,))
        trace = None
        if options.trace is not None:
            read = partial(read_trace, options.trace, speed=options.trace_speed, window=options.trace_window)
            trace = gevent.get_hub().threadpool.apply(read)
        self._most_ahead = MOST_AHEAD if trace is None else int(MOST_TOKENS_AHEAD / trace.mean_input_tokens) + 1
        source = gevent.get_hub().threadpool.apply(
            partial(
                make_source,
                tokenizer=tokenizer,
                input_law=options.input_tokens,
                output_law=options.output_tokens,
                seed=options.seed,
                run_key=self._run["run_key"],
                text=options.prompt,
                file=options.prompts,
                trace=trace,
                in_order=options.prompts_order == "file",
                prefixes=options.prefix,
                cache_bust=self._run["run_id"] if options.cache_bust else None,
                pictures=options.images,
            )
        )
        for note in source.notes:
            self._note(note)
        worker, workers = self._run["worker"], self._run["workers"]
        first, step = self._run["first_prompt"], self._run["prompt_step"]
        self._feed = PromptFeed(source, first, step, self._note)
        user_classes = [c for c in self._environment.user_classes if hasattr(c, "prepare_process")]
        if any(each.holds_conversations for each in user_classes):
            salt = self._run["run_id"] if options.cache_bust else None
            make = partial(Talks, options, tokenizer, self._run["run_key"], salt, (first, step), self._note)
            self._talks = gevent.get_hub().threadpool.apply(make)
            self._talks.only = all(each.holds_conversations for each in user_classes)
        alarm = Alarm() if options.open_loop else None
        starts = QuietQueue(alarm)
        # On from the run before: the first stage may have been marked with those counts already.
        before, forced_before = self.gate.counters()
        self.gate.counters = lambda: (before + starts.passed, forced_before + starts.forced)
        if self._run.get("live"):
            send_beat = partial(self.send, messages.LIVE)
            self._beat = LiveBeat(self.gate, send_beat, self._run["run_id"], worker)
        made = runtime.Runtime(
            options=options,
            run_id=self._run["run_id"],
            run_key=self._run["run_key"],
            worker=worker,
            workers=workers,
            gate=self.gate,
            starts=starts,
            endings=QuietQueue(alarm, _ONE_MORE_ENDING_PER),
            pool=pool,
            tokenizer=tokenizer,
            next_prompt=self._feed.next,
            on_record=self._keep,
            note=self._note,
            client_delay_s=self._probe.worst_lately_s,
            model=options.targets[0].model if options.targets else options.model,
            withhold_keys=self._run.get("withhold_keys", False),
            run_s=_run_s(options, self._environment.parsed_options, trace),
            watch=self._beat,
            alarm=alarm,
            arrivals=partial(_arrivals, options, trace),
            prompt_per_arrival=trace is not None,
            first_prompt=first,
            prompt_step=step,
            targets=TargetWheel(options.targets, worker) if options.targets else None,
        )
        if self._talks is not None:
            made.next_conversation = self._talks.feed.next
        runtime.install(self._environment, made)
        for user_class in user_classes:
            targets = options.targets if user_class.model is None else ()
            for url in dict.fromkeys(target.url or user_class.host or host for target in targets) or [
                user_class.host or host
            ]:
                user_class.prepare_process(made, url)
            if made.model is None and user_class.model is None:
                made.model = only_model(user_class, made, user_class.host or host)
        self._runtime = made
        if options.insecure:
            self._note(
                "--llm-insecure: certificates were not verified, so whoever stands in between could read keys and "
                "answers, and change them; use it for tests only"
            )
        self._build_prompts()
        gc.collect()
        gc.freeze()  # the collector's pauses stay out of the measurement
        gc.set_threshold(*_GC_GENERATIONS)
        self._probe.start()
        if self._beat is not None:
            self._beat.start()

    def _build_prompts(self) -> None:
        """Counted stages are built before they start."""
        plan, made, feed = self.gate.plan, self._runtime, self._feed
        assert made is not None
        assert feed is not None
        if plan.rate_per_s is not None:
            arrivals = plan.requests or plan.rate_per_s * (plan.warmup_s + (plan.measure_s or 0.0))
            count = min(math.ceil(arrivals / plan.workers) + plan.warmup_requests, self._most_ahead)
            counted = False
        elif plan.free or plan.requests is None:
            count, counted = 2 * math.ceil(plan.concurrency / plan.workers), False
        else:
            users = math.ceil(plan.concurrency / plan.workers)
            count = users * plan.warmup_requests + math.ceil(plan.requests * users / plan.concurrency)
            counted = not plan.timed_warmup_s  # how many requests a time takes is not known
        if self._talks is not None:
            self._talks.expect(count, counted=counted)
        if self._talks is None or not self._talks.only:
            feed.expect(count)
            if counted:
                feed.stage_is_built()
        self._built_stage = plan.stage
        self._on_ready(plan.stage, 0)

    def _on_ready(self, _stage: int, _waiting: int) -> None:
        if not self._reporting:
            self._reporting = True
            gevent.spawn_later(_READY_REPORT_S, self._report_ready)

    def _report_ready(self) -> None:
        self._reporting = False
        plan = self.gate.plan
        if self._built_stage == plan.stage and not plan.free and not self._finished:
            waiting = self.gate.waiting
            self.send(messages.READY, {"stage": plan.stage, "waiting": waiting})

    def _on_stage_finished(self, totals: StageTotals) -> None:
        data = dataclasses.asdict(totals)
        # In its own greenlet: the caller is a user, which may be stopped, and rows in the spool may take a while.
        self._telling = gevent.spawn(self._tell_stage, data)

    def _tell_stage(self, data: dict[str, Any]) -> None:
        self._flush()
        self.pulse.tell()
        self.send(messages.DONE, data)

    def _on_lag(self, lag_s: float, own_s: float | None) -> None:
        self.gate.add_lag(lag_s, own_s)
        if self._beat is not None:
            self._beat.add_lag(lag_s, own_s)

    def _about_stage(self) -> dict[str, Any]:
        """Where this process is in the run, for a coordinator whose messages may not have come."""
        gate = self.gate
        ready = self._built_stage == self._stage and not gate.let_go
        return {
            "at": self._stage,
            "gone": gate.let_go,
            "waiting": gate.waiting if ready else None,
            "quota": gate.quota if gate.let_go else None,
            "over": gate.over,
        }

    def _on_pause(self, silent_s: float) -> None:
        if self.gate.let_go and not self.gate.over:
            self._note(
                f"worker {self.rank} had no answer from the master for {silent_s:.0f} s in stage {self._stage}, and "
                f"started nothing after the first {LEASE_S:g} s"
            )

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.send(messages.NOTE, {"text": text})

    def _await_drain(self, grace_s: float) -> None:
        limit = time.monotonic() + grace_s
        while self.gate.unfinished and not self._cut.is_set() and time.monotonic() < limit:
            self._cut.wait(timeout=_DRAIN_LOOK_S)

    def _kill_users(self) -> None:
        users = self._environment.runner.user_greenlets
        others = [greenlet for greenlet in list(users) if greenlet is not getcurrent()]
        gevent.killall(others, block=True, timeout=10)


_LATEST_S = 5.0


def _moment_ns(wall_s: float | None) -> int:
    """A moment of the wall clock on this process's monotonic clock; 0 (now) for none, and for one that cannot be."""
    ahead_s = 0.0 if wall_s is None else wall_s - time.time()
    return time.monotonic_ns() + int(ahead_s * 1e9) if 0 < ahead_s < _LATEST_S else 0


def _arrivals(options: Options, trace: Trace | None, plan: StagePlan) -> Iterable[float]:
    """This process's part of the stage's arrivals: of a trace, those whose prompts its feed has."""
    assert plan.rate_per_s is not None
    if trace is not None:
        entries = trace.entries[: plan.requests]
        return (entries[place].at_s for place in range(plan.place, len(entries), plan.workers))
    times_s = arrival_times_s(options.arrivals, plan.rate_per_s, f"{options.seed}:{plan.stage}:arrivals")
    return part_of(times_s, plan.place, plan.workers)


def _run_s(options: Options, parsed: Any, trace: Trace | None) -> float | None:
    """How long the run will take, as far as options say it."""
    stages_s = options.stage_s * options.stages if options.stage_s is not None else None
    replay_s = trace.duration_s if trace is not None else None
    times_s = [float(given) for given in (stages_s, replay_s, getattr(parsed, "run_time", None)) if given]
    return min(times_s, default=None)


class NoSingleModel(ValueError):
    """The server lists no model or several, so one has to be chosen."""


def only_model(user_class: Any, made: runtime.Runtime, host: str) -> str:
    """The only model that the server lists. Raises ``NoSingleModel`` with the list."""
    try:
        listed = user_class.listed_models(made, host)
    except Exception as error:
        from llm_users.users.failures import failure_of

        code, message = failure_of(error, host)
        raise NoSingleModel(
            f"no --llm-model was given and {host} does not list its models ({code}: {message})"
        ) from error
    if len(listed) != 1:
        shown = ", ".join(sorted(listed)[:20]) + (", ..." if len(listed) > 20 else "") or "none"
        raise NoSingleModel(f"{host} lists {len(listed)} models ({shown}); choose one with --llm-model")
    return str(listed[0])
