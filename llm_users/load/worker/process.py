"""A worker's part in a run: creates the run context, builds prompts, and handles the coordinator's messages.

Workers and the only process of a local run use the same code.
"""

from __future__ import annotations

import gc
import logging
import math
import sys
import time
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import gevent
from gevent import getcurrent
from gevent.event import Event

from llm_users import secrets
from llm_users.collect.spool import StartCounts
from llm_users.distributions import LENGTHS, Fixed
from llm_users.load.protocol import messages
from llm_users.load.protocol.arrivals import ArrivalShare
from llm_users.load.protocol.messages import LEASE_S, WorkerMessage
from llm_users.load.protocol.stage import StageTotals, arrival_times_of
from llm_users.load.worker.admission_gate import AdmissionGate, StartControl
from llm_users.load.worker.context import RunContext, Tracing, expect_context, install_context
from llm_users.load.worker.lag_probe import LagProbe
from llm_users.load.worker.live_metrics import LiveReporter
from llm_users.load.worker.open_loop import OpenLoop
from llm_users.load.worker.output_counts import output_counts_of
from llm_users.load.worker.permits import Permit
from llm_users.load.worker.prompt_queue import ConversationQueue, PromptQueue, TracePrompts, trace_of
from llm_users.load.worker.round_robin import RoundRobin
from llm_users.load.worker.stall_guard import GuardedWorker, MasterLink, StallGuard
from llm_users.load.worker.thread_pool import in_thread
from llm_users.options.table import Options
from llm_users.outcome import NOT_CONNECTED
from llm_users.prompts import Prompt, PromptSource, Tokenizer, Trace, load_tokenizer, make_source
from llm_users.record import Lengths, RequestRecord
from llm_users.transport import endpoint
from llm_users.transport.idle_queue import IdleQueue
from llm_users.transport.pool import Pool
from llm_users.transport.precise_timer import PreciseTimer
from llm_users.transport.proxies import Proxies
from llm_users.transport.tls import TlsSettings

logger = logging.getLogger(__name__)

_READY_REPORT_S = 0.02
"""Arrivals of users at the gate are reported together, so that 512 users do not cause 512 messages."""

_DRAIN_LOOK_S = 0.01
_CUT_S = 15.0
_USERS_LOOK_S = 0.05
_PROGRESS_S = 1.0
_FIRST_ARRIVALS_S = 2.0
"""If the prompts of an open loop do not fit in memory, it starts when the prompts of this many seconds are ready."""

_LONGEST_LEAD_S = 5.0
_NOTED_WAIT_S = 0.005
_ONE_MORE_ENDING_PER = 64
"""Without additional endings, a process with too much to read would keep its users from sending the next requests."""

_SWITCH_S = 0.0005
"""During a run, a thread that builds prompts yields to the event loop after this time (Python's default: 5 ms). While
prompts of 128,000 tokens are built, this makes 99 % of the loop's delays less than 1.3 ms instead of 4.3 ms
(``tests.system.accuracy.prompt_building``)."""

_GC_GENERATIONS = (5_000, 200, 1000)
"""Garbage collections during a run skip objects that were created before the run (gc.freeze). Each one processes few
objects: 50,000, of reads that are not decoded yet, would block the event loop for 10 ms or more."""


