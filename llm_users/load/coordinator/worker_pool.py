"""The workers of a run as the coordinator sees them: which are present or silent, and their shares and starts.

``WorkerRegistry`` stores the workers. ``WorkerPool`` acts on them: it tells them about stages, divides the requests of
a stage among them, reassigns the share of a lost worker, and reports at the end which rows are missing. ``coordinator``
decides about the stages.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from llm_users.calibration import capacity
from llm_users.collect.client_health import OK, complaint
from llm_users.collect.spool import clear_folder, mark_folder, read_counts
from llm_users.collect.stage_stats import describe, resending, widening
from llm_users.collect.writer import LEFT, MISSING, RunWriter, WorkerAccount
from llm_users.load.coordinator.shares import ArrivalShares, share, split, turns
from llm_users.load.coordinator.stages import StageSpec
from llm_users.load.protocol import messages
from llm_users.load.protocol.messages import LEASE_MARGIN_S, LEASE_S, WAIT_S, Count
from llm_users.load.protocol.stage import StagePlan, StageTotals, arrival_times_of
from llm_users.number_words import counted
from llm_users.options.table import Options
from llm_users.record import LOAD_SHARE, RequestRecord, StageRecord
from llm_users.run_files import SPOOL_FOLDER, path_of, shard_name, start_counts_prefix
from llm_users.secrets import redact

logger = logging.getLogger(__name__)

MOST_ROWS_PER_S = 5000.0
"""Maximum rate of rows from all workers together. Workers keep further rows, and the coordinator fetches them between
stages."""

LATE_PROMPTS = 10_000_000
"""Number of prompts in the separate range of each worker that joins later. These ranges follow the range of the first
workers."""

_MOST_FOREIGN_SENDERS = 100

_ORIGIN_AHEAD_S = 0.2
"""The origin of an open loop's arrivals lies this long after GO, so that all workers have received it."""

Send = Callable[[messages.Message, str | None], None]

_HEARD_LATELY_S = 2.5
"""Requests of a silent worker go to workers that sent a message within this time, because silence may spread."""

_START_S = 15.0
_SETTLED_S = 3.0
"""A worker that was silent gets requests of other workers only after this time: other silent workers may come back with
it."""


@dataclass
class StageAssignment:
    """The task of one worker in one stage, and its progress. Each stage has a new one."""

    stage: int
    expected: bool = False  # the stage waits for this worker before it begins
    waiting: int | None = None  # users at its admission gate; None before its first report
    all_users_came: bool = False  # no further user of the worker will come to the gate
    no_users_reason: str | None = None  # why no user of the worker comes to the gate
    admitted: bool = False  # its users were admitted
    users: int = 0  # number of admitted users
    told_at: float = 0.0  # unix s of the coordinator, when it sent the start of the stage
    quota: int | None = None  # measured requests of its share; None: no limit
    started: int = 0  # measured requests that it has started, by its last count
    rows: int = 0  # measured rows that have arrived from it
    beyond: int = 0  # rows that do not count, because the worker started them beyond its share
    totals: StageTotals | None = None
    reduced: bool = False  # its quota was reduced to the number of started requests
    handed_over: bool = False  # the rest was reassigned to other workers

    def admit(self, record: RequestRecord) -> None:
        """Count a row. The row is not measured if its request was reassigned to other workers."""
        if not record.measured:
            return
        if self.handed_over and self.quota is not None and self.rows >= self.quota:
            record.measured = 0
            self.beyond += 1
        else:
            self.rows += 1


