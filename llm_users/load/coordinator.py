"""The coordinator of a run: which stage comes when, on the master or in the only process.

A state machine driven by what really runs: announce a stage, wait until its users stand at the gate, let them go,
collect what the workers report, go on. Locust's shape only asks it for the user count.
"""

from __future__ import annotations

import dataclasses
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

MOST_FREE_STAGES = 200
"""Stages of a run without a sweep, each with its own number of users; the last one goes on whatever the number."""

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
        self._users_wanted = 0  # from Locust, for the present stage
        self._users_given: int | None = None  # those of them that send LLM requests; None: not known yet
        self._earlier: StagePlan | None = None  # a free stage that has been replaced, and whose last requests run
        self._measured = 0  # measured requests of the free stages that are over
        self._gathering_timer: gevent.Greenlet[[], None] | None = None
        self._spread = 0
        self._others_said = False
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
        self.ended_by_itself = self._others_said = False
        self._ending = self._earlier = None
        self._measured = 0
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
        if self._gathering and time.monotonic() - self._prepared_at > GATHER_S:
            self._go_with_those_here()
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
        """Users, and all at once. Locust spreads them anew, and replaces those that have ended, only for another answer
        than the last.
        """
        if self._gathering and self._crew is not None and self._plan is not None:
            self._spread = self._plan.stage + self._crew.changes
        return self._users_wanted, max(1, self._users_wanted) + self._spread * 1e-6

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
        worker.waiting, worker.alive, worker.ended = data["waiting"], data["alive"], data["ended"]
        if plan.free and self._gone and not worker.part and self._crew is not None:
            self._crew.let_join(worker, plan)
        self._go_when_gathered()

    def on_spawned(self, target: int, users: int, others: int) -> None:
        """Locust has started the users that it wants: so many that send LLM requests, and others."""
        if self._gone and users != self._users_given:  # the same number, of other classes
            self._change_free_stage(target)
        plan = self._plan
        if plan is None or self._gone or self._finishing or target != self._users_wanted:
            return
        if plan.rate_per_s is None:
            asked = max(0, target - others)
            self._plan = plan = dataclasses.replace(plan, concurrency=asked, concurrency_asked=asked)
            if others and not self._others_said and self._crew is not None:
                self._others_said = True
                self._crew.say(
                    f"{others} of {target} users are of classes that do not send LLM requests, so the concurrency of "
                    f"stage {plan.stage} is {asked}; other stages leave such users out as well"
                )
        self._users_given = users
        if plan.free:
            self._gathering_timer = gevent.spawn_later(GATHER_S, self._go_with_those_here)
        self._go_when_gathered()

    def on_target(self, users: int) -> None:
        """Locust starts to change the number of users. Without a sweep another stage begins, of that many users."""
        if users != self._users_wanted:
            self._change_free_stage(users)

    def _change_free_stage(self, users: int) -> None:
        plan = self._plan
        if plan is None or not plan.free or self._finishing or not self.active:
            return
        self._users_wanted, self._users_given = users, None
        self._stop_gathering_timer()
        if not self._gone:  # nothing was measured with the number before
            self._plan = dataclasses.replace(plan, concurrency=users, concurrency_asked=users)
        elif self.roster.all_done or self._crew is None:
            return
        elif plan.stage >= MOST_FREE_STAGES:
            self._crew.say(
                f"the number of users changed more than {MOST_FREE_STAGES} times; stage {plan.stage} has all users from"
                " then on, so its figures mix different numbers of users"
            )
        else:
            self._earlier = plan
            self._crew.set_aside(plan)
            self._announce(plan.stage + 1, Level(users), free=True)
            self._close_earlier_if_done()

    def on_done(self, data: dict[str, Any]) -> None:
        totals = totals_from(data)
        worker = self.roster.get(totals.worker)
        plan = self._plan
        if worker is not None and totals.stage == worker.owes:
            worker.take_earlier(totals)
            self._close_earlier_if_done()
            return
        if worker is None or plan is None or totals.stage != plan.stage:
            return
        totals.told_at = worker.told_at
        worker.totals = totals
        if totals.given_up:
            logger.error("stage %d ended: its first requests all failed to connect. %s", plan.stage, totals.given_up)
            self._end_stage()
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
        self._close_earlier_if_done()
        self._go_when_gathered()
        if self.roster.present:
            self._stop_if_done()

    # Inside.

    def _go_when_gathered(self) -> None:
        """Let the users go when all have come, or when those that have not come have ended."""
        plan = self._plan
        workers = [worker for worker in self.roster.present if worker.expected or worker.waiting is not None]
        # All must have spoken: a worker that still has users of a larger stage could make up the number by itself.
        if plan is None or not self._gathering or any(worker.waiting is None for worker in workers):
            return
        came = sum(worker.waiting or 0 for worker in workers)
        given = self._users_given
        if given is None:
            if came == plan.concurrency and not plan.free:
                self._go()
            return
        ended = sum(worker.ended for worker in workers)
        alive = sum(worker.alive for worker in workers)
        if came == given:
            self._go()
        elif 0 < came == alive and came + ended >= given:
            self._say_missing(came, f"{plan.concurrency - came} ended before their first request; see the log for why")
            self._go()

    def _go_with_those_here(self) -> None:
        """Users that have not come by now are not part of the stage."""
        plan = self._plan
        if plan is None or not self._gathering or self._finishing:
            return
        came = sum(worker.waiting or 0 for worker in self.roster.present)
        if came:
            self._say_missing(came, f"the others did not come within {GATHER_S:g} s")
            self._go()
            return
        if self._crew is not None:
            self._crew.say(f"stage {plan.stage}: no user came within {GATHER_S:g} s; the stage waits for one")
        if plan.free:
            self._gathering_timer = gevent.spawn_later(GATHER_S, self._go_with_those_here)

    def _say_missing(self, came: int, why: str) -> None:
        if self._plan is not None and self._crew is not None:
            number, asked = self._plan.stage, self._plan.concurrency
            self._crew.say(f"stage {number}: only {came} of {asked} users came: {why}; the stage has {came} users")

    def _stop_gathering_timer(self) -> None:
        timer, self._gathering_timer = self._gathering_timer, None
        if timer is not None and timer is not gevent.getcurrent():
            timer.kill(block=False)

    @property
    def roster(self) -> Roster:
        """The load processes of the run."""
        return self._crew.roster if self._crew is not None else Roster()

    @property
    def _gathering(self) -> bool:
        return self._plan is not None and self._earlier is None and not self._gone

    def _announce(self, stage: int, level: Level, *, free: bool) -> None:
        assert self._crew is not None
        self.before_stage()
        self._gone = self._stage_ended = False
        self._prepared_at = time.monotonic()
        self._level = level
        self._plan = plan = self._crew.plan_of(self.options, stage, level, free=free)
        self._users_wanted, self._users_given = plan.concurrency, None
        self._spread = stage + self._crew.changes
        self._crew.announce(plan)

    def _go(self) -> None:
        plan = self._plan
        assert plan is not None
        assert self._crew is not None
        self._stop_gathering_timer()
        self._gone = True
        if plan.rate_per_s is None:
            came = sum(worker.waiting or 0 for worker in self.roster.present)
            requests = plan.requests
            if plan.free and requests is not None:
                requests = max(0, requests - self._measured)
            self._plan = plan = dataclasses.replace(plan, concurrency=came, requests=requests)
        if plan.free:
            self._crew.let_go(plan)
            return
        budget = self._level.budget(plan.requests, plan.measure_s)
        logger.info("stage %d of %d: %s, %s", plan.stage, self.stages, load_of(plan).text, budget)
        self._told_at = time.monotonic()
        self._crew.let_go(plan)

    def _stop_if_done(self) -> None:
        """A free run is over when its requests are; a sweep asks by itself."""
        if self._plan is not None and self._plan.free and self.roster.all_done:
            self.ended_by_itself = True
            gevent.spawn(self.stop_run)

    def _end_stage(self) -> None:
        self._stage_ended = True
        if self._plan is not None and self._crew is not None:
            self._crew.tell_all(messages.END, {"stage": self._plan.stage})

    def _close_earlier_if_done(self) -> None:
        """The stage before the present free one is over, once all workers have reported it."""
        if self._earlier is None or any(w.owes and not w.lost and not w.final for w in self.roster):
            return
        self._close_earlier()
        self._go_when_gathered()

    def _close_earlier(self) -> None:
        plan, self._earlier = self._earlier, None
        if plan is None or self._crew is None:
            return
        self._measured += sum(worker.earlier_measured(plan.stage) for worker in self.roster)
        self._finish_record(plan, [worker.earlier for worker in self.roster if worker.earlier is not None])
        for worker in self.roster:
            worker.owes, worker.earlier = 0, None

    def _finish_record(self, plan: StagePlan, totals: list[StageTotals]) -> StageRecord | None:
        writer = self.writer
        if writer is None or self._crew is None:
            return None
        self._crew.recover()
        record = writer.finish_stage(load_of(plan), totals)
        self._crew.tell_of(record)
        return record

    def _close_stage(self) -> None:
        """All load processes are done with the stage, and its rows are here."""
        plan = self._plan
        if plan is None or self._crew is None:
            return
        self._closed_stage = plan.stage
        totals = [worker.totals for worker in self.roster if worker.totals is not None]
        record = self._finish_record(plan, totals)
        if record is None:
            return
        self._last = record
        limit = self.options.stop_on_errors
        if limit is not None and record.requests_measured and record.requests_failed / record.requests_measured > limit:
            self._ending = "too many errors"
            logger.error(
                "the sweep ends: %d of %d requests of stage %d failed, more than --llm-stop-on-errors %g",
                record.requests_failed, record.requests_measured, plan.stage, limit,
            )  # fmt: skip
        if self._ending is None and not self._finishing:
            self._crew.check_started(plan, given_up=self._stage_ended or any(part.given_up for part in totals))
        for worker in self.roster:
            worker.totals = None

    def _complete(self) -> None:
        writer, plan = self.writer, self._plan
        if writer is None or self._crew is None:
            return
        self.roster.settle()
        self._stop_gathering_timer()
        self._close_earlier()
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
