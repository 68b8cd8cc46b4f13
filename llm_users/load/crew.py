"""The coordinator's dealings with its workers over one run: who takes part, whose share goes to whom, what each owes.

Decides nothing about stages; that is the coordinator's.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_users import capacity
from llm_users.collect.health import OK, complaint
from llm_users.collect.spool import clear_folder, mark_folder
from llm_users.collect.stages import describe, widening
from llm_users.collect.writer import RunWriter
from llm_users.load import messages
from llm_users.load.levels import Level
from llm_users.load.quotas import share, split, turns
from llm_users.load.roster import Roster, Worker
from llm_users.options import Options
from llm_users.plan import StagePlan
from llm_users.record import LOAD_SHARE, StageRecord

logger = logging.getLogger(__name__)

MOST_ROWS_PER_S = 5000.0
"""Rows that all workers together send; of more they keep theirs and the coordinator fetches them between stages."""

LATE_PROMPTS = 10_000_000
"""Prompts of each worker that joins later: a range of its own, beyond those of the workers that were there."""

_ORIGIN_AHEAD_S = 0.2
"""The arrivals of an open loop are counted from so long after the word to begin, when all workers have heard it."""

Send = Callable[[str, dict[str, Any], str | None], None]


class Crew:
    """The load processes of one run and the way to talk to them."""

    def __init__(
        self,
        send: Send,
        writer: RunWriter,
        clients: list[str | None],
        run_key: str,
        *,
        live: bool,
        rows_at_once: bool,
        withhold_keys: bool = False,
    ) -> None:
        self._send = send
        self._writer = writer
        self.roster = Roster(writer.run_id)
        self.distributed = clients != [None]
        self.changes = 0
        """How often somebody came or went."""
        self._each_its_own = False  # a trace's requests are one worker's each, and cannot be others'
        self._first_workers = len(clients)
        self._capacity = capacity.stored(lambda text: logger.warning("%s", text))
        self._folder = self._make_folder() if self.distributed else None
        self._run_message = {
            "run_id": writer.run_id,
            "run_key": run_key,
            "workers": len(clients),
            "live": live,
            "withhold_keys": withhold_keys,
            "distributed": self.distributed,
            "spool": str(self._folder) if self._folder else None,
            "rows_per_s": MOST_ROWS_PER_S / len(clients) if self.distributed and not rows_at_once else None,
        }
        for client in clients:
            self.take_in(client)

    def take_in(self, client_id: str | None) -> Worker:
        """A load process takes part from now on: its rank, its part of the prompt sequence, the run."""
        worker = self.roster.add(client_id)
        late = worker.rank - self._first_workers
        prompts = {"first_prompt": worker.rank, "prompt_step": self._first_workers}
        if late >= 0:
            prompts = {"first_prompt": LATE_PROMPTS * (late + 1), "prompt_step": 1}
        self._writer.accounts[worker.rank] = worker.account
        self.tell(worker, messages.RUN, {**self._run_message, "worker": worker.rank, **prompts})
        return worker

    def tell(self, worker: Worker, kind: str, data: dict[str, Any]) -> None:
        self._send(kind, data, worker.client_id)

    def tell_all(self, kind: str, data: dict[str, Any]) -> None:
        """Also those that are silent: they may be back. Messages to nobody are dropped by the socket."""
        for worker in self.roster:
            self.tell(worker, kind, data)

    def say(self, text: str) -> None:
        """To the log and into the manifest's notes, once."""
        if self._writer.note(text):
            logger.warning("%s", self._writer.notes[-1])

    def say_change(self, text: str) -> None:
        """Somebody came or went."""
        self.changes += 1
        self.say(text)

    # Stages.

    def plan_of(self, options: Options, stage: int, level: Level, *, free: bool) -> StagePlan:
        """A stage as the options want it; each worker gets it with its own place in it."""
        asked = level.users if level.rate_per_s is None else None
        workers = max(1, len(self.roster.present))
        self._each_its_own = level.requests is not None and level.minimum is None
        counted = level.requests if level.minimum is not None else level.requests or options.stage_requests
        return StagePlan(
            stage=stage,
            concurrency=level.users if level.rate_per_s is None else workers,
            workers=workers,
            ramp_s=options.ramp_s if level.rate_per_s is None else 0.0,
            warmup_requests=options.warmup_requests,
            warmup_s=options.warmup_s,
            measure_s=options.stage_s if level.minimum is None else None,
            requests=options.requests if free else counted,
            free=free,
            concurrency_asked=asked,
            rate_per_s=level.rate_per_s,
            max_in_flight=options.max_in_flight,
        )

    def announce(self, plan: StagePlan) -> None:
        """A stage is coming, for all that may take part."""
        for worker in self.roster:
            worker.part = False  # also of those that have left, whose part in the stage before is over
            if not worker.final:
                worker.waiting = worker.totals = None
                worker.alive = worker.ended = 0
                worker.expected = not worker.lost
                worker.users, worker.quota = 0, None
                worker.told_at = time.time()
                self._send_plan(worker, plan)

    def set_aside(self, plan: StagePlan) -> None:
        """Another free stage replaces this one, whose requests in flight go on."""
        for worker in self.roster:
            worker.set_aside(plan.stage)

    def admit(self, worker: Worker, plan: StagePlan) -> None:
        """A worker has come while a stage runs: it waits for the next one; in a free run it has users at once."""
        worker.told_at = time.time()
        self._send_plan(worker, plan)

    def let_join(self, worker: Worker, plan: StagePlan) -> None:
        """A worker that came while a free stage is measured takes part; counted requests are the others'."""
        self._tell_go(worker, plan, None if plan.requests is None else 0, None)

    def let_go(self, plan: StagePlan) -> None:
        """The users stand at the gates: let them start, each worker its share."""
        going = [worker for worker in self.roster.present if worker.waiting is not None]
        if plan.rate_per_s is not None:
            quotas = turns(plan.requests, [worker.rank for worker in going])
        else:
            quotas = split(plan.requests, {worker.rank: worker.waiting or 0 for worker in going})
        origin = time.time() + _ORIGIN_AHEAD_S if plan.rate_per_s is not None else None
        for worker in going:
            self._tell_go(worker, plan, quotas[worker.rank], origin)

    def _tell_go(self, worker: Worker, plan: StagePlan, quota: int | None, origin: float | None) -> None:
        worker.part, worker.users, worker.quota = True, worker.waiting or 0, quota
        worker.told_at = time.time()
        users = plan.concurrency if plan.rate_per_s is None else None
        self.tell(worker, messages.GO, {"stage": plan.stage, "quota": quota, "origin": origin, "users": users})

    def tell_quota(self, worker: Worker, plan: StagePlan) -> None:
        """What is a worker's to start in the stage by now; one that waits for a word goes on."""
        self.tell(worker, messages.QUOTA, {"stage": plan.stage, "quota": worker.quota if worker.part else None})

    def hand_over(self, worker: Worker, plan: StagePlan) -> int:
        """What a worker that is gone had not started of its share is for the others to start; returns how many."""
        others = {each.rank: max(1, each.users) for each in self.roster.present if each.part and each is not worker}
        if not worker.part or worker.quota is None:
            return 0
        started = min(worker.quota, worker.started_measured(plan.stage))
        rest, worker.quota = worker.quota - started, started
        if not rest or not others or self._each_its_own:
            return 0
        for rank, more in split(rest, others).items():
            other = self.roster.get(rank)
            if other is not None and other.quota is not None and more:
                other.quota += more
                self.tell_quota(other, plan)
        return rest

    # Rows and accounts.

    def recover(self) -> None:
        """Rows that did not come by message and are in spools that can be read."""
        for worker in list(self.roster):
            if worker.held or worker.lost or worker.account.lost:
                found = self._writer.recover(worker.account)
                if found and worker.lost:
                    self.say(f"{found} rows of worker {worker.rank} were taken from its spool")

    def check_started(self, plan: StagePlan, *, given_up: bool) -> None:
        """Say when a counted stage did not start as many requests as it should have."""
        if plan.requests is None or plan.free:
            return
        started = sum(worker.started_measured(plan.stage) for worker in self.roster if worker.part)
        if started > plan.requests:
            self.say(f"stage {plan.stage}: {started - plan.requests} requests more than {plan.requests} were started")
        elif started < plan.requests and not given_up:
            missing = plan.requests - started
            self._writer.note(f"stage {plan.stage}: {missing} of {plan.requests} requests were not started")

    def tell_of(self, stage: StageRecord) -> None:
        """A stage is over: how it went, and whether the client itself was the limit, or might have been."""
        logger.info("%s", describe(stage))
        if stage.window_widened and stage.requests_ok:  # without a success there are no rates
            self.say(widening(stage))
        if (short := stage.shortfall) is not None and stage.concurrency >= LOAD_SHARE * (stage.concurrency_asked or 0):
            self.say(f"stage {stage.stage}: {short.text}")  # of users that did not come it was said when it began
        if stage.health not in (None, OK):
            logger.warning("%s", complaint(stage, len(self.roster)))
        if text := capacity.excess(stage, [w.client_id for w in self.roster if w.part], self._capacity):
            self.say(text)

    def settle(self, refused: str | None) -> None:
        """The run is over and its rows are here: accounts, manifest; the spools, when they are not needed any more."""
        writer = self._writer
        for account in writer.accounts.values():
            if account.lost:
                least = "" if account.exact else "at least "
                self.say(
                    f"worker {account.rank}: {least}{account.lost} of the {account.started} requests that it had "
                    "started were lost"
                )
        writer.revise_stages()
        writer.end_conversations()
        writer.flush()
        writer.write_manifest(finished_at=time.time(), refused=refused)
        if not writer.problem():
            self.tell_all(messages.SETTLED, {"run_id": writer.run_id})
            if self._folder is not None:
                clear_folder(self._folder, writer.run_id)
        for worker in self.roster:
            if worker.counts is not None:
                worker.counts.unlink(missing_ok=True)

    def _send_plan(self, worker: Worker, plan: StagePlan) -> None:
        present = [each.rank for each in self.roster.present]
        place = present.index(worker.rank) if worker.rank in present[: plan.workers] else 0
        most = plan.max_in_flight
        own = dataclasses.replace(
            plan,
            worker=worker.rank,
            place=place,
            max_in_flight=None if most is None else max(1, share(most, place, plan.workers)),
        )
        self.tell(worker, messages.STAGE, dataclasses.asdict(own))

    def _make_folder(self) -> Path | None:
        folder = Path(f"{self._writer.prefix}_llm_spool").absolute()
        try:
            mark_folder(folder, self._writer.run_id)
        except OSError as error:
            self.say(f"workers keep their spools in their own temporary folders: {folder}: {error.strerror or error}")
            return None
        return folder