@dataclass
class Worker:
    """The state of one worker in the coordinator."""

    client_id: str | None
    rank: int
    account: WorkerAccount
    assignment: StageAssignment = field(default_factory=lambda: StageAssignment(0))  # of the present stage
    assignments: dict[int, StageAssignment] = field(default_factory=dict)  # of all stages
    building: tuple[int, int] | None = None  # (prompts built, prompts wanted) while it builds
    held: int = 0  # rows in its spool that it does not send
    counts: Path | None = None
    told: bool = False  # it has sent a COUNT, so it knows the run
    heard_at: float = field(default_factory=time.monotonic)
    back_at: float = 0.0  # when it came back from a silence
    lost_at: float = 0.0
    silence_s: float = 0.0  # length of its last silence after which it came back
    lost: bool = False  # it is silent and may start nothing
    final: bool = False  # it has sent its final count

    @property
    def patience_s(self) -> float:
        """Return how long the worker may be silent. A worker without a share may be busy with its start."""
        return LEASE_S + LEASE_MARGIN_S if self.assignment.admitted else _START_S

    def new_assignment(self, stage: int) -> StageAssignment:
        self.assignment = self.assignments[stage] = StageAssignment(stage)
        return self.assignment

    @property
    def done(self) -> bool:
        """Return whether the worker has nothing more to report in this stage."""
        assignment = self.assignment
        if not assignment.admitted:
            return True
        if self.lost or self.final:  # the rest of its share was reassigned or given up
            return assignment.reduced or assignment.quota is None or assignment.rows >= assignment.quota
        return assignment.totals is not None and (assignment.totals.quota == assignment.quota or self.gave_up)

    @property
    def gave_up(self) -> bool:
        """Return whether the worker could not connect even once in this stage."""
        return self.assignment.totals is not None and self.assignment.totals.given_up is not None

    def started_measured(self, stage: int) -> int:
        """Return the number of measured requests that the worker has started in the stage, as exactly as possible."""
        assignment = self.assignments.get(stage)
        if assignment is None:
            return 0
        if assignment.totals is not None:
            return assignment.totals.measured
        self.look_at_counts()
        return max(assignment.started, assignment.rows + assignment.beyond)

    def look_at_counts(self) -> None:
        """Read the worker's own counts if they are on this machine. Otherwise its last message stays valid."""
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
    """Return the progress of workers that build the prompts of a stage, as text."""
    progress = [(worker.rank, *worker.building) for worker in workers if worker.building is not None]
    which = f"worker {progress[0][0]}" if len(progress) == 1 else f"{len(progress)} workers"
    total = sum(wanted for _, _, wanted in progress)
    if not total:
        return f"{which} {'loads' if len(progress) == 1 else 'load'} the tokenizer and the source of the prompts"
    return f"building prompts: {sum(built for _, built, _ in progress)} of {total} ({which})"


