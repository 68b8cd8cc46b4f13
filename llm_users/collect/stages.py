"""From rows and workers' totals to the row of a stage. Runs where the rows are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_users.collect.health import verdict
from llm_users.plan import StagePlan, StageTotals
from llm_users.quantile import DurationHistogram
from llm_users.record import ABORTED, CANCELLED, THROTTLED, RequestRecord, StageRecord


@dataclass
class _Tally:
    """What a stage's rows add up to."""

    started: int = 0
    measured: int = 0
    ok: int = 0
    failed: int = 0
    throttled: int = 0
    aborted: int = 0
    cancelled: int = 0
    window_tokens: float = 0.0
    tokens: int = 0
    chunks: int = 0
    token_chunks: int = 0  # chunks of the rows whose tokens are known
    coalesced: int = 0
    begun: int = 0
    first_coalesced: int = 0
    sources: set[str] = field(default_factory=set)
    held: int = 0
    dropped: int = 0
    queue: DurationHistogram = field(default_factory=DurationHistogram)


@dataclass(frozen=True, slots=True)
class StageLoad:
    """Which stage, and the load that it was asked for: users, or requests per second."""

    stage: int
    concurrency: int
    rate_per_s: float | None = None

    @property
    def text(self) -> str:
        return f"{self.concurrency} users" if self.rate_per_s is None else f"{self.rate_per_s:g} requests/s"


def load_of(plan: StagePlan) -> StageLoad:
    """The load of a stage as its row says it: the dispatchers of an open loop are no users."""
    return StageLoad(plan.stage, plan.concurrency if plan.rate_per_s is None else 0, plan.rate_per_s)


class StageBook:
    """Adds up rows by stage as they come; memory does not depend on their number."""

    def __init__(self) -> None:
        self._tallies: dict[int, _Tally] = {}

    def add(self, record: RequestRecord) -> None:
        """One row, measured or not."""
        tally = self._tallies.setdefault(record.stage, _Tally())
        tally.started += 1
        tally.window_tokens += record.window_tokens or 0.0
        if not record.measured:
            return
        tally.measured += 1
        if record.ok:
            tally.ok += 1
        elif record.error_code == ABORTED:
            tally.aborted += 1
        elif record.error_code == CANCELLED:
            tally.cancelled += 1
        else:
            tally.failed += 1
            tally.throttled += (record.error_code or "").lower() in THROTTLED or record.http_status == 429
            tally.dropped += record.error_code == "overflow"
        tally.held += bool(record.held_s)
        if record.queue_s is not None:
            tally.queue.add(max(0.0, record.queue_s - (record.held_s or 0.0)))
        if record.error_code != "buffered":  # a proxy put those chunks together, not a late client
            tally.chunks += record.chunks
            tally.coalesced += record.coalesced
            tally.begun += record.chunks > 0
            tally.first_coalesced += record.first_coalesced > 0
        if record.output_tokens is not None and record.chunks:
            tally.tokens += record.output_tokens
            tally.token_chunks += record.chunks
        if record.stamp_source:
            tally.sources.add(record.stamp_source)

    def counts(self, stage: int) -> tuple[int, int, int]:
        """(measured, failed, aborted) rows of a stage so far."""
        tally = self._tallies.get(stage, _Tally())
        return tally.measured, tally.failed, tally.aborted

    def rows(self, stage: int) -> int:
        """All rows of a stage so far."""
        return self._tallies.get(stage, _Tally()).started

    @property
    def started(self) -> int:
        """Rows of the run so far."""
        return sum(tally.started for tally in self._tallies.values())

    def record(self, load: StageLoad, totals: Sequence[StageTotals]) -> StageRecord:
        """The stage's row. Windows are each worker's own; their user-weighted mean stands for the stage."""
        tally = self._tallies.get(load.stage, _Tally())
        active = [part for part in totals if part.window_s > 0]
        users = sum(part.users for part in active) or len(active)
        measure_s = sum(part.window_s * (part.users or 1) for part in active) / users if active else None
        lag = DurationHistogram()
        for part in totals:
            lag.merge(part.lag_counts)
        lags = [DurationHistogram(part.lag_counts).quantile(0.99) for part in totals if part.lag_counts]
        starts = sum(part.starts for part in totals)
        result = StageRecord(
            stage=load.stage,
            concurrency=load.concurrency,
            rate_per_s=load.rate_per_s,
            requests_held=tally.held,
            requests_dropped=tally.dropped,
            measure_started_at=min((p.measure_started_at for p in totals if p.measure_started_at), default=None),
            measure_s=measure_s,
            requests_started=tally.started,
            requests_measured=tally.measured,
            requests_ok=tally.ok,
            requests_failed=tally.failed,
            requests_throttled=tally.throttled,
            requests_aborted=tally.aborted,
            requests_cancelled=tally.cancelled,
            window_tokens=tally.window_tokens,
            client_cpu_s=sum(part.cpu_s for part in totals),
            client_cpu_share_max=max((part.cpu_s / part.window_s for part in active), default=None),
            lag_p99_s=max(lags, default=None),
            queue_p99_s=tally.queue.quantile(0.99) if tally.queue.total else None,
            forced_start_share=sum(part.forced for part in totals) / starts if starts else None,
            coalesced_share=tally.coalesced / tally.chunks if tally.chunks else None,
            first_coalesced_share=tally.first_coalesced / tally.begun if tally.begun else None,
            tokens_per_chunk=tally.tokens / tally.token_chunks if tally.token_chunks else None,
            stamp_source=_one_of(tally.sources),
        )
        if measure_s:
            result.output_throughput_token_per_s = tally.window_tokens / measure_s
            result.request_throughput_per_s = _starts_per_s(load, totals, measure_s)
            result.concurrency_actual = sum(part.in_flight_s for part in totals) / measure_s
        result.health = verdict(result)
        return result