class WorkerProcess(StartControl, GuardedWorker):
    """One worker's part in a run.

    ``keep`` takes finished records. ``flush`` sends the kept records and returns the total number of sent records.
    ``read_options`` returns the options of the run that begins; it raises ``OptionError`` if they are invalid.
    ``tracing`` records the spans of requests; None: there are none.
    """

    def __init__(
        self,
        environment: Any,
        send: Callable[[WorkerMessage], None],
        keep: Callable[[RequestRecord, list[float]], None],
        flush: Callable[[], int],
        read_options: Callable[[], Options],
        link: MasterLink | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._environment = environment
        self._tracing = tracing
        self.send = send
        self._keep = keep
        self._flush = flush
        self._read_options = read_options
        self._starts: IdleQueue | None = None
        self._starts_before = (0, 0)  # starts and forced starts of earlier runs
        self._link = link or MasterLink()
        self.stall_guard = StallGuard(self, self._link)
        self.gate = AdmissionGate(self._on_ready, self._on_stage_finished, self)
        self._probe = LagProbe(self._on_lag)
        self._live: LiveReporter | None = None  # set if the run has a web interface
        self._run: messages.Run | None = None  # the present or the last run
        self._stage = 0  # the last stage that the coordinator announced in this run
        self._run_context: RunContext | None = None
        self._trace_times_s: list[float] | None = None
        self._trace_prompts: TracePrompts | None = None
        self._make_source: partial[PromptSource] | None = None
        self._lengths: Lengths | None = None  # of the prompts that are built
        self._quota: int | None = None
        self._built_stage = -1
        self._preparing: gevent.Greenlet[[], None] | None = None
        self._reporter: gevent.Greenlet[[], None] | None = None
        self._spawned_early = False  # all users had spawned before the run context existed
        self._reporting = False
        self._telling: list[gevent.Greenlet[..., None]] = []
        self._finished = True
        self._cut = Event()
        self._over = Event()
        self._over.set()
        self._noted: set[str] = set()
        self._sent = 0  # number of rows at the end of the run
        self._old_gc = gc.get_threshold()
        self._old_switch_s = sys.getswitchinterval()

    # Messages from the coordinator.

    def on_run(self, message: messages.Run) -> None:
        """Begin a run; the test start brings its options. A run that is still active here ends."""
        if self.running and message.run == self.run_id:
            return
        self.cut_short()
        self._run = message
        self._run_context = self._live = self._preparing = None
        self._trace_times_s = self._trace_prompts = self._lengths = None
        self._built_stage = -1
        self._stage = 0
        self._spawned_early = False
        self._finished = False
        self._cut.clear()
        self._over.clear()
        self._noted.clear()
        self.stall_guard.begin(message.run, message.worker, distributed=message.distributed)

    def on_stage(self, message: messages.Stage) -> None:
        """Prepare the gate for a stage and build its prompts."""
        plan = message.plan
        if plan.stage == self._stage:
            return  # repeated, because the coordinator did not know whether it had arrived
        self._stage = plan.stage
        self.gate.prepare(plan)
        if self._run_context is not None:
            self._build_prompts()

    def on_go(self, message: messages.Go) -> None:
        """Start the stage. The origin is given as a time from now, because the clocks of machines may differ."""
        plan, run_context = self.gate.plan, self._run_context
        if message.stage != plan.stage or self.gate.admitted:
            return
        self._quota, origin_ns = message.quota, 0
        if plan.load.is_open and run_context is not None:
            origin_ns = time.monotonic_ns() + int(min(message.lead_s, _LONGEST_LEAD_S) * 1e9)
            times_s = arrival_times_of(
                plan, run_context.options.arrivals, run_context.options.seed, self._trace_times_s
            )
            assert run_context.open_loop is not None
            run_context.open_loop.begin_stage(times_s, message.parts, message.max_in_flight)
        self.gate.go(self._quota, origin_ns, message.users)

    def on_arrivals(self, message: messages.ArrivalsChanged) -> None:
        """Change this worker's shares of an open loop's schedule: another worker was lost or this one is back."""
        loop = self._run_context.open_loop if self._run_context is not None else None
        if message.stage == self.gate.plan.stage and loop is not None:
            loop.change_shares(message.parts, message.max_in_flight)

    def on_quota(self, message: messages.Quota) -> None:
        """Change the share of the stage, and continue if the message answers a BACK."""
        if message.number is not None:
            self.stall_guard.answered(message.number)
        if message.stage == self.gate.plan.stage:
            quota, before = message.quota, self._quota
            self._quota = quota
            if quota is not None and before is not None and quota > before:
                for queue in self._queues():  # this worker's share is larger now
                    if self._trace_prompts is None or isinstance(queue, ConversationQueue):
                        queue.foresee(queue.entries_of(quota - before))
            self.gate.change_quota(quota)
        elif message.stage > self.gate.plan.stage:
            self.gate.end_measure()  # this stage is over, and STAGE of the next one will arrive

    def on_ack(self, message: messages.Ack) -> None:
        """Extend the lease: the coordinator has received a COUNT."""
        self.stall_guard.acknowledged(message.number)

    def on_end(self, message: messages.End) -> None:
        """Start nothing more in the stage."""
        if message.stage == self.gate.plan.stage:
            self.gate.end_measure()

    def on_finish(self, message: messages.Finish) -> None:
        """End the run as the coordinator requests."""
        self.finish(abort=message.abort, grace_s=message.grace_s)

    def finish(self, *, abort: bool, grace_s: float) -> None:
        """End the run: let requests in flight end, or cut them off, and send everything. ``abort`` cuts off a drain."""
        if abort:
            self._cut.set()
        if self._finished:
            self._over.wait()
            self._tell_final()
            return
        self._stop(grace_s)
        self._sent = self._flush()
        self.stall_guard.tell()
        self._tell_final()
        self.stall_guard.forget()
        self._over.set()

    def abandon(self, grace_s: float = 0.0) -> bool:
        """End the run without sending anything to the coordinator. Return whether there was a run."""
        if self._finished:
            return False
        self._stop(grace_s)
        self.stall_guard.forget()
        self._over.set()
        return True

    def cut_short(self) -> None:
        """End the run immediately, also if it is already ending."""
        if self.running and not self.abandon():
            self._cut.set()
            self._over.wait(timeout=_CUT_S)

    def _stop(self, grace_s: float) -> None:
        """Start nothing more. Requests in flight may end within ``grace_s``."""
        self._finished = True
        for greenlet in (self._preparing, self._reporter):
            if greenlet is not None:
                greenlet.kill(block=False)
        for queue in self._queues():
            queue.close()
        if self._trace_prompts is not None:
            self._trace_prompts.close()
        self.gate.close()
        limit_s = time.monotonic() + grace_s
        while self.gate.unfinished and not self._cut.is_set() and time.monotonic() < limit_s:
            self._cut.wait(timeout=_DRAIN_LOOK_S)
        if self._run_context is not None and self._run_context.open_loop is not None:
            self._run_context.open_loop.close()
        if self.gate.unfinished:
            callers = self._run_context.callers if self._run_context is not None else ()
            users = {*self._environment.runner.user_greenlets, *callers} - {getcurrent()}
            gevent.killall(users, block=True, timeout=10)
        self._environment.stop_timeout = 0.0  # all users have ended; on workers, Locust would still sleep
        self._probe.stop()
        self.stall_guard.stop()
        if self._live is not None:
            self._live.stop()
        gc.set_threshold(*self._old_gc)
        gc.unfreeze()
        sys.setswitchinterval(self._old_switch_s)
        if self._run_context is not None:
            for end in self._run_context.at_end:
                end()
            self._run_context.pool.close()
            if self._run_context.timer is not None:
                self._run_context.timer.close()
        gevent.joinall(self._telling)

    def _tell_final(self) -> None:
        self.send(messages.Final(*self.identity, sent=self._sent))

    # Calls from the admission gate (``StartControl``).

    def may_start(self) -> bool:
        return self.stall_guard.may_start()

    def on_start(self, stage: int, measured: bool) -> None:
        self.stall_guard.count(stage, measured)

    def start_counters(self) -> tuple[int, int]:
        passed, forced = self._starts_before
        if self._starts is not None:
            passed, forced = passed + self._starts.passed, forced + self._starts.forced
        return passed, forced

    # Calls from the stall guard (``GuardedWorker``).

    def count_message(self, number: int, counts: StartCounts) -> messages.Count:
        # The worker's position in the run lets the coordinator send messages again that were lost.
        gate = self.gate
        held, shards, host = self._link.spool_state()
        ready = self._built_stage == self._stage and not gate.admitted
        return messages.Count(
            *self.identity,
            number=number,
            stage=counts.stage,
            started=counts.started,
            measured=counts.measured,
            total=counts.total,
            counts=str(counts.path) if counts.path is not None else None,
            held=held,
            shards=shards,
            host=host,
            known_stage=self._stage,
            admitted=gate.admitted,
            waiting=gate.users_here if ready else None,
            quota=gate.quota if gate.admitted else None,
            over=gate.over,
        )

    def back_message(self, number: int, counts: StartCounts) -> messages.Back:
        stage = self.gate.plan.stage
        measured = counts.measured if counts.stage == stage else 0
        return messages.Back(*self.identity, number=number, stage=stage, measured=measured)

    def on_lease_ended(self, since_ns: int) -> None:
        self.gate.interrupt(since_ns)

    def on_lease_held(self) -> None:
        self.gate.look_again()

    def on_pause(self, silent_s: float) -> None:
        if self.gate.admitted and not self.gate.over:
            self._note(
                f"worker {self.identity[1]} had no answer from the master for {silent_s:.0f} s in stage {self._stage}, "
                f"and started nothing after the first {LEASE_S:g} s"
            )

    # Events of Locust.

    def on_test_start(self) -> None:
        """Create everything that the users of this process share, because the options are known now.

        This happens in a greenlet, because Locust's worker calls this method from the loop that receives its messages,
        and prompts may take minutes. Users that start in the meantime wait for the run context.
        """
        if self._run is None or self._preparing is not None:
            return  # Locust fires the event twice when a test restarts before its first users have started
        expect_context(self._environment)
        if self._finished:
            return  # the test is stopping; users that still start wait until they are stopped too
        self._preparing = gevent.spawn(self._prepare)

    def on_users_spawned(self) -> None:
        """Note that all users run that Locust was told to start, or wait for the run context."""
        if self._run_context is None and not self._finished:
            self._spawned_early = True
        else:
            self.gate.users_spawned()

    @property
    def run_id(self) -> str:
        """Return the id of the present or last run, or "" before the first."""
        return self.identity[0]

    @property
    def identity(self) -> tuple[str, int]:
        """Return the run and the rank of this process in it, as its messages name them."""
        return (self._run.run, self._run.worker) if self._run is not None else ("", 0)

    @property
    def running(self) -> bool:
        """Return True until everything of the run has been sent."""
        return not self._over.is_set()

    # Internal methods.

    def _prepare(self) -> None:
        self._report_progress()
        try:
            self._make_run_context(self._read_options())
        except Exception as error:
            self.gate.close()
            self.send(messages.Refused(*self.identity, reason=str(error) or repr(error)))
            return
        if self._spawned_early:
            runner = self._environment.runner
            while not self._finished and runner.user_count < runner.target_user_count:  # they waited for the context
                gevent.sleep(_USERS_LOOK_S)
            self.gate.users_spawned()

    def _report_progress(self) -> None:
        """Send the progress of the stage's prompts immediately and then every second until they are ready."""
        if self._reporter is None or self._reporter.ready():
            self._reporter = gevent.spawn(self._tell_progress)

    def _tell_progress(self) -> None:
        while self._built_stage != self.gate.plan.stage and not self._finished:
            progress = [queue.progress for queue in self._queues()]
            built, wanted = sum(built for built, _ in progress), sum(wanted for _, wanted in progress)
            self.send(messages.Preparing(*self.identity, stage=self.gate.plan.stage, built=built, wanted=wanted))
            gevent.sleep(_PROGRESS_S)

    def _queues(self) -> list[PromptQueue[Any]]:
        """Return the queues that users take from."""
        if self._run_context is None:
            return []
        prompts, conversations = self._run_context.prompts, self._run_context.conversations
        if conversations is None:
            return [prompts]
        return [prompts, conversations] if conversations.has_prompts else [conversations]

    def _make_run_context(self, options: Options) -> None:
        pool = Pool(
            keep_alive=not options.new_connections,
            tls=TlsSettings.parse(options.client_cert, insecure=options.insecure),
            proxies=Proxies(loopback=options.proxy_loopback),
        )
        try:
            self._make_parts(options, pool)
        finally:
            if self._run_context is None:  # an error, or the run is over already
                pool.close()

    def _make_parts(self, options: Options, pool: Pool) -> None:
        assert self._run is not None
        host = self._environment.host or ""
        endpoint.forget()
        secrets.remember_named([options.extra_body, options.metadata])
        tokenizer = in_thread(partial(load_tokenizer, options.tokenizer))
        trace = in_thread(partial(trace_of, options))
        user_classes = [c for c in self._environment.user_classes if hasattr(c, "prepare_process")]
        prompts, conversations = self._make_queues(options, tokenizer, trace, user_classes)
        run = self._run
        users = getattr(self._environment.parsed_options, "num_users", None) or 1
        make_counts = partial(output_counts_of, options, tokenizer, users=users, workers=run.workers, note=self._note)
        output_counts = in_thread(make_counts)
        timer = PreciseTimer() if options.open_loop else None
        starts = IdleQueue(timer)
        # Continue from the counts of the run before, which the first stage may have stored already.
        self._starts_before, self._starts = self.start_counters(), starts
        if run.live:
            self._live = LiveReporter(self.gate, self.send, run.run, run.worker)
        run_context = RunContext(
            options=options,
            run_id=run.run,
            run_key=run.run_key,
            worker=run.worker,
            workers=run.workers,
            gate=self.gate,
            starts=starts,
            endings=IdleQueue(timer, _ONE_MORE_ENDING_PER),
            pool=pool,
            tokenizer=tokenizer,
            prompts=prompts,
            conversations=conversations,
            open_loop=self._make_open_loop(user_classes, options) if options.open_loop else None,
            keep=self._keep,
            note=self._note,
            inform=partial(self._note, is_warning=False),
            client_delay_s=self._probe.worst_since_s,
            model=options.targets[0].model if options.targets else options.model,
            withhold_keys=run.withhold_keys,
            run_s=_run_s(options, self._environment.parsed_options, trace),
            watch=self._live,
            timer=timer,
            first_prompt=run.first_prompt,
            prompt_step=run.prompt_step,
            targets=RoundRobin(options.targets, run.worker) if options.targets else None,
            output_counts=output_counts,
            tracing=self._tracing,
        )
        if self._tracing is not None:
            run_context.at_end.append(partial(self._tracing.end_run, self._note))
        for user_class in user_classes:
            targets = options.targets if user_class.model is None else ()
            own_host = user_class.host or host
            for url in dict.fromkeys(target.url or own_host for target in targets) or [own_host]:
                user_class.prepare_process(run_context, url)
            if run_context.model is None and user_class.model is None:
                run_context.model = only_model(user_class, run_context, own_host)
        self._run_context = run_context
        self._begin_load(run_context)

    def _begin_load(self, run_context: RunContext) -> None:
        """Let users start, and build the prompts of their first stage."""
        if run_context.options.insecure:
            self._note(
                "--llm-insecure: certificates were not verified, so an attacker in the network could read and change "
                "keys and answers; use this option for tests only"
            )
        sys.setswitchinterval(_SWITCH_S)
        if not self.gate.plan.free:  # users can start in the meantime: they wait at the gate
            install_context(self._environment, run_context)
        self._build_prompts()
        gc.collect()
        gc.freeze()  # keeps the collector's pauses out of the measurement
        gc.set_threshold(*_GC_GENERATIONS)
        self._probe.start()
        if self._live is not None:
            self._live.start()
        if self.gate.plan.free:
            install_context(self._environment, run_context)

    def _make_open_loop(self, user_classes: list[Any], options: Options) -> OpenLoop:
        def record_unsent(user_class: Any, permit: Permit, code: str, message: str) -> None:
            user_class.record_unsent(self._environment, self._run_context, permit, code, message)

        drops = options.overflow == "drop"
        return OpenLoop(
            self._environment, user_classes, self.gate, record_unsent, drops=drops, trace_prompts=self._trace_prompts
        )

    def _make_queues(
        self, options: Options, tokenizer: Tokenizer, trace: Trace | None, user_classes: list[Any]
    ) -> tuple[PromptQueue[Prompt], ConversationQueue | None]:
        """Create the queue of prompts, and the queue of conversations if a user class holds them."""
        run = self._run
        assert run is not None
        self._make_source = partial(
            make_source,
            tokenizer=tokenizer,
            input_lengths=options.input_tokens,
            output_lengths=options.output_tokens,
            seed=options.seed,
            run_key=run.run_key,
            text=options.prompt,
            file=options.prompts,
            trace=trace,
            in_order=options.prompts_order == "file",
            prefixes=options.shared_prefix,
            cache_bust=run.run if options.cache_bust else None,
            pictures=options.images,
        )
        source = in_thread(self._make_source)
        for note in source.notes:
            self._note(note)
        first, step = run.first_prompt, run.prompt_step

        def make_queue(first: int, step: int) -> PromptQueue[Prompt]:
            return PromptQueue(source, first, step, self._note, Prompt.characters)

        prompts = make_queue(first, step)
        if trace is not None:
            self._trace_times_s = [entry.at_s for entry in trace.entries]
            self._trace_prompts = TracePrompts(self._trace_times_s, make_queue)
            self._trace_prompts.begin(ArrivalShare(first, step), prompts)
        holders = [user_class for user_class in user_classes if user_class.holds_conversations]
        if not holders:
            return prompts, None
        if options.length_sweep:
            raise ValueError(
                f"--llm-length-sweep does not apply to conversations, and {holders[0].__name__} holds conversations: "
                "their prompts grow with each turn"
            )
        make_conversations = partial(
            ConversationQueue,
            options,
            tokenizer,
            run.run_key,
            run.run if options.cache_bust else None,
            (first, step),
            self._note,
            has_prompts=len(holders) < len(user_classes),
        )
        return prompts, in_thread(make_conversations)

    def _build_prompts(self) -> None:
        """Build the prompts that the stage needs before it starts (``prompt_queue``)."""
        plan = self.gate.plan
        self._report_progress()
        self._change_lengths(plan.load.lengths)
        least = users = math.ceil(plan.users / plan.workers)
        rate_per_s = plan.load.rate_per_s
        if rate_per_s is not None:
            stage_s = plan.warmup_s + (plan.measure_s or 0.0)
            arrivals = plan.requests if plan.requests is not None else rate_per_s * stage_s
            count = math.ceil(arrivals / plan.workers) + plan.warmup_requests
            counted = plan.requests is not None and not plan.timed_warmup_s
            least = math.ceil(rate_per_s * _FIRST_ARRIVALS_S / plan.workers)
        elif plan.free or plan.requests is None:
            count, counted = 2 * users, False
        else:
            count = users * plan.warmup_requests + math.ceil(plan.requests * users / plan.users)
            counted = not plan.timed_warmup_s  # the number of requests in a given time is unknown
        for queue in reversed(self._queues()):
            queue.expect(queue.entries_of(count), least=least, counted=counted)
        if self.gate.plan is plan and not self._finished:
            self._built_stage = plan.stage
            self._on_ready(plan.stage, 0)

    def _change_lengths(self, lengths: Lengths | None) -> None:
        """Build the prompts of a stage with its own lengths, if it has any and they are new."""
        if lengths is None or lengths == self._lengths:
            return
        assert self._run_context is not None
        assert self._make_source is not None
        self._lengths = lengths
        inputs, outputs = (Fixed(LENGTHS, size) for size in lengths)
        source = in_thread(partial(self._make_source, input_lengths=inputs, output_lengths=outputs))
        self._run_context.prompts.change_source(source)

    def _on_ready(self, _stage: int, _waiting: int) -> None:
        if not self._reporting:
            self._reporting = True
            gevent.spawn_later(_READY_REPORT_S, self._report_ready)

    def _report_ready(self) -> None:
        self._reporting = False
        plan = self.gate.plan
        if self._built_stage == plan.stage and not self._finished:
            ready = messages.Ready(
                *self.identity,
                stage=plan.stage,
                waiting=self.gate.users_here,
                all_users_came=self.gate.all_users_came,
                no_users_reason=self.gate.no_users_reason,
            )
            self.send(ready)

    def _on_stage_finished(self, totals: StageTotals) -> None:
        done = messages.Done(*self.identity, totals=copy(totals))
        waits = [wait_s for queue in self._queues() for wait_s in queue.waits if wait_s > _NOTED_WAIT_S]
        if waits:  # the load and the times of these requests are not as requested
            self._note(
                f"stage {totals.stage}, worker {self.identity[1]}: {len(waits)} requests waited for their prompts, "
                f"{max(waits):.2g} s at most, because this worker could not build them as fast as it sent them; use "
                "more workers, or shorter prompts"
            )
        # In its own greenlet: the caller is a user, which may be stopped, and rows in the spool may take a while.
        self._telling = [greenlet for greenlet in self._telling if not greenlet.ready()]
        self._telling.append(gevent.spawn(self._tell_stage, done))

    def _tell_stage(self, done: messages.Done) -> None:
        self._flush()
        self.stall_guard.tell()
        self.send(done)

    def _on_lag(self, lag_s: float, own_s: float | None) -> None:
        self.gate.add_lag(lag_s, own_s)
        if self._live is not None:
            self._live.add_lag(lag_s, own_s)

    def _note(self, text: str, *, is_warning: bool = True) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.send(messages.Note(*self.identity, text=text, is_warning=is_warning))


def _run_s(options: Options, parsed: Any, trace: Trace | None) -> float | None:
    """Return how long the run will take, if the options define it."""
    stages_s = options.stage_time_s * options.stages if options.stage_time_s is not None else None
    replay_s = trace.duration_s if trace is not None else None
    times_s = [float(given) for given in (stages_s, replay_s, getattr(parsed, "run_time", None)) if given]
    return min(times_s, default=None)


class NoSingleModel(ValueError):
    """The server lists no model or several models, so the user must choose one."""


def only_model(user_class: Any, run_context: RunContext, host: str) -> str:
    """Return the only model that the server lists. Raises ``NoSingleModel`` with the list."""
    try:
        listed = user_class.listed_models(run_context, host)
    except Exception as error:
        from llm_users.users.failures import failure_of

        code, message = failure_of(error, host)
        if code == "401":
            text = (
                f"the server refused the key (401): {message}; no --llm-model was given, and {host} lists its models "
                "only with a valid key"
            )
        elif code == NOT_CONNECTED:
            text = f"{message}. A run without --llm-model starts with the list of the server's models"
        else:
            text = f"no --llm-model was given and {host} does not list its models ({code}: {message})"
        raise NoSingleModel(text) from error
    if len(listed) != 1:
        shown = ", ".join(sorted(listed)[:20]) + (", ..." if len(listed) > 20 else "") or "none"
        raise NoSingleModel(f"{host} lists {len(listed)} models ({shown}); choose one with --llm-model")
    return str(listed[0])