class WorkerRegistry:
    """The workers of one run by rank. A rank is never reused."""

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
        """Return the worker with this client id, or None."""
        return next((worker for worker in self if worker.client_id == client_id), None)

    def add(self, client_id: str | None) -> Worker:
        """Add a worker to the run."""
        rank = len(self._workers)
        worker = Worker(client_id, rank, WorkerAccount(rank, client_id or "this process"))
        self._workers[rank] = worker
        return worker

    @property
    def present(self) -> list[Worker]:
        return [worker for worker in self if not worker.lost and not worker.final]

    @property
    def steady(self) -> list[Worker]:
        """Return the workers that can take over requests: heard recently, and present for a while."""
        now = time.monotonic()
        return [
            worker
            for worker in self.present
            if now - worker.heard_at < _HEARD_LATELY_S and now - worker.back_at > _SETTLED_S
        ]

    @property
    def all_done(self) -> bool:
        """Return whether the stage is over for all workers that take part in it."""
        parts = [worker for worker in self if worker.assignment.admitted]
        return bool(parts) and all(worker.done for worker in parts)

    def all_final(self, clients: list[str | None]) -> bool:
        """Return whether all connected workers have sent their final counts."""
        return all(worker.final or worker.client_id not in clients for worker in self)

    def fell_silent(self) -> list[Worker]:
        """Mark workers as lost that have been silent for longer than they may start requests, and return them."""
        now = time.monotonic()
        silent = [worker for worker in self.present if now - worker.heard_at > worker.patience_s]
        for worker in silent:
            worker.lost, worker.lost_at = True, now
        return silent

    def gone_for_good(self) -> list[Worker]:
        """Return lost workers that did not come back in time and still have a share of the stage."""
        now = time.monotonic()
        return [worker for worker in self if not worker.done and worker.lost_at and now - worker.lost_at > WAIT_S]

    def forget_silence(self) -> None:
        """Restart the silence timers, because this process itself stood still."""
        now = time.monotonic()
        for worker in self:
            if not worker.lost:
                worker.heard_at = now

    def hear(self, worker: Worker) -> bool:
        """Record a message of a worker. Return whether the worker was considered lost."""
        now = time.monotonic()
        was_lost, worker.lost, worker.lost_at = worker.lost, False, 0.0
        if was_lost:
            worker.back_at, worker.silence_s = now, now - worker.heard_at
        worker.heard_at = now
        return was_lost

    def take_count(self, worker: Worker, count: Count) -> None:
        """Store what a worker has started and where its spool is."""
        worker.told = True
        if count.stage in worker.assignments:
            worker.assignments[count.stage].started = count.measured
        worker.held = count.held
        account = worker.account
        account.started, account.host = count.total, count.host
        # The paths came over a network. Open only files with the names that a worker of this run uses.
        account.shards = [p for p in count.shards if Path(p).name == shard_name(self._run_id, worker.rank)]
        counts = Path(count.counts) if count.counts else None
        if counts is not None and counts.name.startswith(start_counts_prefix(self._run_id, worker.rank)):
            worker.counts = counts

    def settle(self) -> None:
        """Complete the accounts of workers that did not send a final count."""
        for worker in self:
            if worker.final:
                worker.account.exact = True
                continue
            worker.account.state = MISSING
            worker.look_at_counts()

    def leave(self, worker: Worker, sent: int, *, early: bool) -> None:
        """Record the final count of a worker."""
        worker.final = True
        worker.lost, worker.lost_at = False, time.monotonic()
        worker.account.sent = sent
        if early:
            worker.account.state = LEFT


