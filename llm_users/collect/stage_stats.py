"""Calculates the row of a stage from request rows and workers' totals, in the process that writes the rows."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from llm_users.collect.client_health import fill_client, verdict
from llm_users.load.protocol.stage import StagePlan, StageTotals
from llm_users.number_words import counted, lasting
from llm_users.outcome import CLIENT_LIMIT, Outcome
from llm_users.quantile import DurationHistogram
from llm_users.record import HELD_BACK_FROM, RAMPED, UNSTEADY, RequestRecord, StageLoad, StageRecord

_MOST_MODELS = 32
"""Maximum number of models counted separately; all others count as one. A locustfile can name one per request."""

_HELD_BACK_NOTED_FROM = 0.2
"""Minimum share of a model's answers that were held back for a note about a gateway. A gateway holds back all answers
that are long enough; with a tenth of them, the cause may be a server that stalled."""

MOST_TIMES = 50_000
"""Maximum number of requests kept per stage (0.9 MB); above it, every second, fourth, ... request in arrival order."""

Judge = Callable[["array[float]", "array[float]", "array[int]", bool], str]
"""Maps starts, ends, the measured flags and whether the loop is open to the value of the column ``steadiness``."""


class RequestTimes:
    """The request times of one stage, in seconds of the wall clock. An open loop counts from the intended start."""

    def __init__(self) -> None:
        self.starts = array("d")
        self.ends = array("d")
        self.measured = array("b")
        self.turns = False
        """Whether there are conversations, whose later turns take longer at any load."""
        self._every = 1
        self._seen = 0

    def add(self, record: RequestRecord) -> None:
        """Add one row, measured or not."""
        if record.started_at is None:
            return
        self._seen += 1
        if self._seen % self._every:
            return
        duration_s = record.end_to_end_latency_s
        if duration_s is None:
            duration_s = math.inf if record.outcome is Outcome.ABORTED else record.connect_s or 0.0
        is_open = (record.rate_per_s or 0.0) > 0
        self.starts.append(record.started_at - ((record.queue_s or 0.0) if is_open else 0.0))
        self.ends.append(record.started_at + duration_s)
        # A closed loop is judged by its latencies, which only successful requests have.
        self.measured.append(int(bool(record.measured) and (is_open or record.ok)))
        self.turns = self.turns or (record.turn or 1) > 1
        if len(self.starts) > MOST_TIMES:
            self._every *= 2
            self.starts, self.ends, self.measured = self.starts[1::2], self.ends[1::2], self.measured[1::2]


@dataclass
class _WorkerLoad:
    """The load of one worker according to its measured rows, in case it never reports its totals."""

    sent: int = 0  # as in its totals
    in_flight_s: float = 0.0

    def add(self, record: RequestRecord) -> None:
        if record.end_to_end_latency_s is not None:
            self.sent += record.turn in (None, 1)  # only the first turn of a conversation is an arrival
            self.in_flight_s += record.end_to_end_latency_s


@dataclass
class _Bursts:
    """Counts of the answers of one model that arrived in large bursts."""

    answers: int = 0  # answers that are long enough to detect bursts
    held_back: int = 0
    gaps: int = 0  # of the answers that were held back, as the following fields
    zero_gaps: int = 0
    burst_chunks: int = 0  # the sum over the answers

    def add(self, record: RequestRecord) -> None:
        self.answers += 1
        if record.burst_chunks:
            self.held_back += 1
            self.gaps += record.chunks - 1  # with several choices, there is one gap less per choice
            self.zero_gaps += record.coalesced
            self.burst_chunks += record.burst_chunks


@dataclass
class _Tally:
    """The sums of the rows of a stage."""

    started: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)  # of the measured rows
    window_requests: float = 0.0  # sum of the window_share of successful requests, whatever their phase
    window_tokens: float = 0.0
    failed_window_tokens: float = 0.0
    tokens: int = 0
    chunks: int = 0
    token_chunks: int = 0  # chunks of the rows with a known number of tokens
    coalesced: int = 0
    begun: int = 0
    first_coalesced: int = 0
    sources: set[str] = field(default_factory=set)
    held: int = 0
    resent: int = 0
    client_limited: int = 0
    queue: DurationHistogram = field(default_factory=DurationHistogram)
    times: RequestTimes = field(default_factory=RequestTimes)
    workers: defaultdict[int, _WorkerLoad] = field(default_factory=lambda: defaultdict(_WorkerLoad))
    bursts: defaultdict[str, _Bursts] = field(default_factory=lambda: defaultdict(_Bursts))  # by model

    @property
    def measured(self) -> int:
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome.is_failure)


class StageBook:
    """Adds up rows by stage as they arrive, in memory that does not grow with the number of rows.

    ``judge`` determines the steadiness of a stage from its request times; without it, the steadiness is unknown.
    """

    def __init__(self, judge: Judge | None = None) -> None:
        self._tallies: dict[int, _Tally] = {}
        self._nothing = _Tally()  # of a stage without rows
        self._judge = judge

    def add(self, record: RequestRecord) -> None:
        """Add one row, measured or not."""
        tally = self._tallies.get(record.stage)
        if tally is None:
            tally = self._tallies[record.stage] = _Tally()
        tally.started += 1
        tally.times.add(record)
        outcome = record.outcome
        if outcome is Outcome.OK:
            tally.window_requests += record.window_share or 0.0
            tally.window_tokens += record.window_tokens or 0.0
        else:
            tally.failed_window_tokens += record.window_tokens or 0.0
        if not record.measured:
            return
        tally.outcomes[outcome] += 1
        tally.workers[record.worker].add(record)
        tally.client_limited += record.error_code == CLIENT_LIMIT
        tally.held += bool(record.held_s)
        tally.resent += record.reconnects > 0
        late_s = client_wait_s(record)
        if late_s is not None:
            tally.queue.add(late_s)
        if outcome is Outcome.OK and not record.buffered and record.chunks >= HELD_BACK_FROM:
            is_counted_alone = record.model in tally.bursts or len(tally.bursts) < _MOST_MODELS
            tally.bursts[record.model if is_counted_alone else ""].add(record)
        # A proxy, not a late client, coalesced the chunks of these answers.
        if not record.buffered and not record.burst_chunks:
            tally.chunks += record.chunks
            tally.coalesced += record.coalesced
            tally.begun += record.chunks > 0
            tally.first_coalesced += record.first_coalesced > 0
        if record.output_tokens is not None and record.chunks:
            tally.tokens += record.output_tokens
            tally.token_chunks += record.chunks
        if record.stamp_source:
            tally.sources.add(record.stamp_source)

    def _tally_of(self, stage: int) -> _Tally:
        return self._tallies.get(stage, self._nothing)

    def counts(self, stage: int) -> tuple[int, int, int]:
        """Return the numbers of (measured, failed, aborted) rows of a stage so far."""
        tally = self._tally_of(stage)
        return tally.measured, tally.failed, tally.outcomes[Outcome.ABORTED]

    def rows(self, stage: int) -> int:
        """Return the number of all rows of a stage so far."""
        return self._tally_of(stage).started

    def holding(self, stage: int) -> list[str]:
        """Return one note for every model of a stage whose answers a gateway held back."""
        bursts = self._tally_of(stage).bursts
        return [
            f"stage {stage}: a gateway holds the stream back: {part.held_back} of {part.answers} answers of "
            f"{model or 'the model'} arrived in bursts of about {part.burst_chunks / part.held_back:.0f} chunks, and "
            f"{part.zero_gaps / part.gaps:.0%} of their chunk gaps are zero. Their TTFT includes the wait in a buffer, "
            "their TPOT and chunk gaps are not the server's; turn off buffering in every proxy, or measure behind them"
            for model, part in bursts.items()
            if part.held_back and part.held_back >= _HELD_BACK_NOTED_FROM * part.answers
        ]

    @property
    def measured(self) -> int:
        """Number of measured rows of the run so far, without aborted ones."""
        return sum(tally.measured - tally.outcomes[Outcome.ABORTED] for tally in self._tallies.values())

    @property
    def started(self) -> int:
        """Number of rows of the run so far."""
        return sum(tally.started for tally in self._tallies.values())

    def record(
        self, stage: int, load: StageLoad, totals: Sequence[StageTotals], *, asked: int | None = None
    ) -> StageRecord:
        """Return the row of the stage. ``asked``: the requested number of users of a closed loop; None: unknown.

        A rate is the sum of the amounts in the workers' own windows divided by the length of the union of these
        windows, so a worker that joined or left counts for the time of its participation. A killed worker has not
        reported its totals: its rows determine the load that it sent.
        """
        tally = self._tally_of(stage)
        reported = {part.worker for part in totals}
        unreported = [worker_load for worker, worker_load in tally.workers.items() if worker not in reported]
        bursts = list(tally.bursts.values())
        long_answers, held_back = sum(part.answers for part in bursts), sum(part.held_back for part in bursts)
        gaps = sum(part.gaps for part in bursts)
        active = [part for part in totals if part.window_s > 0]
        measure_s = union_s([span for part in active for span in _spans(part)]) if active else None
        starts = sum(part.starts for part in totals)
        result = StageRecord(
            stage=stage,
            concurrency=load.concurrency,
            rate_per_s=load.rate_per_s,
            rate_start_per_s=load.ramp.start_per_s if load.ramp is not None else None,
            rate_end_per_s=load.ramp.end_per_s if load.ramp is not None else None,
            stage_input_tokens=load.lengths.input_tokens if load.lengths is not None else None,
            stage_output_tokens=load.lengths.output_tokens if load.lengths is not None else None,
            concurrency_asked=None if load.is_open else asked,
            requests_held=tally.held,
            requests_dropped=tally.outcomes[Outcome.DROPPED],
            measure_started_at=min((_started_at(part) for part in totals if part.measure_started_at), default=None),
            measure_s=measure_s,
            requests_started=tally.started,
            requests_measured=tally.measured,
            requests_ok=tally.outcomes[Outcome.OK],
            requests_failed=tally.failed,
            requests_throttled=tally.outcomes[Outcome.THROTTLED],
            requests_aborted=tally.outcomes[Outcome.ABORTED],
            requests_cancelled=tally.outcomes[Outcome.CANCELLED],
            requests_resent=tally.resent,
            requests_client_limited=tally.client_limited,
            window_tokens=tally.window_tokens,
            failed_window_tokens=tally.failed_window_tokens,
            window_widened=int(any(part.widened for part in totals)),
            queue_p99_s=tally.queue.quantile(0.99) if tally.queue.total else None,
            forced_start_share=sum(part.forced for part in totals) / starts if starts else None,
            coalesced_share=tally.coalesced / tally.chunks if tally.chunks else None,
            first_coalesced_share=tally.first_coalesced / tally.begun if tally.begun else None,
            tokens_per_chunk=tally.tokens / tally.token_chunks if tally.token_chunks else None,
            stamp_source="mixed" if len(tally.sources) > 1 else next(iter(tally.sources), None),
            held_back_share=held_back / long_answers if long_answers else None,
            zero_gap_share=sum(part.zero_gaps for part in bursts) / gaps if gaps else None,
        )
        if measure_s:
            result.output_throughput_token_per_s = tally.window_tokens / measure_s
            result.request_throughput_per_s = tally.window_requests / measure_s
            unreported_users = sum(worker_load.in_flight_s for worker_load in unreported) / measure_s
            result.concurrency_actual = sum(part.in_flight_s for part in totals) / measure_s + unreported_users
            if not load.is_open:
                result.load_actual = sum(part.load_s for part in totals) / measure_s + unreported_users
                lost = load.concurrency - sum(part.users for part in totals)
                result.users_ended = sum(part.users_ended for part in totals) + max(0, lost)
                # A worker that has started its share ends its window; a worker that leaves no longer has a share.
                result.users_actual = unreported_users + sum(
                    part.present_s / (measure_s if part.quota is None else part.window_s) for part in active
                )
        if load.is_open:
            unreported_sent = sum(worker_load.sent for worker_load in unreported)
            if load.ramp is None:
                result.started_rate_per_s = started_rate_per_s(totals, unreported_sent)
            elif measure_s:  # the first and the last interval differ from the mean
                result.started_rate_per_s = (sum(part.sent for part in totals) + unreported_sent) / measure_s
        fill_client(result, totals)
        result.health = verdict(result)
        times = tally.times
        if load.ramp is not None:
            result.steadiness = RAMPED
        elif self._judge is not None and (load.is_open or not times.turns):
            result.steadiness = self._judge(times.starts, times.ends, times.measured, load.is_open) or None
        return result


def client_wait_s(record: RequestRecord) -> float | None:
    """Return how late the client itself was with a request: ``queue_s`` without the time that the endpoint took.

    The unit is seconds. None when it is unknown: the request was never sent, or a previous attempt on a dead connection
    took a part of the time.
    """
    if record.queue_s is None or record.reconnects:
        return None
    sent = record.end_to_end_latency_s is not None  # otherwise, ``queue_s`` ends at the start of connecting
    return max(0.0, record.queue_s - (record.held_s or 0.0) - ((record.connect_s or 0.0) if sent else 0.0))


def union_s(spans: Iterable[Sequence[float]]) -> float:
    """Return the length of the union of spans in seconds; a span is a start and a length."""
    total_s, until_s = 0.0, -math.inf
    for start_s, length_s in sorted(map(tuple, spans)):
        end_s = start_s + length_s
        total_s += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    return total_s


def _spans(part: StageTotals) -> list[Sequence[float]]:
    """Return the windows of a worker as (start, length), in seconds of the coordinator's clock.

    The worker counts from the arrival of the message that begins the stage; the coordinator adds its send time. The
    result includes the transit time of this message, but not the difference between the clocks of two machines.
    """
    return [(part.told_at + start_s, length_s) for start_s, length_s in part.windows or [(0.0, part.window_s)]]


def _started_at(part: StageTotals) -> float:
    """Return when a worker's window opened, in Unix seconds, by the coordinator's clock if that is known."""
    return _spans(part)[0][0] if part.told_at and part.windows else part.measure_started_at or 0.0


def started_rate_per_s(totals: Sequence[StageTotals], untold: int = 0) -> float | None:
    """Return the actual send rate of an open loop: all requests but the first, per second from the first to the last.

    ``untold``: number of further requests of workers that did not report their send times. None when the rate is
    unknown.
    """
    sent = [part for part in totals if part.first_sent_s is not None and part.last_sent_s is not None]
    first_s = min((part.told_at + (part.first_sent_s or 0.0) for part in sent), default=0.0)
    last_s = max((part.told_at + (part.last_sent_s or 0.0) for part in sent), default=0.0)
    return (sum(part.sent for part in sent) + untold - 1) / (last_s - first_s) if last_s > first_s else None


def describe(stage: StageRecord) -> str:
    """Return one line about a finished stage."""
    rate = stage.output_throughput_token_per_s
    parts = [
        f"stage {stage.stage} done: {stage.load.text}",
        f"{stage.requests_ok} of {counted(stage.requests_measured, 'request')} ok"
        + (f", {stage.requests_cancelled} cancelled" if stage.requests_cancelled else ""),
        f"{rate:.0f} tokens/s" if rate is not None else "no throughput (window too short)",
    ]
    if stage.steadiness == UNSTEADY:
        parts.append(
            "unsteady: its queue grew through the window, so its figures depend on the length of the measurement"
        )
    return ", ".join(parts)


def widening(stage: StageRecord) -> str:
    """Return the note about a stage whose window was too short."""
    return (
        f"stage {stage.stage}: the window was widened to the end of its last measured request, because its "
        "requests started within less than half a mean latency. Its rates include the time in which the number of "
        "requests in flight decreased; measure more requests per stage for the rates of a steady load"
    )


def resending(stage: StageRecord) -> str:
    """Return the note about a stage in which requests were sent twice."""
    return (
        f"stage {stage.stage}: {stage.requests_resent} of {stage.requests_measured} requests were sent again on a new "
        "connection, because a kept-alive connection died before an answer arrived. The server may have counted them "
        "twice, and their times begin with the second attempt; --llm-new-connections avoids this"
    )


def progress(
    plan: StagePlan,
    stages: int,
    counts: tuple[int, int, int],
    *,
    total: str = "",
    stage_left_s: float | None = None,
    run_left_s: float | None = None,
) -> str:
    """Return one line about a running stage; ``counts`` are its measured, failed and aborted rows.

    ``total`` is the number of stages as text, if it is not exactly ``stages``. The remaining times are None if they are
    unknown.
    """
    measured, failed, _aborted = counts
    requests = counted(measured if plan.requests is None else plan.requests, "request")
    done = requests if plan.requests is None else f"{measured} of {requests}"
    text = f"stage {plan.stage} of {total or stages}: {plan.load.text}, {done} done, {failed} failed"
    left = [] if stage_left_s is None else [f"about {lasting(stage_left_s)} left"]
    if run_left_s is not None and (plan.stage < stages or not left):
        left.append(f"about {lasting(run_left_s)} for the run")
    return ", ".join([text, *left])
