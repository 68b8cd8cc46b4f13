"""The load processes of a run: who is here, who left, who is silent; what each was given and has started."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from llm_users.collect.spool import counts_prefix, read_counts, shard_name
from llm_users.collect.worker_accounts import LEFT, MISSING, WorkerAccount
from llm_users.load.protocol.messages import LEASE_MARGIN_S, LEASE_S, WAIT_S, Count
from llm_users.load.protocol.stage import StageTotals
from llm_users.record import RequestRecord

_HEARD_LATELY_S = 2.5
"""Requests of a silent worker go to those that were heard in this time: silence may spread."""

_START_S = 15.0
_SETTLED_S = 3.0
"""A worker that was silent gets requests of others after so long: those that were silent too may come back with it."""


@dataclasses.dataclass
class StageAssignment:
    """What one load process has to do with one stage, and has done in it. A new one for each stage."""

    stage: int
    expected: bool = False  # the stage waits for its word before it begins
    waiting: int | None = None  # users that have come to its gate, once it said so
    all_users_came: bool = False  # no further user of it comes to the gate
    no_users_reason: str | None = None  # why none of its users comes to the gate
    admitted: bool = False  # its users were admitted
    users: int = 0  # how many were
    told_at: float = 0.0  # unix s here, when it was told that the stage begins
    quota: int | None = None  # measured requests that are its to start; None: no limit
    started: int = 0  # measured requests that it has started, by its last count
    rows: int = 0  # measured rows that have come from it
    beyond: int = 0  # rows that are not measured, because it started them beyond its share
    totals: StageTotals | None = None
    reduced: bool = False  # its quota was reduced to what it had started
    handed_over: bool = False  # and the rest was given to others

    def admit(self, record: RequestRecord) -> None:
        """A row has come: it is not measured when others were given its request to start."""
        if not record.measured:
            return
        if self.handed_over and self.quota is not None and self.rows >= self.quota:
            record.measured = 0
            self.beyond += 1
        else:
            self.rows += 1


@dataclasses.dataclass
class Worker:
    """What the coordinator knows about one load process."""

    client_id: str | None
    rank: int
    account: WorkerAccount
    assignment: StageAssignment = dataclasses.field(default_factory=lambda: StageAssignment(0))  # in the present stage
    assignments: dict[int, StageAssignment] = dataclasses.field(default_factory=dict)  # in all stages
    building: tuple[int, int] | None = None  # prompts of the stage that it has built and wants, while it builds
    held: int = 0  # rows in its spool that it does not send
    counts: Path | None = None
    told: bool = False  # it has sent a count, so it knows the run
    heard_at: float = dataclasses.field(default_factory=time.monotonic)
    back_at: float = 0.0  # when it came back from a silence
    lost_at: float = 0.0
    silence_s: float = 0.0  # how long it was silent the last time that it was lost and came back
    lost: bool = False  # it was here and is silent; it may start nothing
    final: bool = False  # it gave its final count

    @property
    def silent_s(self) -> float:
        """How long its last silence was, or has been by now."""
        return time.monotonic() - self.heard_at if self.lost else self.silence_s

    @property
    def patience_s(self) -> float:
        """How long it may be silent. One that has no share to give away may be busy with its start."""
        return LEASE_S + LEASE_MARGIN_S if self.assignment.admitted else _START_S

    def new_assignment(self, stage: int) -> StageAssignment:
        self.assignment = self.assignments[stage] = StageAssignment(stage)
        return self.assignment

    @property
    def done(self) -> bool:
        """Nothing more is to come from it in this stage."""
        assignment = self.assignment
        if not assignment.admitted:
            return True
        if self.lost or self.final:  # what it had not started was given to others, or is given up
            return assignment.reduced or assignment.quota is None or assignment.rows >= assignment.quota
        return assignment.totals is not None and (assignment.totals.quota == assignment.quota or self.gave_up)

    @property
    def gave_up(self) -> bool:
        """It could not connect even once in this stage."""
        return self.assignment.totals is not None and self.assignment.totals.given_up is not None

    @property
    def has_no_users(self) -> bool:
        """None of its users can go on with this stage."""
        return self.assignment.totals is not None and self.assignment.totals.no_users_reason is not None

    def started_measured(self, stage: int) -> int:
        """Measured requests that it has started in the stage, as exactly as can be known."""
        assignment = self.assignments.get(stage)
        if assignment is None:
            return 0
        if assignment.totals is not None:
            return assignment.totals.measured
        self.look_at_counts()
        return max(assignment.started, assignment.rows + assignment.beyond)

    def look_at_counts(self) -> None:
        """Its own counts, where they are on this machine; else its last word stands."""
        counts = read_counts(self.counts) if self.counts is not None else None
        if counts is None:
            self.account.exact = False
            return
        self.account.started = sum(started for started, _ in counts.values())
        self.account.exact = True
        for stage, (_, measured) in counts.items():
            if stage in self.assignments:
                self.assignments[stage].started = measured


def building(workers: list[Worker]) -> str:
    """How far workers are with the prompts of a stage, in words."""
    at_work = [(worker.rank, *worker.building) for worker in workers if worker.building is not None]
    which = f"worker {at_work[0][0]}" if len(at_work) == 1 else f"{len(at_work)} workers"
    wanted = sum(each for _, _, each in at_work)
    if not wanted:
        return f"loading the tokenizer and the source of prompts ({which})"
    return f"building prompts: {sum(built for _, built, _ in at_work)} of {wanted} ({which})"


class Roster:
    """The workers of one run by rank. A rank is given once."""

    def __init__(self, run_id: str = "") -> None:
        self._run_id = run_id
        self._workers: dict[int, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, rank: int) -> Worker | None:
        return self._workers.get(rank)

    def find(self, client_id: str | None) -> Worker | None:
        """The worker that has this name."""
        return next((worker for worker in self if worker.client_id == client_id), None)

    def knows(self, client_id: str) -> bool:
        return self.find(client_id) is not None

    def add(self, client_id: str | None) -> Worker:
        """A load process takes part from now on."""
        rank = len(self._workers)
        worker = Worker(client_id, rank, WorkerAccount(rank, client_id or "this process"))
        self._workers[rank] = worker
        return worker

    @property
    def present(self) -> list[Worker]:
        return [worker for worker in self if not worker.lost and not worker.final]

    @property
    def steady(self) -> list[Worker]:
        """Those that were heard a moment ago, and have been here for a while: requests of others can go to them."""
        now = time.monotonic()
        return [
            worker
            for worker in self.present
            if now - worker.heard_at < _HEARD_LATELY_S and now - worker.back_at > _SETTLED_S
        ]

    @property
    def all_done(self) -> bool:
        """Whether the stage is over for all that take part in it."""
        parts = [worker for worker in self if worker.assignment.admitted]
        return bool(parts) and all(worker.done for worker in parts)

    def all_final(self, clients: list[str | None]) -> bool:
        """Whether all that are here have given their final counts."""
        return all(worker.final or worker.client_id not in clients for worker in self)

    def fell_silent(self) -> list[Worker]:
        """Those that have been silent for so long by now that they may not start anything more."""
        now = time.monotonic()
        silent = [worker for worker in self.present if now - worker.heard_at > worker.patience_s]
        for worker in silent:
            worker.lost, worker.lost_at = True, now
        return silent

    def gone_for_good(self) -> list[Worker]:
        """Those that were waited for in vain, and still have a share of the stage."""
        now = time.monotonic()
        return [worker for worker in self if not worker.done and worker.lost_at and now - worker.lost_at > WAIT_S]

    def forget_silence(self) -> None:
        """This process stood still itself: the silence of the others begins now."""
        now = time.monotonic()
        for worker in self:
            if not worker.lost:
                worker.heard_at = now

    def hear(self, worker: Worker) -> bool:
        """A worker asks to go on, or says what it has started; returns whether it was taken for lost."""
        now = time.monotonic()
        was_lost, worker.lost, worker.lost_at = worker.lost, False, 0.0
        if was_lost:
            worker.back_at, worker.silence_s = now, now - worker.heard_at
        worker.heard_at = now
        return was_lost

    def take_count(self, worker: Worker, count: Count) -> None:
        """A load process tells what it has started and where its spool is."""
        worker.told = True
        if count.stage in worker.assignments:
            worker.assignments[count.stage].started = count.measured
        worker.held = count.held
        account = worker.account
        account.started, account.host = count.total, count.host
        # Paths came over a network: only files with the names that a worker of this run gives are ever opened.
        account.shards = [p for p in count.shards if Path(p).name == shard_name(self._run_id, worker.rank)]
        counts = Path(count.counts) if count.counts else None
        if counts is not None and counts.name.startswith(counts_prefix(self._run_id, worker.rank)):
            worker.counts = counts

    def settle(self) -> None:
        """The run is over: what is known of those that did not say good-bye."""
        for worker in self:
            if worker.final:
                worker.account.exact = True
                continue
            worker.account.state = MISSING
            worker.look_at_counts()

    def leave(self, worker: Worker, sent: int, *, early: bool) -> None:
        """It gave its final count."""
        worker.final = True
        worker.lost, worker.lost_at = False, time.monotonic()
        worker.account.sent = sent
        if early:
            worker.account.state = LEFT
