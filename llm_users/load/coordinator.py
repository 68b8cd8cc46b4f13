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

from llm_users.collect.health import OK, advice, reasons
from llm_users.collect.stages import totals_from
from llm_users.collect.writer import RunWriter
from llm_users.load import messages
from llm_users.load.quotas import share, split
from llm_users.load.spending import Spending
from llm_users.options import Options
from llm_users.record import RequestRecord, StageRecord
from llm_users.stage import StagePlan, StageTotals

logger = logging.getLogger(__name__)

GATHER_S = 15.0
"""How long the users of a stage may take to come to the gate before it starts without the missing ones."""

_PROGRESS_S = 5.0
_BARRIER_MARGIN_S = 15.0


@dataclasses.dataclass
class _Worker:
    """What the coordinator knows about one load process."""

    client_id: str | None
    rank: int
    waiting: int | None = None  # users at its gate, once it said so for this stage
    totals: StageTotals | None = None
    sent: int | None = None
    lost: bool = False  # it was here when the run began and is not any more


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
        self._spending = Spending(self.options)
        self.stop_run: Callable[[], None] = lambda: None
        self.ended_by_itself = False
        self._workers: dict[int, _Worker] = {}
        self._plan: StagePlan | None = None
        self._levels: tuple[int, ...] = ()
        self._gone = False  # the stage's users were let go
        self._prepared_at = 0.0
        self._deadline: float | None = None
        self._told_at = 0.0
        self._ending: str | None = None
        self._finals = Event()
        self._over = Event()
        self._finishing = False
        self._closed_stage = 0

    # The run.

    def begin(self, options: Options, *, users: int, run_s: float | None) -> None:
        """A run begins: with a sweep its first stage is announced, else the one free stage."""
        if self.active:
            return
        self.options = options
        clients = self._clients()
        self._levels = options.sweep
        self._spending = Spending(options, distributed=clients != [None], reserves_quota=self.reserves_quota)
        self.refused = self._spending.plan(1, self._levels[0] if self._levels else users, free=not self._levels)
        if self.refused:
            logger.error("the run is refused: %s", self.refused)
            return
        self.active = True
        self.ended_by_itself = False
        self._ending = None
        run_id = uuid4().hex[:8]
        self.writer = self._make_writer(run_id, options)
        self.writer.on_record = self._on_record
        self._deadline = time.monotonic() + run_s if run_s else None
        self._workers = {rank: _Worker(client, rank) for rank, client in enumerate(clients)}
        for worker in self._workers.values():
            run = {"run_id": run_id, "worker": worker.rank, "workers": len(clients)}
            self._send(messages.RUN, run, worker.client_id)
        if self._levels:
            self._announce(1, self._levels[0], free=False)
        else:
            self._announce(1, users, free=True)

    def tick(self) -> tuple[int, float] | None:
        """The users that the current stage wants, and all at once; None when the sweep is over."""
        plan = self._plan
        if plan is None or not self.active:
            return None
        if self._finishing:  # whoever stops the run also ends the shape
            return plan.concurrency, float(max(1, plan.concurrency))
        self._tell_progress()
        if self._deadline is not None and time.monotonic() >= self._deadline and self._ending is None:
            self._ending = "the run time is over"
            self._end_stage()
            self.ended_by_itself = True
            return None
        self._notice_lost()
        if self._gathering and time.monotonic() - self._prepared_at > GATHER_S:
            here = sum(worker.waiting or 0 for worker in self._present)
            logger.warning("stage %d: only %d of %d users came within %g s; it starts with them",
                           plan.stage, here, plan.concurrency, GATHER_S)  # fmt: skip
            if here:
                self._go()
        if self._all_done():
            self._close_stage()
            if self._ending is not None or plan.stage >= len(self._levels):
                self.ended_by_itself = True
                return None
            concurrency = self._levels[plan.stage]
            too_dear = self._spending.plan(plan.stage + 1, concurrency, free=False)
            if too_dear:
                self._end_for_budget(too_dear)
                self.ended_by_itself = True
                return None
            self._announce(plan.stage + 1, concurrency, free=False)
            return concurrency, float(concurrency)
        return plan.concurrency, float(max(1, plan.concurrency))

    def finish(self, *, abort: bool, grace_s: float) -> None:
        """Everything stops: a barrier collects what the load processes still have, then the files are completed."""
        if not self.active:
            return
        if self._finishing:
            self._over.wait()
            return
        self._finishing = True
        self._over.clear()
        self._finals.clear()
        self._tell_finish(abort=abort, grace_s=grace_s)
        limit = time.monotonic() + (0 if abort else grace_s) + _BARRIER_MARGIN_S
        while not self._all_final():
            self._finals.wait(timeout=0.5)
            self._finals.clear()
            if time.monotonic() > limit:
                break
        self._complete()
        self.active = self._finishing = False
        self._over.set()

    def abort(self) -> None:
        """What still drains is cut now."""
        if self._finishing:
            self._tell_finish(abort=True, grace_s=0.0)

    # What load processes report.

    def on_ready(self, data: dict[str, Any]) -> None:
        plan = self._plan
        worker = self._workers.get(data["worker"])
        if plan is None or worker is None or data["stage"] != plan.stage:
            return
        worker.waiting = data["waiting"]
        self._go_when_gathered()

    def on_done(self, data: dict[str, Any]) -> None:
        totals = totals_from(data)
        worker = self._workers.get(totals.worker)
        plan = self._plan
        if worker is None or plan is None or totals.stage != plan.stage:
            return
        worker.totals = totals
        if totals.given_up:
            logger.error("stage %d ended: its first requests all failed to connect. %s", plan.stage, totals.given_up)
            self._end_stage()
        if plan.free and self._all_done():
            self.ended_by_itself = True
            gevent.spawn(self.stop_run)

    def on_rows(self, rows: list[Any]) -> None:
        if self.writer is not None:
            self.writer.add_packed(rows)

    def on_final(self, data: dict[str, Any]) -> None:
        worker = self._workers.get(data["worker"])
        if worker is not None:
            worker.sent = data["sent"]
        self._finals.set()

    def on_note(self, data: dict[str, Any]) -> None:
        if self.writer is not None and self.writer.note(data["text"]):
            logger.warning("%s", self.writer.notes[-1])

    def on_refused(self, data: dict[str, Any]) -> None:
        """A load process cannot take part: the run cannot be."""
        if self.refused is None:
            self.refused = data["reason"]
            logger.error("the run is refused: %s", self.refused)
            gevent.spawn(self.stop_run)

    @property
    def incomplete(self) -> list[int]:
        """Ranks of load processes that never gave their final count."""
        return [worker.rank for worker in self._workers.values() if worker.sent is None]

    # Money.

    def _on_record(self, record: RequestRecord) -> None:
        """A row is here: the budget decides whether the run goes on."""
        self._spending.add(record)
        if self._plan is None or self._ending is not None:
            return
        why = self._spending.why_stop(self._plan.concurrency)
        if why:
            self._end_for_budget(why)
            self._end_stage()

    def _end_for_budget(self, why: str) -> None:
        self._ending = "the budget"
        logger.error("the run ends: %s", why)
        if self.writer is not None:
            self.writer.note(f"the run was ended: {why}")

    # Inside.

    @property
    def _present(self) -> list[_Worker]:
        return [worker for worker in self._workers.values() if not worker.lost]

    def _notice_lost(self) -> None:
        """A worker that went away takes its share of the stage with it; the stage goes on without."""
        here = set(self._clients())
        for worker in self._workers.values():
            was_lost, worker.lost = worker.lost, worker.client_id not in here
            if worker.lost and not was_lost and self.writer is not None and self._plan is not None:
                self.writer.note(
                    f"worker {worker.rank} was lost in stage {self._plan.stage}; its share was not finished"
                )
                logger.error("%s", self.writer.notes[-1])
                self._go_when_gathered()

    def _go_when_gathered(self) -> None:
        plan = self._plan
        counts = [worker.waiting for worker in self._present]
        # All must have spoken: a worker that still has users of a larger stage could make up the number by itself.
        if plan is None or not self._gathering or not counts or None in counts:
            return
        if sum(count or 0 for count in counts) == plan.concurrency:
            self._go()

    @property
    def _gathering(self) -> bool:
        return self._plan is not None and not self._plan.free and not self._gone

    def _announce(self, stage: int, concurrency: int, *, free: bool) -> None:
        options = self.options
        workers = len(self._workers)
        self._gone = False
        self._prepared_at = time.monotonic()
        requests = options.requests if free else options.stage_requests
        for worker in self._workers.values():
            worker.waiting = None
            worker.totals = None
        for worker in self._present:
            plan = StagePlan(
                stage=stage,
                concurrency=concurrency,
                worker=worker.rank,
                workers=max(1, workers),
                ramp_s=options.ramp_s,
                warmup_requests=options.warmup_requests,
                warmup_s=options.warmup_s,
                measure_s=options.stage_s,
                requests=requests,
                free=free,
                free_quota=share(requests, worker.rank, workers) if free and requests is not None else None,
            )
            self._plan = plan
            self._send(messages.STAGE, dataclasses.asdict(plan), worker.client_id)

    def _go(self) -> None:
        plan = self._plan
        assert plan is not None
        self._gone = True
        users = {worker.rank: worker.waiting or 0 for worker in self._present}
        quotas = split(plan.requests, users)
        how_many = f"{plan.requests} requests" if plan.requests is not None else f"{plan.measure_s:g} s"
        levels = len(self._levels)
        logger.info("stage %d of %d: %d users, %s", plan.stage, levels, plan.concurrency, how_many)
        self._told_at = time.monotonic()
        for worker in self._present:
            self._send(messages.GO, {"stage": plan.stage, "quota": quotas[worker.rank]}, worker.client_id)

    def _tell_finish(self, *, abort: bool, grace_s: float) -> None:
        for worker in self._workers.values():
            self._send(messages.FINISH, {"abort": abort, "grace_s": grace_s}, worker.client_id)

    def _end_stage(self) -> None:
        if self._plan is not None:
            for worker in self._workers.values():
                self._send(messages.END, {"stage": self._plan.stage}, worker.client_id)

    def _all_done(self) -> bool:
        return bool(self._workers) and all(w.totals is not None or w.lost for w in self._workers.values())

    def _all_final(self) -> bool:
        present = set(self._clients())
        return all(w.sent is not None or w.client_id not in present for w in self._workers.values())

    def _close_stage(self) -> None:
        """All load processes are done with the stage, and its rows are here."""
        plan, writer = self._plan, self.writer
        if plan is None or writer is None:
            return
        totals = [worker.totals for worker in self._workers.values() if worker.totals is not None]
        record = writer.finish_stage(plan.stage, plan.concurrency, totals)
        logger.info("%s", describe(record))
        if record.health != OK:
            why = "; ".join(reasons(record)[:3])
            logger.warning("stage %d: the client was %s (%s): %s", plan.stage, record.health, why,
                           advice(record, len(self._workers)))  # fmt: skip
        limit = self.options.stop_on_errors
        if limit is not None and record.requests_measured and record.requests_failed / record.requests_measured > limit:
            self._ending = "too many errors"
            logger.error(
                "the sweep ends: %d of %d requests of stage %d failed, more than --llm-stop-on-errors %g",
                record.requests_failed, record.requests_measured, plan.stage, limit,
            )  # fmt: skip
        for worker in self._workers.values():
            worker.totals = None
        self._closed_stage = plan.stage
        if plan.requests is not None and not plan.free and self._ending is None and not self._finishing:
            missing = plan.requests - sum(part.measured for part in totals)
            if missing and not any(part.given_up for part in totals):
                writer.note(f"stage {plan.stage}: {missing} of {plan.requests} requests were not started")

    def _complete(self) -> None:
        writer, plan = self.writer, self._plan
        if writer is None:
            return
        if plan is not None and self._closed_stage != plan.stage and writer.book.started:
            self._close_stage()
        self._closed_stage = 0
        self._plan = None
        writer.sent = {worker.rank: worker.sent for worker in self._workers.values() if worker.sent is not None}
        writer.write_manifest(finished_at=time.time(), refused=self.refused)
        writer.flush()

    def _tell_progress(self) -> None:
        plan, writer = self._plan, self.writer
        if plan is None or writer is None or not self._gone or time.monotonic() - self._told_at < _PROGRESS_S:
            return
        self._told_at = time.monotonic()
        measured, failed, _aborted = writer.book.counts(plan.stage)
        of = f" of {plan.requests}" if plan.requests is not None else ""
        logger.info("stage %d of %d: %d users, %d%s requests done, %d failed",
                    plan.stage, len(self._levels), plan.concurrency, measured, of, failed)  # fmt: skip


def describe(stage: StageRecord) -> str:
    """One line about a finished stage."""
    rate = stage.output_throughput_token_per_s
    parts = [
        f"stage {stage.stage} done: {stage.concurrency} users",
        f"{stage.requests_ok} of {stage.requests_measured} requests ok",
        f"{rate:.0f} tokens/s" if rate is not None else "no throughput (window too short)",
    ]
    return ", ".join(parts)