class WorkerPool:
    """The workers of one run: sends them messages and divides the requests of a stage among them."""

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
        self.writer = writer
        self.workers = WorkerRegistry(writer.run_id)
        self.distributed = clients != [None]
        self.changes = 0
        """How many times a worker joined or left."""
        self._options = Options()
        self._is_open_loop = False
        self._trace_times_s: Sequence[float] | None = None  # in the replay of a trace
        self._arrivals = ArrivalShares(tuple)  # of an open loop
        self._origin_s = 0.0  # origin of the arrivals, on the monotonic clock
        self._first_workers = len(clients)
        self._capacity = capacity.stored(lambda text: logger.warning("%s", text))
        self._folder: Path | None = None
        if self.distributed:
            folder = path_of(writer.prefix, SPOOL_FOLDER).absolute()
            try:
                mark_folder(folder, writer.run_id)
                self._folder = folder
            except OSError as error:
                reason = error.strerror or error
                self.say(f"workers keep their spools in their own temporary folders: {folder}: {reason}")
        self._run_message = partial(
            messages.Run,
            writer.run_id,
            run_key=run_key,
            workers=len(clients),
            live=live,
            withhold_keys=withhold_keys,
            distributed=self.distributed,
            spool=str(self._folder) if self._folder else None,
            prefix=str(Path(writer.prefix).absolute()),
            rows_per_s=MOST_ROWS_PER_S / len(clients) if self.distributed and not rows_at_once else None,
        )
        self._refused: dict[str, list[int]] = {}  # messages and rows of other runs, by sender
        self.shortfall: list[str] = []
        """Messages about what was requested and not measured."""
        for client in clients:
            self.take_in(client)

    @property
    def run_id(self) -> str:
        return self.writer.run_id

    def take_in(self, client_id: str | None) -> Worker:
        """Add a worker to the run: give it a rank and a part of the prompt sequence, and send RUN."""
        worker = self.workers.add(client_id)
        self.writer.accounts[worker.rank] = worker.account
        self.tell_run(worker)
        return worker

    def tell_run(self, worker: Worker) -> None:
        late = worker.rank - self._first_workers
        first, step = (worker.rank, self._first_workers) if late < 0 else (LATE_PROMPTS * (late + 1), 1)
        self.tell(worker, self._run_message(worker=worker.rank, first_prompt=first, prompt_step=step))

    def tell(self, worker: Worker, message: messages.Message) -> None:
        """Send a message to one worker."""
        self._send(message, worker.client_id)

    def tell_all(self, message: messages.Message) -> None:
        """Send a message to all workers, including silent ones, which may come back.

        The socket drops messages to lost workers.
        """
        for worker in self.workers:
            self.tell(worker, message)

    def say(self, text: str, *, is_warning: bool = True) -> None:
        """Write a text to the log and to the manifest's notes, once."""
        if self.writer.note(text):
            logger.log(logging.WARNING if is_warning else logging.INFO, "%s", self.writer.notes[-1])

    def say_change(self, text: str) -> None:
        """Note that a worker joined or left."""
        self.changes += 1
        self.say(text)

    # Stages.

    def plan_of(self, options: Options, stage: int, spec: StageSpec, *, free: bool) -> StagePlan:
        """Return the plan of a stage from the options. Each worker receives it with its own place in the stage."""
        workers = max(1, len(self.workers.present))
        self._options, self._trace_times_s = options, spec.times_s
        self._is_open_loop = spec.load.is_open
        counted = spec.requests if spec.minimum is not None else spec.requests or options.stage_requests
        return StagePlan(
            stage=stage,
            load=spec.load,
            workers=workers,
            ramp_s=0.0 if spec.load.is_open else options.stage_ramp_s,
            warmup_requests=options.stage_warmup.requests,
            warmup_s=options.stage_warmup.time_s,
            measure_s=options.stage_time_s if spec.minimum is None else None,
            requests=options.requests if free else counted,
            free=free,
            concurrency_asked=spec.load.users,
            max_in_flight=options.max_in_flight,
        )

    def announce(self, plan: StagePlan) -> None:
        """Announce a stage to all workers that may take part."""
        for worker in self.workers:
            assignment = worker.new_assignment(plan.stage)
            if not worker.final:
                assignment.expected = not worker.lost
                assignment.told_at = time.time()
                worker.building = None
                self.tell_plan(worker, plan)

    def admit(self, worker: Worker, plan: StagePlan) -> None:
        """Announce the present stage to a worker that has joined during it.

        The worker waits for the next stage; in a free run it gets users at once.
        """
        assignment = worker.new_assignment(plan.stage)
        assignment.told_at = time.time()
        self.tell_plan(worker, plan)

    def admit_late_worker(self, worker: Worker, plan: StagePlan) -> None:
        """Let a worker that joined during a free stage take part. It gets none of the counted requests."""
        self._tell_go_first(worker, plan, worker.assignment.waiting or 0, None if plan.requests is None else 0)

    def admit_users(self, plan: StagePlan) -> None:
        """Let the users at the admission gates start, each worker with its share."""
        going = [
            worker
            for worker in self.workers.present
            if worker.assignment.expected and worker.assignment.waiting is not None
        ]
        users = {worker.rank: worker.assignment.waiting or 0 for worker in going}
        if not plan.load.is_open:
            quotas = split(plan.requests, users)
        else:  # a worker without its dispatcher user sends no arrivals
            quotas = self._divide_arrivals([rank for rank, count in users.items() if count], plan)
        self._origin_s = time.monotonic() + _ORIGIN_AHEAD_S
        nothing = None if plan.requests is None else 0
        for worker in going:
            self._tell_go_first(worker, plan, users[worker.rank], quotas.get(worker.rank, nothing))

    def _tell_go_first(self, worker: Worker, plan: StagePlan, users: int, quota: int | None) -> None:
        assignment = worker.assignment
        assignment.admitted, assignment.users, assignment.quota, assignment.told_at = True, users, quota, time.time()
        self._tell_go(worker, plan)

    def _tell_go(self, worker: Worker, plan: StagePlan) -> None:
        """Send GO. ``lead_s`` is negative if the worker gets GO again after the origin: the clocks may differ."""
        go = messages.Go(self.run_id, stage=worker.assignment.stage, quota=worker.assignment.quota)
        if not plan.load.is_open:
            go = replace(go, users=plan.users)
        else:
            parts, max_in_flight = self._arrivals.of(worker.rank), self._arrivals.most_of(worker.rank)
            lead_s = self._origin_s - time.monotonic()
            go = replace(go, lead_s=lead_s, parts=parts, max_in_flight=max_in_flight)
        self.tell(worker, go)

    def tell_quota(self, worker: Worker, number: int | None = None) -> None:
        """Send a worker its present share of the stage. With the number of its BACK, the worker may continue."""
        assignment = worker.assignment
        if assignment.admitted and self._is_open_loop:
            parts, max_in_flight = self._arrivals.of(worker.rank), self._arrivals.most_of(worker.rank)
            changed = messages.ArrivalsChanged(
                self.run_id, stage=assignment.stage, parts=parts, max_in_flight=max_in_flight
            )
            self.tell(worker, changed)
        quota = assignment.quota if assignment.admitted else None
        self.tell(worker, messages.Quota(self.run_id, stage=assignment.stage, quota=quota, number=number))

    def tell_what_was_missed(self, worker: Worker, plan: StagePlan, count: Count) -> None:
        """Send a worker the messages that it has missed because its connection was cut."""
        assignment = worker.assignment
        if count.known_stage != plan.stage:
            self.tell_plan(worker, plan)
        elif assignment.admitted and not count.admitted and assignment.quota != 0:
            self._tell_go(worker, plan)
        elif assignment.admitted and (count.quota != assignment.quota or (count.over and not worker.done)):
            self.tell_quota(worker)

    def hand_over(self, worker: Worker, plan: StagePlan) -> int | None:
        """Reassign the requests that a worker has not started, and return their number.

        None means that no other worker can take them, so they stay with the worker.
        """
        assignment = worker.assignment
        if not assignment.admitted or assignment.reduced:
            return 0
        others = [
            other
            for other in self.workers.steady
            if other.assignment.admitted
            and other is not worker
            and not other.gave_up
            and not (other.assignment.totals is not None and other.assignment.totals.no_users_reason is not None)
        ]
        if plan.load.is_open:
            return self._hand_over_arrivals(worker, plan, [other.rank for other in others])
        if assignment.quota is None:
            return 0
        started = min(assignment.quota, worker.started_measured(plan.stage))
        rest = assignment.quota - started
        if rest and not others:
            return None
        assignment.quota, assignment.reduced = started, True
        if not rest:
            return 0
        assignment.handed_over = True
        for rank, more in split(rest, {other.rank: max(1, other.assignment.users) for other in others}).items():
            taker = self.workers.get(rank)
            if taker is not None and taker.assignment.quota is not None and more:
                taker.assignment.quota += more
                self.tell_quota(taker)
        return rest

    def give_up(self, worker: Worker, plan: StagePlan) -> None:
        """Drop the requests that a worker had not started, because no other worker could take them over."""
        if worker.assignment.quota is not None:
            worker.assignment.quota = min(worker.assignment.quota, worker.started_measured(plan.stage))
        worker.assignment.reduced = True

    def _hand_over_arrivals(self, worker: Worker, plan: StagePlan, takers: list[int]) -> int | None:
        """Reassign a lost worker's arrivals, from a moment on that all other workers can still meet.

        Arrivals before that moment are missing in the load. A counted stage of drawn arrivals sends as many more at its
        end. None means that no other worker can take the arrivals, so they stay with the worker.
        """
        assignment = worker.assignment
        if not takers and not worker.final:
            return None
        from_s = max(0.0, time.monotonic() - self._origin_s + _ORIGIN_AHEAD_S)
        end_s = math.inf if plan.measure_s is None else plan.timed_warmup_s + plan.measure_s
        started = worker.started_measured(plan.stage)
        warmups = plan.warmup_requests or self._arrivals.due(worker.rank, plan.timed_warmup_s)
        missed = max(0, self._arrivals.due(worker.rank, min(from_s, end_s)) - warmups - started)
        taken = self._arrivals.hand_over(worker.rank, takers, from_s, ends=self._trace_times_s is not None)
        rest, assignment.reduced = 0, True
        if assignment.quota is not None:
            started = min(assignment.quota, started)
            rest, assignment.quota = assignment.quota - started, started
            assignment.handed_over = bool(rest and takers)
            missed = min(missed, rest)
        if missed:
            took = "between its loss and the takeover by the other workers" if takers else "after its loss"
            self.say(f"stage {plan.stage}: {missed} arrivals of worker {worker.rank} were not sent {took}")
        more: dict[int, int | None] = {**taken}
        if self._trace_times_s is None and takers:
            more = split(rest, dict.fromkeys(takers, 1))
        for rank in takers:
            other = self.workers.get(rank)
            if other is not None:
                if other.assignment.quota is not None:
                    other.assignment.quota += more.get(rank) or 0
                self.tell_quota(other)
        return sum(filter(None, more.values()))

    def _divide_arrivals(self, ranks: list[int], plan: StagePlan) -> dict[int, int | None]:
        """Divide an open loop's arrivals among the workers and return their quotas."""
        options = self._options
        self._arrivals = ArrivalShares(
            partial(arrival_times_of, plan, options.arrivals, options.seed, self._trace_times_s)
        )
        if self._trace_times_s is None:
            self._arrivals.begin(ranks, plan.max_in_flight)
            return turns(plan.requests, ranks)
        # The prompts of a trace are numbered for the workers at the start of the run. Some may be gone by now.
        first = list(range(self._first_workers))
        self._arrivals.begin(first, plan.max_in_flight)
        quotas = turns(plan.requests, first)
        for rank in first:
            if rank not in ranks:
                for taker, more in self._arrivals.hand_over(rank, ranks, 0.0, ends=True).items():
                    quotas[taker] = (quotas[taker] or 0) + more
        return quotas

    # Rows and accounts.

    def recover(self) -> None:
        """Read rows that did not arrive by message from spools on this machine."""
        for worker in list(self.workers):
            if worker.held or worker.lost or worker.account.lost:
                recovered = self.writer.recover(worker.account)
                if recovered and worker.lost:
                    self.say(f"{recovered} rows of worker {worker.rank} were recovered from its spool")

    def check_started(self, plan: StagePlan, *, given_up: bool, why: str | None = None) -> None:
        """Report a counted stage that started more or fewer requests than planned, and ``why`` if it is known."""
        if plan.requests is None or plan.free:
            return
        started = 0
        for worker in self.workers:
            quota, own = worker.assignment.quota, worker.started_measured(plan.stage)
            started += own if quota is None else min(quota, own)
        if started > plan.requests:
            excess = started - plan.requests
            self.say(f"stage {plan.stage}: {excess} requests beyond the planned {plan.requests} were started")
        elif started < plan.requests and not given_up:
            missing = plan.requests - started
            reason = f": {why}" if why else ""
            self.fall_short(f"stage {plan.stage}: {missing} of {plan.requests} requests were not started{reason}")

    def fall_short(self, text: str) -> None:
        """Report that something requested was not measured.

        The error is logged immediately, since the run may take hours more.
        """
        if text not in self.shortfall:
            self.shortfall.append(text)
            self.writer.note(text)
            logger.error("%s", redact(text))

    def refuse(self, sender: str, rows: int) -> None:
        """Count a message, or rows, of another run or another process."""
        counts = (
            self._refused.setdefault(str(sender)[:80], [0, 0]) if len(self._refused) < _MOST_FOREIGN_SENDERS else [0, 0]
        )
        counts[0] += not rows
        counts[1] += rows

    def admit_row(self, record: RequestRecord) -> None:
        """Check a row before it is counted and written."""
        worker = self.workers.get(record.worker)
        assignment = worker.assignments.get(record.stage) if worker is not None else None
        if assignment is not None:
            assignment.admit(record)

    def tell_of(self, stage: StageRecord) -> None:
        """Log the result of a stage, and whether the client itself was the limit or may have been."""
        logger.info("%s", describe(stage))
        if stage.window_widened and stage.requests_ok:  # rates need at least one request that succeeded
            self.say(widening(stage))
        if (short := stage.shortfall) is not None and stage.concurrency >= LOAD_SHARE * (stage.concurrency_asked or 0):
            self.say(f"stage {stage.stage}: {short.text}")  # missing users were reported when the stage began
        if stage.health not in (None, OK):
            logger.warning("%s", complaint(stage, len(self.workers)))
        if stage.requests_resent:
            self.say(resending(stage))
        for held_back in self.writer.book.holding(stage.stage):
            self.say(held_back)
        if text := capacity.excess(stage, [w.client_id for w in self.workers if w.assignment.admitted], self._capacity):
            self.say(text)

    def settle(self, refused: str | None) -> None:
        """Complete the run after all rows have arrived: accounts, manifest, and spools that are no longer needed."""
        writer = self.writer
        for worker in self.workers:
            silent_s = time.monotonic() - worker.heard_at if worker.lost else worker.silence_s
            for assignment in worker.assignments.values():
                if assignment.beyond:
                    what = counted(assignment.beyond, "request")
                    whose = "its row has" if assignment.beyond == 1 else "their rows have"
                    self.say(
                        f"worker {worker.rank}: {what} of stage {assignment.stage} were started beyond its share "
                        f"while it was cut off for {silent_s:.0f} s; {whose} measured 0"
                    )
        for sender, (count, rows) in self._refused.items():
            self.say(
                f"{count} messages and {rows} rows of another run were rejected (from worker {sender}); that worker "
                "belonged to an earlier run"
            )
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
        for worker in self.workers:
            self.release(worker)
        if writer.has_all_rows and self._folder is not None:
            clear_folder(self._folder, writer.run_id)
        for worker in self.workers:
            if worker.counts is not None:
                worker.counts.unlink(missing_ok=True)

    def release(self, worker: Worker) -> None:
        """Let a worker that has sent its final count delete its spool, if all its rows are on disk."""
        writer = self.writer
        if worker.final and not (worker.account.lost or writer.unwritten() or writer.elsewhere()):
            self.tell(worker, messages.Settled(self.run_id))

    def release_early(self, worker: Worker) -> None:
        """Do the same before the end of the run, after the rows have been written to disk."""
        self.writer.flush()
        self.release(worker)

    def tell_plan(self, worker: Worker, plan: StagePlan) -> None:
        present = [other.rank for other in self.workers.present]
        place = present.index(worker.rank) if worker.rank in present[: plan.workers] else 0
        most = plan.max_in_flight
        own = replace(
            plan,
            worker=worker.rank,
            place=place,
            max_in_flight=None if most is None else max(1, share(most, place, plan.workers)),
        )
        self.tell(worker, messages.Stage(self.run_id, plan=own))
