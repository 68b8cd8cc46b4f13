"""The load processes of a run: who is here, who left, who is silent; what each was given and has started."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_users.collect.accounts import LEFT, MISSING, WorkerAccount
from llm_users.collect.spool import counts_prefix, read_counts, shard_name
from llm_users.plan import StageTotals


@dataclasses.dataclass
class Worker:
    """What the coordinator knows about one load process."""

    client_id: str | None
    rank: int
    account: WorkerAccount
    waiting: int | None = None  # users that have come to its gate, once it said so for this stage
    alive: int = 0  # its users that run
    ended: int = 0  # users that have ended by themselves since the stage was announced
    owes: int = 0  # the free stage before the present one, whose totals it has not reported yet; 0: none
    earlier: StageTotals | None = None  # of that stage
    earlier_told_at: float = 0.0
    totals: StageTotals | None = None
    expected: bool = False  # the stage waits for its word before it begins
    part: bool = False  # it was let go in this stage
    users: int = 0  # with so many users
    told_at: float = 0.0  # unix s here, when it was told that the stage begins
    quota: int | None = None  # measured requests of the stage that are its to start
    stage: int = 0  # of its last count
    measured: int = 0  # measured requests that it has started in that stage
    held: int = 0  # rows in its spool that it does not send
    counts: Path | None = None
    lost: bool = False  # it was here and is not any more
    final: bool = False  # it gave its final count
    seen: bool = False

    @property
    def done(self) -> bool:
        """Nothing more is to come from it in this stage."""
        if not self.part or self.lost or self.final:
            return True
        return self.totals is not None and (self.totals.quota == self.quota or self.totals.given_up is not None)

    def started_measured(self, stage: int) -> int:
        """Measured requests that it has started in the stage, as exactly as can be known."""
        if self.totals is not None and self.totals.stage == stage:
            return self.totals.measured
        self.look_at_counts()
        return self.measured if self.stage == stage else 0

    def set_aside(self, stage: int) -> None:
        """Another free stage begins: what it did in this one is still to be reported, unless it has been."""
        self.earlier, self.owes = self.totals, 0
        if self.totals is not None:
            self.totals.told_at = self.told_at
        elif self.part:
            self.owes = stage
        self.earlier_told_at = self.told_at

    def take_earlier(self, totals: StageTotals) -> None:
        """It has reported the stage before the present free one."""
        totals.told_at = self.earlier_told_at
        self.earlier, self.owes = totals, 0

    def earlier_measured(self, stage: int) -> int:
        """Measured requests that it has started in the stage before the present free one."""
        return self.earlier.measured if self.earlier is not None else self.started_measured(stage)

    def look_at_counts(self) -> None:
        """Its own counts, where they are on this machine; else its last word stands."""
        counts = read_counts(self.counts) if self.counts is not None else None
        if counts is None:
            self.account.exact = False
            return
        self.account.started = sum(started for started, _ in counts.values())
        self.account.exact = True
        if counts:
            self.stage = max(counts)
            self.measured = counts[self.stage][1]


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

    def knows(self, client_id: str) -> bool:
        return any(worker.client_id == client_id for worker in self)

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
    def all_done(self) -> bool:
        """Whether the stage is over for all that take part in it."""
        parts = [worker for worker in self if worker.part]
        return bool(parts) and all(worker.done for worker in parts)

    def all_final(self, clients: list[str | None]) -> bool:
        """Whether all that are here have given their final counts."""
        return all(worker.final or worker.client_id not in clients for worker in self)

    def changes(self, clients: list[str | None]) -> tuple[list[Worker], list[Worker]]:
        """Who has fallen silent, and who is back, since the last look."""
        here = set(clients)
        gone, back = [], []
        for worker in self:
            if worker.final:
                continue
            is_here = worker.client_id in here
            worker.seen = worker.seen or is_here
            was_lost, worker.lost = worker.lost, worker.seen and not is_here
            if worker.lost and not was_lost:
                gone.append(worker)
            elif was_lost and not worker.lost:
                back.append(worker)
        return gone, back

    def take_count(self, data: dict[str, Any]) -> None:
        """A load process tells what it has started and where its spool is."""
        worker = self.get(data["worker"])
        if worker is None:
            return
        worker.stage, worker.measured, worker.held = data["stage"], data["measured"], data["held"]
        account = worker.account
        account.started, account.host = data["total"], data["host"]
        # Paths came over a network: only files with the names that a worker of this run gives are ever opened.
        account.shards = [p for p in data["shards"] if Path(p).name == shard_name(self._run_id, worker.rank)]
        counts = Path(data["counts"]) if data["counts"] else None
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
        worker.account.sent = sent
        if early:
            worker.account.state = LEFT
