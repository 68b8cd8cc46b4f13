"""Servers and their clients in virtual time, with the product's own window, shares and stage book.

The model decides when chunks arrive, so the right answer is known. Everything after that is the product's code:
``Measurement`` decides about the window, ``StageBook`` adds up the rows.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from llm_users.collect.stage_stats import StageBook
from llm_users.load.protocol.stage import MEASURE, WARMUP, StagePlan
from llm_users.load.worker.permits import Permit
from llm_users.load.worker.stage_measurement import Measurement
from llm_users.record import RequestRecord, StageLoad, StageRecord

NS = 1_000_000_000


@dataclass(frozen=True)
class Answer:
    """What the server does for one request: seconds to the first chunk and between chunks, and their number."""

    ttft_s: float
    itl_s: float
    tokens: int

    @property
    def latency_s(self) -> float:
        return self.ttft_s + (self.tokens - 1) * self.itl_s

    def stamps_ns(self, start_ns: int) -> list[int]:
        """When its chunks arrive."""
        return [start_ns + int((self.ttft_s + k * self.itl_s) * NS) for k in range(self.tokens)]


@dataclass
class Outcome:
    """A stage as the product reports it, and what the server did."""

    stage: StageRecord
    latencies_s: list[float]  # of the measured requests
    log: list[list[int]] = field(default_factory=list)  # when the chunks of each answer left the server
    windows_ns: list[tuple[int, int]] = field(default_factory=list)

    @property
    def logged_per_s(self) -> float:
        """Requests per second by the server's log: the share of each answer that left inside the windows."""
        length_ns = sum(end - start for start, end in self.windows_ns)
        shares = (
            sum(any(start < stamp <= end for start, end in self.windows_ns) for stamp in stamps) / len(stamps)
            for stamps in self.log
        )
        return sum(shares) / (length_ns / NS)


class _Stage:
    """The bookkeeping that a worker does for one stage."""

    def __init__(self, plan: StagePlan) -> None:
        self.plan = plan
        self.measurement = Measurement()
        self.measurement.begin(plan, (0, 0), 0)
        self.book = StageBook()
        self.outcome = Outcome(StageRecord(), [])
        self._numbers = itertools.count()

    def start(self, now_ns: int, *, measured: bool, intended_ns: int = 0, last: bool = False) -> Permit:
        permit = Permit(self.plan, MEASURE if measured else WARMUP, now_ns, next(self._numbers), measured=measured)
        self.measurement.window.count(+1, now_ns)
        if measured:
            self.measurement.totals.measured += 1
            self.measurement.started(intended_ns or now_ns, now_ns)
            if last:
                self.measurement.end(intended_ns or now_ns)
        return permit

    def end(self, permit: Permit, start_ns: int, stamps_ns: list[int], *, streamed: bool = True) -> None:
        """The answer is complete: its row is made as a user makes it."""
        end_ns = stamps_ns[-1]
        record = RequestRecord(stage=self.plan.stage, measured=int(permit.measured), output_tokens=len(stamps_ns))
        record.end_to_end_latency_s = (end_ns - start_ns) / NS
        record.chunks = len(stamps_ns) if streamed else 0
        share = self.measurement.account(permit, start_ns, end_ns, stamps_ns if streamed else [], ok=True)
        record.count_in_window(share)
        self.book.add(record)
        self.measurement.ended(permit)
        self.measurement.window.count(-1, end_ns)
        self.outcome.log.append(stamps_ns)
        if permit.measured:
            self.outcome.latencies_s.append(record.end_to_end_latency_s)

    def finish(self) -> Outcome:
        totals = self.measurement.report((0, 0), None)
        self.outcome.stage = self.book.record(self.plan.stage, self.plan.load, [totals])
        self.outcome.windows_ns = self.measurement.window.spans_ns
        return self.outcome


def closed_loop(
    users: int, requests: int, draw: Callable[[], Answer], *, ramp_s: float = 0.5, warmups: int = 1,
    streamed: bool = True,
) -> Outcome:  # fmt: skip
    """Users that ask again as soon as they have their answer, as ``AdmissionGate`` lets them."""
    stage = _Stage(StagePlan(1, StageLoad(users), ramp_s=ramp_s, warmup_requests=warmups, requests=requests))
    order = itertools.count()
    events: list[tuple[int, int, Permit | None, int, list[int], int]] = []
    for user in range(users):
        heapq.heappush(events, (int(ramp_s * user / users * NS), next(order), None, 0, [], user))
    warmups_left = users * warmups
    own_left = [warmups] * users
    started = 0
    waiting: list[int] = []

    def ask(user: int, now_ns: int) -> None:
        nonlocal started, warmups_left
        measured = not warmups_left
        if measured:
            if started == requests:
                return
            started += 1
        elif not own_left[user]:
            waiting.append(user)
            return
        else:
            own_left[user] -= 1
            warmups_left -= 1
        permit = stage.start(now_ns, measured=measured, last=measured and started == requests)
        stamps_ns = draw().stamps_ns(now_ns)
        heapq.heappush(events, (stamps_ns[-1], next(order), permit, now_ns, stamps_ns, user))
        if not measured and not warmups_left:
            for other in waiting:
                ask(other, now_ns)

    while events:
        now_ns, _, permit, start_ns, stamps_ns, user = heapq.heappop(events)
        if permit is not None:
            stage.end(permit, start_ns, stamps_ns, streamed=streamed)
        ask(user, now_ns)
    return stage.finish()


def open_loop(
    rate_per_s: float, requests: int, draw: Callable[[], Answer], rng: random.Random, *, servers: int
) -> Outcome:
    """Poisson arrivals at a queue: ``servers`` answers at a time, first come, first served."""
    stage = _Stage(StagePlan(1, StageLoad(rate_per_s=rate_per_s), requests=requests))
    free_ns = [0] * servers
    now_ns = 0
    events: list[tuple[int, int, bool, int]] = []
    answers: list[tuple[Permit, int, list[int]]] = []
    for number in range(requests):
        now_ns += int(rng.expovariate(rate_per_s) * NS)
        events.append((now_ns, 0, True, number))
    heapq.heapify(events)
    while events:
        now_ns, _, is_arrival, number = heapq.heappop(events)
        if not is_arrival:
            stage.end(*answers[number])
            continue
        permit = stage.start(now_ns, measured=True, intended_ns=now_ns, last=number == requests - 1)
        begin_ns = max(now_ns, heapq.heappop(free_ns))
        stamps_ns = draw().stamps_ns(begin_ns)
        heapq.heappush(free_ns, stamps_ns[-1])
        answers.append((permit, now_ns, stamps_ns))
        heapq.heappush(events, (stamps_ns[-1], 1, False, number))
    return stage.finish()
