"""The coordinator of a run: which stage comes when, on the master or in the only process.

A state machine driven by what really runs: announce a stage, wait until its users stand at the gate, let them go,
collect what the workers report, go on. Locust's shape only asks it for the user count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import gevent
from gevent.event import Event

from llm_users.collect.stages import load_of, progress, totals_from
from llm_users.collect.writer import RunWriter
from llm_users.load import messages
from llm_users.load.crew import Crew
from llm_users.load.levels import FixedLevels, Level, Levels, listed_levels
from llm_users.load.roster import Roster, Worker
from llm_users.load.spending import Spending
from llm_users.options import Options
from llm_users.plan import StagePlan, StageTotals
from llm_users.record import RequestRecord, StageRecord

logger = logging.getLogger(__name__)

GATHER_S = 15.0
"""How long the users of a stage may take to come to the gate before it starts without the missing ones."""

NOBODY_S = 150.0
"""How long a stage waits for its first user, whose ``on_start`` may take long."""

_LOOK_S = 0.5
_PROGRESS_S = 5.0
_BARRIER_MARGIN_S = 15.0


class Coordinator:
    """One run after the other; ``writer`` holds the rows of the current one."""

    def __init__(
        self,
        send: Callable[[str, dict[str, Any], str | None], None],
        clients: Callable[[], list[str | None]],
        make_writer: Callable[[str, Options], RunWriter],
    ) -> None:
        self._send = send
        self._clients = clients
        self._make_writer = make_writer
        self.options = Options()
        self.writer: RunWriter | None = None
        self.active = False
        self.refused: str | None = None
        self.reserves_quota = False
        self.watch: Callable[[RequestRecord], None] | None = None  # whoever shows the run while it goes on
        self._spending = Spending(self.options)
        self.stop_run: Callable[[], None] = lambda: None
        self.ended_by_itself = False
        self.before_stage: Callable[[], None] = lambda: None
        self.make_levels: Callable[[Options], Levels] = listed_levels
        self._crew: Crew | None = None
        self._spread = 0  # changes of the crew before the present stage
        self._watching: gevent.Greenlet[[], None] | None = None
        self._plan: StagePlan | None = None
        self._levels: Levels = FixedLevels(())
        self._level = Level()
        self._last: StageRecord | None = None
        self._gone = False  # the stage's users were let go
        self._stage_ended = False  # before its time
        self._prepared_at = 0.0
        self._deadline: float | None = None
        self._told_at = 0.0
        self._ending: str | None = None
        self.unmeasured: list[str] = []
        """What was asked for and not measured, a sentence for each stage."""
        self._finals = Event()
        self._over = Event()
        self._finishing = False
        self._closed_stage = 0

    # The run.

    def begin(self, options: Options, *, users: int, run_s: float | None, withhold_keys: bool = False) -> None:
        """A run begins: with a sweep its first stage is announced, else the one free stage.

        ``withhold_keys``: workers must not send keys or other values of their environment to the endpoint.
        """
        if self.active:
            return
        self.options = options
        clients = self._clients()
        self._levels = self.make_levels(options)
        first = self._levels.next(None)
        self._spending = Spending(options, distributed=clients != [None], reserves_quota=self.reserves_quota)
        self.refused = self._spending.plan(1, first.most(options) if first else users, free=first is None)
        if self.refused:
            logger.error("the run is refused: %s", self.refused)
            return
        self.active = True
        self.ended_by_itself = False
        self._ending = None
        self.unmeasured = []
        run_id, run_key = uuid4().hex[:8], options.repeated_run_key or uuid4().hex[:16]
        self.writer = self._make_writer(run_id, options)
        self.writer.write_manifest(run_key=run_key)
        self.writer.on_record = self._on_record
        self._deadline = time.monotonic() + run_s if run_s else None
        rows_at_once = options.budget is not None or options.offsets  # these need the rows as they come
        self._crew = Crew(
            self._send,
            self.writer,
            clients,
            run_key,
            live=self.watch is not None,
            rows_at_once=rows_at_once,
            withhold_keys=withhold_keys,
        )
        self._announce(1, first or Level(users), free=first is None)
        if self._crew.distributed:
            self._watching = gevent.spawn(self._look_after)

    def tick(self) -> tuple[int, float] | None:
        """The users that the current stage wants, and all at once; None when the sweep is over."""
        plan = self._plan
        if plan is None or not self.active:
            return None
        if self._finishing:  # whoever stops the run also ends the shape
            return self._wanted()
        self._tell_progress()
        if self._deadline is not None and time.monotonic() >= self._deadline and self._ending is None:
            self._ending = "the run time is over"
            self._end_stage()
            self.ended_by_itself = True
            return None
        if self._gathering and (nobody := self._why_nobody_comes(time.monotonic() - self._prepared_at)):
            self._ending = "no users"
            self._not_measured(f"stage {plan.stage} was not measured, and the run ends: {nobody}")
            self.ended_by_itself = True
            return None
        if self._gathering:
            self._go_with_those_who_came(plan, time.monotonic() - self._prepared_at)
        if self._gone and not self._stage_ended and self._levels.enough():
            self._end_stage()
        if self.roster.all_done:
            self._close_stage()
            level = self._levels.next(self._last) if self._ending is None else None
            if level is None:
                self.ended_by_itself = True
                return None
            if too_dear := self._spending.plan(plan.stage + 1, level.most(self.options), free=False):
                self._end_for_budget(too_dear)
                self.ended_by_itself = True
                return None
            self._announce(plan.stage + 1, level, free=False)
        return self._wanted()

    def _wanted(self) -> tuple[int, float]:
        """Users, and all at once. Locust spreads them anew only for another answer than the last."""
        users = self._plan.concurrency if self._plan is not None else 0
        return users, max(1, users) + self._spread * 1e-6

    def finish(self, *, abort: bool, grace_s: float) -> None:
        """Everything stops: a barrier collects what the load processes still have, then the files are completed."""
        if not self.active or self._crew is None:
            return
        if self._finishing:
            self._over.wait()
            return
        self._finishing = True
        self._over.clear()
        self._finals.clear()
        self._crew.tell_all(messages.FINISH, {"abort": abort, "grace_s": grace_s})
        limit = time.monotonic() + (0 if abort else grace_s) + _BARRIER_MARGIN_S
        while not self.roster.all_final(self._clients()) and time.monotonic() < limit:
            self._finals.wait(timeout=0.5)
            self._finals.clear()
        if self._watching is not None:
            self._watching.kill(block=False)
        self._complete()
        self.active = self._finishing = False
        self._over.set()

    def abort(self) -> None:
        """What still drains is cut now."""
        if self._finishing and self._crew is not None:
            self._crew.tell_all(messages.FINISH, {"abort": True, "grace_s": 0.0})

    # What load processes report.

    def on_join(self, client_id: str) -> None:
        """A worker has come while the run goes on: it gets a share from the next stage on."""
        plan, crew = self.plan, self._crew
        if plan is None or crew is None or self._finishing or self.roster.knows(client_id):
            return
        worker = crew.take_in(client_id)
        crew.say_change(f"worker {worker.rank} joined in stage {plan.stage}")
        crew.admit(worker, plan)

    def on_count(self, data: dict[str, Any]) -> None:
        self.roster.take_count(data)

    def on_back(self, data: dict[str, Any]) -> None:
        """A worker had stood still and asks what is left for it to do."""
        worker = self.roster.get(data["worker"])
        if worker is not None and self._crew is not None and self._plan is not None:
            self._crew.tell_quota(worker, self._plan)

    def on_ready(self, data: dict[str, Any]) -> None:
        plan = self._plan
        worker = self.roster.get(data["worker"])
        if plan is None or worker is None or data["stage"] != plan.stage:
            return
        worker.waiting, worker.settled, worker.stuck = data["waiting"], bool(data["settled"]), data["stuck"]
        self._go_when_gathered()

    def on_done(self, data: dict[str, Any]) -> None:
        totals = totals_from(data)
        worker = self.roster.get(totals.worker)
        plan = self._plan
        if worker is None or plan is None or totals.stage != plan.stage:
            return
        totals.told_at = worker.told_at
        worker.totals = totals
        if totals.given_up:
            logger.error("stage %d ended: its first requests all failed to connect. %s", plan.stage, totals.given_up)
            self._end_stage()
        elif totals.deserted and self._crew is not None:
            given = self._crew.hand_over(worker, plan)
            if totals.started or not given:
                then = f"; {given} requests that it had not started went to other workers" if given else ""
                where = f" on worker {worker.rank}" if len(self.roster) > 1 else ""
                self._crew.say(f"stage {plan.stage} ended early{where}: {totals.deserted}{then}")
        self._stop_if_done()

    def on_rows(self, rows: list[Any]) -> None:
        if self.writer is not None:
            self.writer.add_packed(rows)

    def on_final(self, data: dict[str, Any]) -> None:
        worker = self.roster.get(data["worker"])
        if worker is not None and not worker.final:
            early = self.active and not self._finishing
            self.roster.leave(worker, data["sent"], early=early)
            if early:
                self._on_gone(worker, "left")
        self._finals.set()

    def on_note(self, data: dict[str, Any]) -> None:
        if self._crew is not None:
            self._crew.say(data["text"])

    def on_refused(self, data: dict[str, Any]) -> None:
        """A load process cannot take part: the run cannot be."""
        if self.refused is None:
            self.refused = data["reason"]
            logger.error("the run is refused: %s", self.refused)
            gevent.spawn(self.stop_run)

    @property
    def incomplete(self) -> list[int]:
        """Ranks of load processes that never gave their final count."""
        return [worker.rank for worker in self.roster if not worker.final]

    @property
    def plan(self) -> StagePlan | None:
        """The stage that the run is in; None between runs. Its fields about one worker are those of the last one."""
        return self._plan if self.active else None

    @property
    def finishing(self) -> bool:
        """The run is stopping: what is in flight may end."""
        return self._finishing

    @property
    def stages(self) -> int:
        """How many stages the run has."""
        return self._levels.count

    @property
    def worker_names(self) -> dict[int, str]:
        """The load processes that are here, by rank."""
        return {worker.rank: worker.client_id or "this process" for worker in self.roster.present}

    # Money.

    def _on_record(self, record: RequestRecord) -> None:
        """A row is here: the budget decides whether the run goes on, the levels whether the stage does."""
        self._spending.add(record)
        failed = self._levels.seen(record)
        if self.watch is not None:
            self.watch(record)
        if self._plan is None or self._ending is not None:
            return
        if why := self._spending.why_stop(self._plan.max_in_flight or self._plan.concurrency):
            self._end_for_budget(why)
            self._end_stage()
        elif failed and self._plan.stage == record.stage != self._closed_stage and not self._stage_ended:
            logger.info("stage %d ends early: %s", record.stage, failed)
            self._end_stage()

    def _end_for_budget(self, why: str) -> None:
        self._ending = "the budget"
        logger.error("the run ends: %s", why)
        if self.writer is not None:
            self.writer.note(f"the run was ended: {why}")

    # Workers that come and go.

    def _look_after(self) -> None:
        while self.active:
            gevent.sleep(_LOOK_S)
            if self._finishing or self._plan is None or self._crew is None:
                continue
            gone, back = self.roster.changes(self._clients())
            for worker in gone:
                self._on_gone(worker, "was lost")
            for worker in back:
                self._crew.say_change(f"worker {worker.rank} was back in stage {self._plan.stage}")

    def _on_gone(self, worker: Worker, how: str) -> None:
        plan, crew = self._plan, self._crew
        if plan is None or crew is None:
            return
        given = crew.hand_over(worker, plan) if not self._stage_ended else 0
        then = f"; {given} requests that it had not started went to the others" if given else ""
        crew.say_change(f"worker {worker.rank} {how} in stage {plan.stage}{then}")
        self._go_when_gathered()
        if self.roster.present:
            self._stop_if_done()

    # Inside.

    def _why_nobody_comes(self, waited_s: float) -> str | None:
        """Why the users of the announced stage will not come; None while they may, or when some have."""
        present = self.roster.present
        if any(worker.waiting for worker in present):
            return None
        stuck = [worker.stuck for worker in present if worker.stuck]
        if stuck and (len(stuck) == len(present) or waited_s > GATHER_S):
            return stuck[0]
        if waited_s > NOBODY_S:
            return f"no user came to send a request within {NOBODY_S:g} s"
        return None

    def _go_with_those_who_came(self, plan: StagePlan, waited_s: float) -> None:
        """Begin a stage with fewer users than it asks for, once no more of them come."""
        present = self.roster.present
        here = sum(worker.waiting or 0 for worker in present)
        if not here or here >= plan.concurrency:
            return
        if all(worker.settled for worker in present):
            why = "the others failed or have left"
        elif waited_s > GATHER_S:
            why = f"the others did not come within {GATHER_S:g} s"
        else:
            return
        logger.warning("stage %d: it starts with %d of %d users; %s", plan.stage, here, plan.concurrency, why)
        self._go()

    def _not_measured(self, text: str) -> None:
        self.unmeasured.append(text)
        if self._crew is not None:
            self._crew.say(text)

    def _go_when_gathered(self) -> None:
        plan = self._plan
        counts = [worker.waiting for worker in self.roster.present if worker.expected or worker.waiting is not None]
        # All must have spoken: a worker that still has users of a larger stage could make up the number by itself.
        spoken = [count for count in counts if count is not None]
        if plan is not None and self._gathering and len(spoken) == len(counts) and sum(spoken) == plan.concurrency:
            self._go()

    @property
    def roster(self) -> Roster:
        """The load processes of the run."""
        return self._crew.roster if self._crew is not None else Roster()

    @property
    def _gathering(self) -> bool:
        return self._plan is not None and not self._plan.free and not self._gone

    def _announce(self, stage: int, level: Level, *, free: bool) -> None:
        assert self._crew is not None
        self.before_stage()
        self._gone = self._stage_ended = False
        self._prepared_at = time.monotonic()
        # Another figure in each stage: Locust then starts users anew in place of those that have left.
        self._spread = self._crew.changes + stage
        self._level = level
        self._plan = self._crew.plan_of(self.options, stage, level, free=free)
        self._crew.announce(self._plan)

    def _go(self) -> None:
        plan = self._plan
        assert plan is not None
        assert self._crew is not None
        self._gone = True
        budget = self._level.budget(plan.requests, plan.measure_s)
        logger.info("stage %d of %d: %s, %s", plan.stage, self.stages, load_of(plan).text, budget)
        self._told_at = time.monotonic()
        self._crew.let_go(plan)

    def _stop_if_done(self) -> None:
        """A free run is over when its requests are; a sweep asks by itself."""
        if self._plan is not None and self._plan.free and self.roster.all_done and not self._finishing:
            self.ended_by_itself = True
            gevent.spawn(self.stop_run)

    def _end_stage(self) -> None:
        self._stage_ended = True
        if self._plan is not None and self._crew is not None:
            self._crew.tell_all(messages.END, {"stage": self._plan.stage})

    def _close_stage(self) -> None:
        """All load processes are done with the stage, and its rows are here."""
        plan, writer = self._plan, self.writer
        if plan is None or writer is None or self._crew is None:
            return
        self._closed_stage = plan.stage
        self._crew.recover()
        totals = [worker.totals for worker in self.roster if worker.totals is not None]
        record = self._last = writer.finish_stage(load_of(plan), totals)
        self._crew.tell_of(record)
        limit = self.options.stop_on_errors
        if limit is not None and record.requests_measured and record.requests_failed / record.requests_measured > limit:
            self._ending = "too many errors"
            logger.error(
                "the sweep ends: %d of %d requests of stage %d failed, more than --llm-stop-on-errors %g",
                record.requests_failed, record.requests_measured, plan.stage, limit,
            )  # fmt: skip
        self._check_measured(plan, record, totals)
        if self._ending is None and not self._finishing:
            self._crew.check_started(plan, given_up=self._stage_ended or any(part.given_up for part in totals))
        for worker in self.roster:
            worker.totals = None

    def _check_measured(self, plan: StagePlan, record: StageRecord, totals: list[StageTotals]) -> None:
        """Remember a stage with fewer measured requests than asked for, unless that is what the user wanted."""
        deserted = next((part.deserted for part in totals if part.deserted and part.started), None)
        interrupted = self._finishing and not self.ended_by_itself
        if self._stage_ended or interrupted or any(part.given_up for part in totals):
            return
        if plan.requests is not None and record.requests_measured < plan.requests:
            why = f": {deserted}" if deserted else ""
            self.unmeasured.append(
                f"stage {plan.stage}: {record.requests_measured} of {plan.requests} requests were measured{why}"
            )
        elif plan.measure_s is not None and deserted:
            self.unmeasured.append(f"stage {plan.stage} ended before its time: {deserted}")

    def _complete(self) -> None:
        writer, plan = self.writer, self._plan
        if writer is None or self._crew is None:
            return
        self.roster.settle()
        if plan is not None and self._closed_stage != plan.stage and writer.book.started:
            self._close_stage()
        else:
            self._crew.recover()
        self._closed_stage, self._plan = 0, None
        self._crew.settle(self.refused)

    def _tell_progress(self) -> None:
        plan, writer = self._plan, self.writer
        if plan is None or writer is None or not self._gone or time.monotonic() - self._told_at < _PROGRESS_S:
            return
        self._told_at = time.monotonic()
        logger.info("%s", progress(plan, self.stages, writer.book.counts(plan.stage)))