def _starts_per_s(load: StageLoad, totals: Sequence[StageTotals], measure_s: float) -> float:
    """Of an open loop's counted stage, whose window goes from the first start to the last: the gaps between them."""
    if load.rate_per_s is None or any(part.quota is None for part in totals):
        return sum(part.measured for part in totals) / measure_s
    return sum((part.measured - 1) / part.window_s for part in totals if part.window_s > 0)


def _one_of(sources: set[str]) -> str | None:
    if not sources:
        return None
    return sources.pop() if len(sources) == 1 else "mixed"


def gap_counts(totals: Sequence[StageTotals]) -> dict[int, int]:
    """The workers' gap histograms as one."""
    merged = DurationHistogram()
    for part in totals:
        merged.merge(part.gap_counts)
    return dict(merged.counts)


def totals_from(data: dict[str, Any]) -> StageTotals:
    """Totals as they arrive from a worker (msgpack leaves histogram keys as integers)."""
    known = {name: data[name] for name in StageTotals.__slots__ if name in data}
    return StageTotals(**known)


def describe(stage: StageRecord) -> str:
    """One line about a finished stage."""
    rate = stage.output_throughput_token_per_s
    parts = [
        f"stage {stage.stage} done: {StageLoad(stage.stage, stage.concurrency, stage.rate_per_s).text}",
        f"{stage.requests_ok} of {stage.requests_measured} requests ok"
        + (f", {stage.requests_cancelled} cancelled" if stage.requests_cancelled else ""),
        f"{rate:.0f} tokens/s" if rate is not None else "no throughput (window too short)",
    ]
    return ", ".join(parts)


def progress(plan: StagePlan, stages: int, counts: tuple[int, int, int]) -> str:
    """One line about a stage that is measured: ``counts`` are its measured, failed and aborted rows."""
    measured, failed, _aborted = counts
    of = f" of {plan.requests}" if plan.requests is not None else ""
    load = load_of(plan).text
    return f"stage {plan.stage} of {stages}: {load}, {measured}{of} requests done, {failed} failed"
