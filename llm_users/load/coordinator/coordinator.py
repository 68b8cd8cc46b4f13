"""The coordinator of a run: decides which stage comes when. It runs on the master or in the only process.

It is a state machine that reacts to what really runs: announce a stage, wait until its users have reached the admission
gates, let them start, collect the reports of the workers, continue (``load.protocol.stage`` has the diagram). Locust's
shape only asks it for the number of users, when ``await_change`` returns.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from uuid import uuid4

import gevent
from gevent.event import Event
from msgspec.structs import replace

from llm_users.collect.stage_stats import progress
from llm_users.collect.writer import RowObserver, RunWriter
from llm_users.load.coordinator.budget import Budget
from llm_users.load.coordinator.expected_usage import input_length
from llm_users.load.coordinator.failure_log import FailureLog
from llm_users.load.coordinator.first_answers import FirstAnswers
from llm_users.load.coordinator.model_shares import ModelShares
from llm_users.load.coordinator.stages import FixedStages, StageSequence, StageSpec, listed_stages
from llm_users.load.coordinator.throttling import Throttling
from llm_users.load.coordinator.time_left import latency_s, later_s, stage_left_s
from llm_users.load.coordinator.worker_pool import Worker, WorkerPool, WorkerRegistry, building
from llm_users.load.protocol import messages
from llm_users.load.protocol.messages import LEASE_S, WAIT_S, Message
from llm_users.load.protocol.stage import StagePlan, StageTotals
from llm_users.number_words import counted
from llm_users.options.table import Options
from llm_users.record import RequestRecord, StageLoad, StageRecord

logger = logging.getLogger(__name__)

GATHER_S = 15.0
"""How long the users of a stage may take to reach the admission gate before it starts without the missing ones."""

NO_USERS_S = 150.0
"""How long a stage waits for its first user, whose ``on_start`` may take long."""
MOST_FREE_STAGES = 200
"""Maximum number of stages of a run without a sweep, one for each number of users. The last stage covers all later
changes."""

_LOOK_S = 0.5
_STOOD_STILL_S = 1.0
_PROGRESS_S = 5.0
_TELL_AGAIN_S = 2.0
_RESEND_S = 10.0
_SPREAD_AGAIN_S = 5.0
_MOST_SPREADS = 4
_BUILDING_TOLD_S = 2.0
"""The log does not mention prompts that take less time to build."""
_BARRIER_MARGIN_S = 15.0

_NO_STAGE = StagePlan(0, StageLoad())


class RunObserver:
    """Observes a run and its stages. This one does nothing."""

    def run_begins(self, options: Options, writer: RunWriter, note: Callable[[str], None]) -> None:
        """Process the beginning of a run, before its first stage. The run waits for the return.

        ``note`` writes a text into the log and the manifest.
        """

    def row(self, record: RequestRecord) -> None:
        """Process a row after it was counted."""

    def stage_starts(self, stage: int) -> None:
        """Process that the users of a stage are let through now. The method must not wait."""

    def stage_ends(self, stage: int, *, is_idle: bool) -> None:
        """Process that all requests of a stage have ended and their rows have arrived. The run waits for the return.

        ``is_idle``: no request is in flight. Otherwise the number of users changed, and requests of the next stage run.
        """

    def run_ends(self) -> None:
        """Process the end of a run."""


class Coordinator:
    """Coordinates one run after another. ``writer`` holds the rows of the current run.

    ``send`` sends a message to a worker. ``clients`` returns the connected workers (None: this process).
    ``make_writer`` creates the files of a run; its last argument observes the rows. ``make_stages`` creates the stages.
    ``stop_run`` stops Locust's test. ``before_stage`` is called before a stage is announced. ``on_silence`` is called
    repeatedly with the silent workers and whether other workers are active. ``reserves_quota``: the endpoint reserves
    tokens of quota. ``observer`` observes the run.
    """

    def __init__(
        self,
        send: Callable[[Message, str | None], None],
        clients: Callable[[], list[str | None]],
        make_writer: Callable[[str, Options, RowObserver], RunWriter],
        *,
        make_stages: Callable[[Options], StageSequence] = listed_stages,
        stop_run: Callable[[], None] = lambda: None,
        before_stage: Callable[[], None] = lambda: None,
        on_silence: Callable[[set[str | None], bool], None] = lambda _silent, _others: None,
        reserves_quota: bool = False,
        observer: RunObserver | None = None,
    ) -> None:
        self._send = send
        self._clients = clients
        self._make_writer = make_writer
        self._make_stages = make_stages
        self._stop_run = stop_run
        self._before_stage = before_stage
        self._on_silence = on_silence
        self._reserves_quota = reserves_quota
        self._observer = observer or RunObserver()
        self.options = Options()
        self.writer: RunWriter | None = None
        self.active = self._is_live = False
        self.refused: str | None = None
        self.unusable: str | None = None
        """Why the endpoint cannot be used: all requests of the run failed, and the same requests would fail again."""
        self.ended_by_itself = False
        self.run_time_is_over = False
        self._row_listeners: list[Callable[[RequestRecord], None]] = []
        self._stage_listeners: list[Callable[[StageRecord, list[StageTotals]], None]] = []
        self._notes_for_next: list[str] = []
        self._over = Event()
        self._change = Event()

        # The run.
        self._current_pool: WorkerPool | None = None
        self._budget = Budget(self.options)
        self._first_answers = FirstAnswers()
        self._failure_log, self._model_shares, self._throttling = FailureLog(), ModelShares(), Throttling()
        self._sequence: StageSequence = FixedStages(())
        self._deadline: float | None = None
        self._ending: str | None = None
        self._finals = Event()
        self._finishing = False
        self._others_said = False
        self._watching: gevent.Greenlet[[], None] | None = None
        self._alone_since: float | None = None  # no worker has answered since this time
        self._earlier: StagePlan | None = None  # a replaced free stage that is not closed yet
        self._closing: gevent.Greenlet[[], None] | None = None  # closes the last stage that ended
        self._measured = self._closed_stage = 0  # measured requests of finished free stages; the last stage closed
        self._last: StageRecord | None = None

        # The present stage. ``_announce`` sets these values for each stage.
        self._plan = _NO_STAGE  # between runs
        self._spec = StageSpec(StageLoad())
        self._users_wanted = 0  # from Locust
        self._users_given: int | None = None  # users of these that send LLM requests; None: not known yet
        self._gathering_timer: gevent.Greenlet[[], None] | None = None
        # Locust was asked to spread users again; a worker was lost or came back, so Locust moves users.
        self._spread_again = self._gathering_restarted = False
        self._times_spread_again = 0  # how often too many users were ready
        self._spread = 0  # makes the answers to Locust differ, see _wanted
        self._cycles, self._cycles_s = 0, 0.0  # finished measured requests, and their cycles in all
        self._measuring_since: float | None = None  # about when the first measured request of the stage began
        self._admitted = self._stage_ended = False  # its users were let through; it was ended early
        self._prepared_at = self._told_at = 0.0

    @property
    def _pool(self) -> WorkerPool:
        """Return the worker pool of the present or last run."""
        assert self._current_pool is not None
        return self._current_pool

    def watch_rows(self, listener: Callable[[RequestRecord], None], *, live: bool = True) -> None:
        """Pass every row of all later runs to the listener after it was counted.

        ``live``: workers of these runs also send live metrics.
        """
        self._row_listeners.append(listener)
        self._is_live = self._is_live or live

    def watch_stages(self, listener: Callable[[StageRecord, list[StageTotals]], None]) -> None:
        """Pass the row of every finished stage of all later runs to the listener, with the totals of its workers."""
        self._stage_listeners.append(listener)

    # The run.

    def begin(self, options: Options, *, users: int, run_s: float | None, withhold_keys: bool = False) -> None:
        """Start a run: announce the first stage of the sequence, or else the one free stage.

        ``withhold_keys``: workers must not send keys or other values of their environment to the endpoint.
        """
        if self.active:
            return
        self.options = options
        clients = self._clients()
        self._sequence = self._make_stages(options)
        first = self._sequence.next(None)
        self._budget = Budget(options, distributed=clients != [None], reserves_quota=self._reserves_quota)
        self.refused = self._budget.plan(
            1,
            first.most(options) if first else users,
            free=first is None,
            lengths=first.load.lengths if first else None,
        )
        if self.refused:
            logger.error("the run is refused: %s", self.refused)
            return
        self.active = True
        self.ended_by_itself = self._others_said = self.run_time_is_over = False
        self.unusable = self._ending = self._alone_since = self._earlier = None
        self._first_answers, self._failure_log = FirstAnswers(), FailureLog()
        self._model_shares = ModelShares()
        self._throttling = Throttling(on_bedrock=self._reserves_quota, input_length=input_length(options))
        self._measured = 0
        run_id, run_key = uuid4().hex[:8], options.repeated_run_key or uuid4().hex[:16]
        try:
            self.writer = self._make_writer(run_id, options, self)
        except OSError as error:
            self.active, self.refused = False, str(error)
            logger.error("the run is refused: %s", error)
            return
        self.writer.write_manifest(run_key=run_key)
        for text in self._notes_for_next:
            self.writer.note(text)
        self._deadline = time.monotonic() + run_s if run_s else None
        rows_at_once = options.budget is not None or options.chunk_times  # these options need each row immediately
        self._current_pool = WorkerPool(
            self._send,
            self.writer,
            clients,
            run_key,
            live=self._is_live,
            rows_at_once=rows_at_once,
            withhold_keys=withhold_keys,
        )
        self._observer.run_begins(options, self.writer, self.note)
        self._announce(1, first or StageSpec(StageLoad(users)), free=first is None)
        if self._pool.distributed:
            self._watching = gevent.spawn(self._look_after)

    def why_refused(self, options: Options, first: StageSpec | None, *, users: int) -> str | None:
        """Return why a run would be refused because of its budget, or None. ``first`` is its first stage, if it has
        stages, and ``users`` are those of a run without stages.
        """
        budget = Budget(options, distributed=self._clients() != [None], reserves_quota=self._reserves_quota)
        lengths = first.load.lengths if first else None
        return budget.why_not(1, first.most(options) if first else users, free=first is None, lengths=lengths)

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users of the current stage and the spawn rate, or None when the sweep is over."""
        if not self.active:
            return None
        if self._finishing:  # the code that stops the run ends the shape too
            return self._wanted()
        plan, now = self._plan, time.monotonic()
        if self._admitted and now - self._told_at >= _PROGRESS_S:
            self._told_at = now
            logger.info("%s", self._progress(now))
        if self._deadline is not None and now >= self._deadline and self._ending is None:
            self._ending = "the run time is over"
            self.run_time_is_over = True
            self._end_stage()
            self.ended_by_itself = True
            return None
        if self._builds:
            self._prepared_at = now  # users have GATHER_S from the moment when the prompts are ready
        waited_s = now - self._prepared_at
        if self._gathering and (reason := self._no_users_reason(waited_s)):
            self._end_without_users(reason)
            return None
        if self._gathering and waited_s > _SPREAD_AGAIN_S and self._pool.changes and not self._spread_again:
            # Locust's message to a silent worker may be lost, or older than what Locust knows about other workers.
            self._spread_again = True
            self._pool.changes += 1
        if self._gathering and waited_s > GATHER_S and not self._too_many_ready():
            self._go_with_ready_users()
        if self._admitted and not self._stage_ended and self._sequence.enough():
            self._end_stage()
        if self.workers.all_done and (self.workers.present or self._alone_for_long):
            self._begin_close(self._close_stage).get()
            return self._next_stage(plan.stage + 1)
        return self._wanted()

    def _next_stage(self, number: int) -> tuple[int, float] | None:
        """Announce the next stage. Return what Locust shall do, as ``tick``."""
        if self._finishing or not self.active:  # the run was ended while the stage before was closed
            return self._wanted() if self.active else None
        spec = self._sequence.next(self._last) if self._ending is None else None
        if spec is None:
            self.ended_by_itself = True
            return None
        if over_budget := self._budget.plan(number, spec.most(self.options), free=False, lengths=spec.load.lengths):
            self._end_for_budget(over_budget)
            self.ended_by_itself = True
            return None
        self._announce(number, spec, free=False)
        return self._wanted()

    def _progress(self, now: float) -> str:
        """Return the progress of the stage, with the remaining times as far as they are known."""
        plan = self._plan
        counts = self._pool.writer.book.counts(plan.stage)
        stage_s = run_s = later = None
        if self._measuring_since is not None:
            done, passed_s = counts[0], now - self._measuring_since
            cycle_s = self._cycles_s / self._cycles if self._cycles else None
            stage_s = stage_left_s(plan, done, passed_s, cycle_s)
            specs = self._sequence.later
            later = None if specs is None else later_s(specs, plan, latency_s(plan, done, passed_s, cycle_s))
        if stage_s is not None and later is not None:
            run_s = stage_s + later
        if self._deadline is not None:
            rest_s = self._deadline - now
            run_s = rest_s if run_s is None else min(run_s, rest_s)
        return progress(
            plan, self.stages, counts, total=self._sequence.total_text, stage_left_s=stage_s, run_left_s=run_s
        )

    def await_change(self, timeout_s: float) -> None:
        """Wait until ``tick`` may return something else because the requests of the stage are done."""
        self._change.wait(timeout_s)
        self._change.clear()

    def _wanted(self) -> tuple[int, float]:
        """Return the number of users, and a spawn rate that starts them all at once.

        Locust spreads users again and replaces ended users only when this answer differs from the last one.
        """
        if self._gathering:
            self._spread = self._plan.stage + self._pool.changes
        return self._users_wanted, max(1, self._users_wanted) + self._spread * 1e-6

    def finish(self, *, abort: bool, grace_s: float, interrupted: bool = False) -> None:
        """End the run: collect what the workers still have, then complete the files.

        ``interrupted``: a user or a signal ended the run, so requested but unmeasured stages are missing.
        """
        if not self.active:
            return
        if self._finishing:
            self._over.wait()
            return
        self._finishing = True
        pool, plan = self._pool, self._plan
        # Whether a stage, or a part of one, is still to be measured. A free stage has more only if it counts requests.
        is_unfinished = not self.workers.all_done and not (plan.free and plan.requests is None)
        has_later_stages = not plan.free and plan.stage < self.stages
        cut_short = interrupted and self._ending is None and (is_unfinished or has_later_stages)
        self._over.clear()
        self._finals.clear()
        limit = time.monotonic() + (0 if abort else grace_s) + _BARRIER_MARGIN_S
        told_at = -math.inf
        while True:
            # A worker that received the message before only answers again.
            if time.monotonic() - told_at > _TELL_AGAIN_S:
                told_at = time.monotonic()
                pool.tell_all(messages.Finish(pool.run_id, abort=abort, grace_s=grace_s))
            if self.workers.all_final(self._clients()) or time.monotonic() >= limit:
                break
            self._finals.wait(timeout=0.5)
            self._finals.clear()
        if pool.distributed:
            # Request rows that were lost with a connection from the workers, which have them in their spools.
            limit = time.monotonic() + _RESEND_S
            pool.recover()
            connected = self._clients()
            lacking = [w for w in self.workers if w.final and w.account.lost and w.client_id in connected]
            for worker in lacking:
                pool.tell(worker, messages.Resend(pool.run_id))
            while any(worker.account.lost for worker in lacking) and time.monotonic() < limit:
                self._finals.wait(timeout=0.1)
                self._finals.clear()
        if self._watching is not None:
            self._watching.kill(block=False)
        if cut_short:
            where = f"in stage {plan.stage} of {self._sequence.total_text}" if not plan.free else "early"
            pool.fall_short(f"the run was ended {where}, before everything requested was measured")
        self.workers.settle()
        self._stop_gathering_timer()
        self._close_open_stages()
        self._closed_stage, self._plan = 0, _NO_STAGE
        self._judge_failures()
        self._observer.run_ends()
        pool.settle(self.refused)
        self.active = self._finishing = False
        self._over.set()

    def abort(self) -> None:
        """Cut off the requests that still drain."""
        if self._finishing:
            self._pool.tell_all(messages.Finish(self._pool.run_id, abort=True, grace_s=0.0))

    # Messages from workers. The inbox passes only messages of workers of the active run.

    def on_join(self, client_id: str) -> None:
        """Let a worker join a run that has started. It gets a share from the next stage on."""
        if self.plan is None or self._finishing:
            return
        worker = self.workers.find(client_id)
        if worker is None:
            worker = self._pool.take_in(client_id)
            self._pool.say_change(f"worker {worker.rank} joined in stage {self._plan.stage}")
            self._pool.admit(worker, self._plan)
        elif not worker.told:
            self._pool.tell_run(worker)

    def on_count(self, message: messages.Count) -> None:
        """Process a COUNT: what a worker has started, and its position in the run."""
        worker, pool, plan = self.workers.get(message.worker), self._pool, self._plan
        if worker is None:
            return
        self.workers.take_count(worker, message)
        if worker.lost:
            return  # the message is old; a worker that is back sends BACK first
        self.workers.hear(worker)
        pool.tell(worker, messages.Ack(pool.run_id, number=message.number))
        if worker.final or self._finishing or not pool.distributed:
            return
        if message.known_stage == plan.stage and message.waiting is not None:
            self._take_waiting(worker, message.waiting)
        pool.tell_what_was_missed(worker, plan, message)
        if self._stage_ended and message.admitted and not message.over:
            pool.tell(worker, messages.End(pool.run_id, stage=plan.stage))

    def on_back(self, message: messages.Back) -> None:
        """Answer a worker that had no answer for a while and asks what it has left to do."""
        worker = self.workers.get(message.worker)
        if worker is None or worker.final:
            return
        if self.workers.hear(worker):
            self._pool.say_change(f"worker {worker.rank} was back in stage {self._plan.stage}")
            if self._gathering:  # Locust may have assigned users to it already
                worker.assignment.expected = True
                self._restart_gathering()
        self._pool.tell_quota(worker, message.number)

    def on_ready(self, message: messages.Ready) -> None:
        """Process a READY: how many users of a worker wait at its admission gate."""
        worker = self.workers.get(message.worker)
        if worker is not None and message.stage == self._plan.stage:
            worker.assignment.all_users_came = message.all_users_came
            worker.assignment.no_users_reason = message.no_users_reason
            self._take_waiting(worker, message.waiting)

    def _take_waiting(self, worker: Worker, waiting: int) -> None:
        worker.assignment.waiting = waiting
        if worker.building is not None:
            worker.building, self._prepared_at = None, time.monotonic()
        if self._plan.free and self._admitted and not worker.assignment.admitted:
            self._pool.admit_late_worker(worker, self._plan)
        self._go_when_gathered()

    def on_preparing(self, message: messages.Preparing) -> None:
        """Log the progress of a worker that builds the prompts of the stage. The worker sends it once per second."""
        worker = self.workers.get(message.worker)
        if worker is None or message.stage != self._plan.stage or worker.assignment.waiting is not None:
            return
        worker.building = message.built, message.wanted
        now = time.monotonic()
        if now - self._told_at >= _PROGRESS_S:
            self._told_at = now
            logger.info("stage %d: %s", self._plan.stage, building(self.workers.present))

    def on_spawned(self, target: int, users: int, others: int) -> None:
        """Process the users that Locust has started: ``users`` send LLM requests, ``others`` do not."""
        if self._admitted and users != self._users_given:  # the same number of users, but of other classes
            self._change_free_stage(target)
        if not self.active or self._admitted or self._finishing or target != self._users_wanted:
            return
        if not self._plan.load.is_open:
            asked = max(0, target - others)
            self._plan = replace(self._plan, load=self._plan.load.with_users(asked), concurrency_asked=asked)
            if others and not self._others_said:
                self._others_said = True
                self._pool.say(
                    f"{others} of {target} users are of classes that do not send LLM requests, so the concurrency of "
                    f"stage {self._plan.stage} is {asked}; other stages exclude such users as well"
                )
        self._users_given = users
        if self._plan.free:
            self._stop_gathering_timer()
            self._gathering_timer = gevent.spawn(self._limit_gathering)
        self._go_when_gathered()

    def on_target(self, users: int) -> None:
        """Process a new number of users in Locust. Without a sweep it begins another stage."""
        if users != self._users_wanted:
            self._change_free_stage(users)

    def _change_free_stage(self, users: int) -> None:
        plan = self._plan
        if not plan.free or self._finishing or not self.active:
            return
        self._users_wanted, self._users_given = users, None
        self._stop_gathering_timer()
        if not self._admitted:  # nothing was measured with the earlier number
            self._plan = replace(plan, load=plan.load.with_users(users), concurrency_asked=users)
        elif self.workers.all_done:
            return
        elif plan.stage >= MOST_FREE_STAGES:
            self._pool.say(
                f"the number of users changed more than {MOST_FREE_STAGES} times; stage {plan.stage} covers all later"
                " changes, so its figures mix different numbers of users"
            )
        else:
            self._earlier = plan
            self._announce(plan.stage + 1, StageSpec(StageLoad(users)), free=True)
            self._close_earlier_if_done()

    def on_done(self, message: messages.Done) -> None:
        """Process the totals of a worker's part of a stage."""
        totals, plan, pool = message.totals, self._plan, self._pool
        worker = self.workers.get(totals.worker)
        assignment = worker.assignments.get(totals.stage) if worker is not None else None
        if worker is None or assignment is None:
            return
        late = totals.stage <= self._closed_stage and assignment.totals is None
        totals.told_at, assignment.totals = assignment.told_at, totals
        if self._earlier is not None and totals.stage == self._earlier.stage:
            self._close_earlier_if_done()
            return
        if late:  # the worker was cut off when the stage ended
            pool.writer.add_totals(totals)
        if totals.stage != plan.stage:
            return
        if totals.given_up:  # the worker could not connect even once
            if self.unusable is not None:
                pass  # the run ends, and the reason is in the log
            elif all(other.gave_up for other in self.workers.present if other.assignment.admitted):
                logger.error(
                    "stage %d ended: its first requests all failed to connect. %s", plan.stage, totals.given_up
                )
                self._end_stage()
            elif not self._stage_ended:
                given = pool.hand_over(worker, plan)
                then = f"; the other workers send the {given} requests that it had not started" if given else ""
                pool.say(f"worker {worker.rank} could not connect in stage {plan.stage} ({totals.given_up}){then}")
        elif totals.no_users_reason:
            given = pool.hand_over(worker, plan)
            if given is None:
                pool.give_up(worker, plan)
            if totals.started or not given:
                then = f"; {given} requests that it had not started were reassigned to other workers" if given else ""
                where = f" on worker {worker.rank}" if len(self.workers) > 1 else ""
                pool.say(f"stage {plan.stage} ended early{where}: {totals.no_users_reason}{then}")
        self._stop_if_done()

    def on_foreign(self, kind: str, client_id: str, run: str, rows: int) -> None:
        """Process a message, or rows, of another run or of a process that does not take part in this run."""
        if self.active and self._current_pool is not None:
            self._current_pool.refuse(client_id, rows)
        if kind in (messages.Count.kind, messages.Back.kind):
            self._send(messages.Leave(run), client_id)

    def rank_in_run(self, client_id: str) -> tuple[str, int] | None:
        """Return the run that a worker takes part in and its rank there, or None if it takes part in no active run."""
        if not self.active or self.writer is None or self._current_pool is None:
            return None
        worker = self.workers.find(client_id if self._pool.distributed else None)
        return None if worker is None else (self.writer.run_id, worker.rank)

    def on_rows(self, message: messages.Rows) -> None:
        """Write rows of requests that have ended."""
        if self.writer is not None:
            self.writer.add_packed(message.rows)

    def on_final(self, message: messages.Final) -> None:
        """Process the last message of a worker, which has sent all its rows."""
        worker, pool = self.workers.get(message.worker), self._pool
        if worker is not None and not worker.final:
            early = self.active and not self._finishing
            self.workers.leave(worker, message.sent, early=early)
            if early:
                self._on_gone(worker, "left")
                if all(worker.final for worker in self.workers):  # they will not come back; Locust stops the test
                    pool.fall_short(f"all workers left in stage {self._plan.stage}, so the run ended there")
                gevent.spawn(pool.release_early, worker)
        self._finals.set()

    def on_note(self, message: messages.Note) -> None:
        self.note(message.text, is_warning=message.is_warning)

    def note(self, text: str, *, is_warning: bool = True) -> None:
        """Write a text to the log and into the manifest of this run, once."""
        if self._current_pool is not None:
            self._current_pool.say(text, is_warning=is_warning)
            if self.writer is not None and not self.active:  # the manifest of the run is complete without the note
                self.writer.write_manifest()

    def note_for_next(self, text: str) -> None:
        """Add a text to the manifest of the active run, or of the next run if none is active."""
        self._notes_for_next.append(text)
        if self.writer is not None and self.active:
            self.writer.note(text)

    def on_refused(self, message: messages.Refused) -> None:
        """End the run because a worker cannot take part."""
        if self.refused is None:
            self.refused = message.reason
            logger.error("the run is refused: %s", self.refused)
            gevent.spawn(self._stop_run)

    @property
    def workers(self) -> WorkerRegistry:
        """Return the workers of the run."""
        return self._current_pool.workers if self._current_pool is not None else WorkerRegistry()

    @property
    def incomplete(self) -> list[int]:
        """Return the ranks of workers that never sent their final count."""
        return [worker.rank for worker in self.workers if not worker.final]

    @property
    def plan(self) -> StagePlan | None:
        """Return the present stage, or None between runs.

        Its fields about one worker are the values for the last worker.
        """
        return self._plan if self.active and self._plan.stage else None

    @property
    def finishing(self) -> bool:
        """Return whether the run is stopping and requests in flight may end."""
        return self._finishing

    @property
    def stages(self) -> int:
        """Return the number of stages of the run. Without a sweep, the number so far."""
        return self._plan.stage if self._plan.free else self._sequence.count

    @property
    def worker_names(self) -> dict[int, str]:
        """Return the names of the present workers by rank."""
        return {worker.rank: worker.client_id or "this process" for worker in self.workers.present}

    @property
    def shortfall(self) -> list[str]:
        """Return messages about what was requested in this run and not measured."""
        return self._current_pool.shortfall if self._current_pool is not None else []

    # Rows.

    def before_row(self, record: RequestRecord) -> None:
        """Mark a row as not measured if its request was reassigned to other workers."""
        self._pool.admit_row(record)

    def after_row(self, record: RequestRecord) -> None:
        """Process a row. The first answers and the budget decide whether the run continues, the stage sequence whether
        the stage does.
        """
        self._budget.add(record)
        self._failure_log.add(record)
        self._model_shares.add(record)
        self._throttling.add(record)
        self._first_answers.add(record)
        failed = self._sequence.seen(record)
        self._observer.row(record)
        for listener in self._row_listeners:
            listener(record)
        plan = self._plan
        if not plan.stage or self._ending is not None:
            return
        if record.measured and record.stage == plan.stage and record.end_to_end_latency_s:
            self._cycles += 1
            self._cycles_s += record.end_to_end_latency_s + (record.queue_s or 0.0) + (record.think_s or 0.0)
        if self._measuring_since is None and record.measured and record.stage == plan.stage:
            self._measuring_since = time.monotonic() - (record.end_to_end_latency_s or 0.0)
        if not self.options.keep_going and (problem := self._first_answers.problem(self._ranks_with_users)):
            self._end_for_endpoint(problem)
            self._end_last_stage()
        elif not self.options.keep_going and self._throttling.long_quota is not None:
            self._end_for_quota(self._throttling.long_quota)
            self._end_last_stage()
        elif why := self._budget.why_stop(plan.max_in_flight or plan.users):
            self._end_for_budget(why)
            self._end_last_stage()
        elif failed and plan.stage == record.stage != self._closed_stage and not self._stage_ended:
            logger.info("stage %d ends early: %s", record.stage, failed)
            self._end_stage()

    def _ranks_with_users(self) -> list[int]:
        present = self.workers.present
        return [worker.rank for worker in present if worker.assignment.admitted and worker.assignment.users]

    def _end_for_endpoint(self, problem: str) -> None:
        self._ending, self.unusable = "the endpoint", problem
        logger.error("the run ends: %s", problem)
        self._pool.writer.note(f"the run was ended: {problem}")

    def _judge_failures(self) -> None:
        """Log the number of failures, or that the endpoint cannot be used, if the run was too short to end early."""
        problem = self._first_answers.verdict()
        if problem is not None and self.unusable is None and not self.options.keep_going:
            self.unusable = problem
            logger.error("%s", problem)
            self._pool.writer.note(problem)
        if self.unusable is None:
            self._failure_log.end()
            if advice := self._throttling.advice():
                logger.warning("%s", advice)
                self._pool.writer.note(advice)

    def _end_for_quota(self, message: str) -> None:
        self._ending = "a quota"
        self._pool.fall_short(
            f"the run ends, because an exceeded quota does not recover within it: {message.rstrip('.')}. Repeat the "
            "run when the quota is full again, or ask for a larger one; --llm-keep-going continues the run"
        )

    def _end_for_budget(self, why: str) -> None:
        self._ending = "the budget"
        logger.error("the run ends: %s", why)
        self._pool.writer.note(f"the run was ended: {why}")

    # Workers that join and leave.

    def _look_after(self) -> None:
        looked_at = time.monotonic()
        while self.active:
            gevent.sleep(_LOOK_S)
            now = time.monotonic()
            if now - looked_at > _LOOK_S + _STOOD_STILL_S:
                self.workers.forget_silence()
            looked_at = now
            plan, pool = self._plan, self._pool
            if self._finishing or not plan.stage:
                continue
            for worker in self.workers.fell_silent():
                self._on_gone(worker, "was lost")
            silent = {worker.client_id for worker in self.workers if worker.lost}
            self._on_silence(silent, bool(self.workers.steady))
            for worker in self.workers:
                if not (worker.lost or worker.final) or worker.done:
                    continue
                given = self._hand_over(worker)  # earlier, no worker could take its share
                if given:
                    pool.say(
                        f"{given} requests of stage {plan.stage} that worker {worker.rank} had not started were "
                        "reassigned to other workers"
                    )
                if given is not None:
                    self._stop_if_done()
            for worker in self.workers.gone_for_good():
                pool.give_up(worker, plan)
            if self.workers.present:
                self._alone_since = None
            elif self._alone_since is None:
                self._alone_since = now
                logger.warning(
                    "no worker has answered for %g s; the run waits %g s for a worker to come back", LEASE_S, WAIT_S
                )
            elif self._alone_for_long and self._ending is None:
                self._ending = "no worker is left"
                pool.fall_short(f"all workers were lost and none came back within {WAIT_S:g} s, so the run was ended")
                self.ended_by_itself = True
                gevent.spawn(self._stop_run)

    @property
    def _alone_for_long(self) -> bool:
        return self._alone_since is not None and time.monotonic() - self._alone_since > WAIT_S

    def _on_gone(self, worker: Worker, how: str) -> None:
        given = self._hand_over(worker)
        then = f"; {given} requests that it had not started were reassigned to the other workers" if given else ""
        if given is None:
            then = "; no other worker can take over the requests that it had not started, so they wait for one"
        self._pool.say_change(f"worker {worker.rank} {how} in stage {self._plan.stage}{then}")
        if worker.assignment.expected:
            self._restart_gathering()
        self._close_earlier_if_done()
        self._go_when_gathered()
        if self.workers.present:
            self._stop_if_done()

    def _hand_over(self, worker: Worker) -> int | None:
        if self._stage_ended:
            self._pool.give_up(worker, self._plan)
            return 0
        return self._pool.hand_over(worker, self._plan)

    # The users of a stage come to the admission gates.

    @property
    def _gathering(self) -> bool:
        return bool(self._plan.stage) and self._earlier is None and not self._admitted

    @property
    def _expected(self) -> list[Worker]:
        """Return the workers that the announced stage waits for."""
        return [worker for worker in self.workers.present if worker.assignment.expected]

    @property
    def _ready(self) -> int:
        """Return the number of users that wait at the admission gates of the expected workers."""
        return sum(worker.assignment.waiting or 0 for worker in self._expected)

    @property
    def _builds(self) -> bool:
        """Return whether a worker is still building prompts."""
        return any(worker.building is not None for worker in self.workers.present)

    def _no_users_reason(self, waited_s: float) -> str | None:
        """Return why the users of the announced stage will not be ready, or None while some may be or are ready."""
        present = self.workers.present
        if any(worker.assignment.waiting for worker in present):
            return None
        reasons = [worker.assignment.no_users_reason for worker in present if worker.assignment.no_users_reason]
        if reasons and (len(reasons) == len(present) or waited_s > GATHER_S):
            return reasons[0]
        if waited_s > NO_USERS_S:
            return f"no user was ready to send a request within {NO_USERS_S:g} s"
        return None

    def _end_without_users(self, why: str) -> None:
        self._ending = "no users"
        self._pool.fall_short(f"stage {self._plan.stage} was not measured, and the run ends: {why}")
        self.ended_by_itself = True

    def _go_when_gathered(self) -> None:
        """Start the stage when all its users are ready, or when the missing ones have failed or left."""
        plan, workers = self._plan, self._expected
        # All workers must have reported: one that still has users of a larger stage could reach the number alone.
        if not self._gathering or any(worker.assignment.waiting is None for worker in workers):
            return
        ready, given = self._ready, self._users_given
        if given is None:
            if ready == plan.users and not plan.free:
                self._go()
        elif ready == given:
            self._go()
        elif (
            0 < ready < given
            and not self._gathering_restarted
            and all(worker.assignment.all_users_came for worker in workers)
        ):
            self._say_missing(ready, "the others failed or left before their first request; see the log for the reason")
            self._go()
        elif plan.free and not self._finishing and (reason := self._no_users_reason(0.0)):
            self._end_without_users(reason)
            gevent.spawn(self._stop_run)

    def _restart_gathering(self) -> None:
        """Wait for users again: Locust moves users between workers, so more users will be ready than now."""
        if self._gathering:
            self._gathering_restarted, self._spread_again = True, False
            self._prepared_at = time.monotonic()

    def _too_many_ready(self) -> bool:
        """Return whether to wait until Locust removes users, which it also gave to workers that were silent."""
        waits = self._ready > (self._users_given or self._users_wanted) and self._times_spread_again < _MOST_SPREADS
        if waits:
            self._prepared_at = time.monotonic()
            self._times_spread_again += 1
            self._pool.changes += 1
        return waits

    def _limit_gathering(self) -> None:
        """Limit the wait for users in a run without a sweep, in which Locust does not call ``tick``."""
        began_at = time.monotonic()
        while time.monotonic() - began_at < GATHER_S:
            gevent.sleep(_LOOK_S)
            if self._builds:
                began_at = time.monotonic()
        self._go_with_ready_users()

    def _go_with_ready_users(self) -> None:
        """Start the stage without the users that are not ready by now."""
        if not self._gathering or self._finishing:
            return
        if ready := self._ready:
            self._say_missing(ready, f"the others were not ready within {GATHER_S:g} s")
            self._go()
            return
        self._pool.say(f"stage {self._plan.stage}: no user was ready within {GATHER_S:g} s; the stage waits for one")
        if self._plan.free:
            self._gathering_timer = gevent.spawn(self._limit_gathering)

    def _say_missing(self, ready: int, why: str) -> None:
        asked = self._plan.users
        if ready > asked:
            text = f"{ready} users were ready instead of {asked}: workers that had been silent kept their users"
        else:
            text = f"only {ready} of {counted(asked, 'user')} were ready: {why}"
        self._pool.say(f"stage {self._plan.stage}: {text}; the stage runs with {counted(ready, 'user')}")

    def _stop_gathering_timer(self) -> None:
        timer, self._gathering_timer = self._gathering_timer, None
        if timer is not None and timer is not gevent.getcurrent():
            timer.kill(block=False)

    # A stage begins and ends.

    def _announce(self, stage: int, spec: StageSpec, *, free: bool) -> None:
        self._before_stage()
        self._measuring_since = None
        self._cycles, self._cycles_s = 0, 0.0
        self._admitted = self._stage_ended = self._spread_again = self._gathering_restarted = False
        self._times_spread_again = 0
        self._prepared_at = time.monotonic()
        self._told_at = self._prepared_at - _PROGRESS_S + _BUILDING_TOLD_S
        self._spec = spec
        self._plan = plan = self._pool.plan_of(self.options, stage, spec, free=free)
        self._users_wanted, self._users_given = plan.users, None
        self._spread = stage + self._pool.changes
        if free and stage == 1:  # its users send requests while others are still started
            self._observer.stage_starts(stage)
        self._pool.announce(plan)

    def _go(self) -> None:
        plan = self._plan
        self._stop_gathering_timer()
        self._admitted = True
        if not plan.load.is_open:
            requests = plan.requests
            if plan.free and requests is not None:
                requests = max(0, requests - self._measured)
            self._plan = plan = replace(plan, load=plan.load.with_users(self._ready), requests=requests)
        if not plan.free:
            length = self._spec.length_text(plan.requests, plan.measure_s)
            logger.info("stage %d of %s: %s, %s", plan.stage, self._sequence.total_text, plan.load.text, length)
            self._told_at = time.monotonic()
        if not plan.free or plan.stage > 1:
            self._observer.stage_starts(plan.stage)
        self._pool.admit_users(plan)

    def _stop_if_done(self) -> None:
        """Stop a free run whose requests are done. In a sweep, ``tick`` ends the stage."""
        if not self.workers.all_done:
            return
        self._change.set()
        self._stop_free_run()

    def _stop_free_run(self) -> None:
        if self._plan.free and not self._finishing and not self.ended_by_itself:
            self.ended_by_itself = True
            gevent.spawn(self._stop_run)

    def _end_last_stage(self) -> None:
        """End the present stage and with it the run. In a sweep, ``tick`` ends the run."""
        self._end_stage()
        self._stop_free_run()  # do not wait for users that Locust is still starting

    def _end_stage(self) -> None:
        self._stage_ended = True
        self._pool.tell_all(messages.End(self._pool.run_id, stage=self._plan.stage))

    def _close_earlier_if_done(self) -> None:
        """Close the stage before the present free one when all workers have reported it."""
        if self._earlier is None or self._finishing:
            return
        for worker in self.workers:
            assignment = worker.assignments.get(self._earlier.stage)
            owes_totals = assignment is not None and assignment.admitted and assignment.totals is None
            if owes_totals and not (worker.lost or worker.final):
                return
        self._begin_close(self._close_earlier)

    def _close_earlier(self) -> None:
        if self._earlier is None:
            return
        self._measured += sum(worker.started_measured(self._earlier.stage) for worker in self.workers)
        self._finish_record(self._earlier)
        self._earlier = None  # the present stage may start only now
        if not self._finishing:
            self._go_when_gathered()

    def _begin_close(self, close: Callable[[], None]) -> gevent.Greenlet[[], None]:
        """Close a stage in another greenlet, because Locust may kill the present one while the observer waits."""
        if self._closing is None or self._closing.ready():
            self._closing = gevent.spawn(close)
        return self._closing

    def _close_open_stages(self) -> None:
        """Close the stages that are still open at the end of a run."""
        if self._closing is not None:
            self._closing.join()
        self._close_earlier()
        if self._closed_stage != self._plan.stage and self._pool.writer.book.started:
            self._close_stage()
        else:
            self._pool.recover()

    def _finish_record(self, plan: StagePlan) -> tuple[StageRecord, list[StageTotals]]:
        assignments = [worker.assignments[plan.stage] for worker in self.workers if plan.stage in worker.assignments]
        totals = [assignment.totals for assignment in assignments if assignment.totals is not None]
        self._pool.recover()
        self._observer.stage_ends(plan.stage, is_idle=plan is not self._earlier)
        record = self._pool.writer.finish_stage(plan.stage, plan.load, totals, asked=plan.concurrency_asked)
        self._pool.tell_of(record)
        for listener in self._stage_listeners:
            listener(record, totals)
        if shares := self._model_shares.text(plan.stage, plan.load):
            logger.info("stage %d: %s", plan.stage, shares)
        return record, totals

    def _close_stage(self) -> None:
        """Close the stage: all workers have finished it and its rows have arrived."""
        plan, pool = self._plan, self._pool
        self._closed_stage = plan.stage
        record, totals = self._finish_record(plan)
        self._last = record
        limit = self.options.stop_on_errors
        if limit is not None and record.requests_measured and record.requests_failed / record.requests_measured > limit:
            self._ending = "too many errors"
            logger.error(
                "the sweep ends: %d of %d requests of stage %d failed, more than --llm-stop-on-errors %g",
                record.requests_failed, record.requests_measured, plan.stage, limit,
            )  # fmt: skip
        if self._ending is None and not self._finishing:
            why = next((part.no_users_reason for part in totals if part.no_users_reason and part.started), None)
            pool.check_started(plan, given_up=self._stage_ended or any(part.given_up for part in totals), why=why)
            if why and plan.measure_s is not None and not self._stage_ended:
                pool.fall_short(f"stage {plan.stage} ended before its time: {why}")
            if not record.requests_measured and not (plan.free or self._stage_ended):
                pool.fall_short(f"stage {plan.stage}: no request was measured")
