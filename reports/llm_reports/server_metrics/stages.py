"""The metrics of the servers themselves by stage, and the times of both sides compared for the same requests.

The difference between the mean that the client measured and the mean that the server measured is the time before the
server's clock starts: network and queueing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from llm_reports.metrics.groups import Floats, Group
from llm_reports.metrics.outcomes import buffered, dropped, succeeded
from llm_reports.run import Run
from llm_users.outcome import CLIENT_LIMIT, NOT_CONNECTED
from llm_users.record import COL, ServerMetricRecord, StageLoad
from llm_users.server_metric import E2E, HISTOGRAM, ITL, TPOT, TTFT

if TYPE_CHECKING:  # this module does not load pandas
    from pandas import DataFrame

COMPARED = (TTFT, TPOT, ITL, E2E)
"""The times that both sides measure, in the order of the tables."""
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
ALIKE = 0.01
"""Counts within this share count as equal: the sides may disagree on requests that were cut off at their last token."""
_ROUNDING_S = 1e-6
"""Files have a resolution of a microsecond or finer."""
_COLUMNS = [
    COL.stage, COL.error_code, COL.retries, COL.reconnects, COL.ttft_s, COL.end_to_end_latency_s, COL.last_token_s,
    COL.tpot_s, COL.phase, COL.output_tokens, COL.requested_output_tokens, COL.input_tokens,
]  # fmt: skip
_PER_REQUEST = (TTFT, TPOT, E2E, "requests_finished")


@dataclass(frozen=True)
class Bounds:
    """The bounds of the bucket with a quantile. ``high`` is infinite in the last bucket."""

    low: float
    high: float

    def excess(self, value: float) -> float:
        """Return by how much a value is outside of the bounds; 0 inside."""
        return max(0.0, self.low - value, value - self.high)


@dataclass(frozen=True)
class ServerTimes:
    """A time as the server measured it: the number of observations, their mean (s), and the bounds of quantiles (s).

    The bounds of several servers contain the quantile of all their observations.
    """

    n: float
    mean: float
    bounds: Mapping[str, Bounds]

    @classmethod
    def of(cls, records: Iterable[ServerMetricRecord]) -> ServerTimes | None:
        """Return the observations of the histograms of one or several servers; ``None`` if there are none."""
        known = [(record, record.increase, record.mean) for record in records if record.kind == HISTOGRAM]
        filled = [(record, n, mean) for record, n, mean in known if n and mean is not None]
        if not filled:
            return None
        total = math.fsum(n for _, n, _ in filled)
        bounds = {}
        for name in QUANTILES:
            lows = [getattr(record, f"{name}_low") for record, _, _ in filled]
            highs = [getattr(record, f"{name}_high") for record, _, _ in filled]
            if None not in lows:
                bounds[name] = Bounds(min(lows), max(math.inf if high is None else high for high in highs))
        return cls(total, math.fsum(n * mean for _, n, mean in filled) / total, bounds)


@dataclass(frozen=True)
class ClientTimes:
    """A time as the client measured it: the number of observations, their mean (s), and quantiles (s).

    A quantile is the smallest value that at least this share of the values does not exceed, as a server's buckets
    count. The pooled gaps between tokens have no quantiles here.
    """

    n: float
    mean: float
    quantiles: Mapping[str, float]

    @classmethod
    def of(cls, values: Floats) -> ClientTimes:
        """Return the figures of one value per request; missing values are omitted."""
        ordered = np.sort(values[np.isfinite(values)])
        count = len(ordered)
        if not count:
            return cls(0, math.nan, {})
        quantiles = {name: float(ordered[math.ceil(share * count) - 1]) for name, share in QUANTILES.items()}
        return cls(count, math.fsum(ordered) / count, quantiles)


@dataclass(frozen=True)
class TimeComparison:
    """One time of one stage, as the client and as the server measured it."""

    metric: str
    client: ClientTimes
    server: ServerTimes
    others: bool
    """Whether the server's figures include requests of other clients or of another stage."""

    @property
    def same_requests(self) -> bool:
        """Whether both sides counted the same observations, up to ``ALIKE``."""
        return not self.others and abs(self.server.n - self.client.n) <= ALIKE * self.client.n

    @property
    def difference_s(self) -> float:
        """The client's mean - the server's mean; NaN if the sides did not count the same observations."""
        return self.client.mean - self.server.mean if self.same_requests else math.nan

    @property
    def outside(self) -> list[str]:
        """The quantiles of the client that are outside of the server's bounds by more than the difference."""
        if not self.same_requests:
            return []
        most = abs(self.difference_s)
        return [
            name
            for name, bounds in self.server.bounds.items()
            if name in self.client.quantiles and bounds.excess(self.client.quantiles[name]) > most + 1e-6
        ]


@dataclass(frozen=True)
class TokenCounts:
    """The tokens of a stage by both sides.

    ``low`` counts the successful requests. ``high`` also counts the others, of which the server may have processed any
    part; it is infinite if their tokens are unknown.
    """

    kind: str
    low: float
    high: float
    server: float

    @property
    def differ(self) -> bool:
        """Whether the sides disagree by more than ``ALIKE``."""
        return not self.low * (1 - ALIKE) <= self.server <= self.high * (1 + ALIKE)


@dataclass(frozen=True, eq=False)
class ServerStage:
    """The metrics of the servers in one stage of one run; ``by_server`` has them by the server's URL and by name."""

    run: Run
    stage: int
    load: StageLoad
    by_server: Mapping[str, Mapping[str, ServerMetricRecord]]

    def records(self, metric: str) -> list[ServerMetricRecord]:
        """Return the records of a metric, one per server that has it."""
        return [metrics[metric] for metrics in self.by_server.values() if metric in metrics]

    @cached_property
    def sent(self) -> int:
        """The requests that the client sent in the stage, with those that it sent again."""
        rows = self._rows
        sent = ~(dropped(rows[COL.error_code]) | rows[COL.error_code].isin([NOT_CONNECTED, CLIENT_LIMIT]))
        again = sum(float(rows[name].astype("float64").fillna(0.0).sum()) for name in (COL.retries, COL.reconnects))
        return int(sent.sum()) + int(again)

    @cached_property
    def seen(self) -> int:
        """The most requests that a metric of the servers counts."""
        return max((int(_increase(self.records(metric))) for metric in _PER_REQUEST), default=0)

    @cached_property
    def overlaps(self) -> bool:
        """Whether requests of another stage were in flight when the stage began or ended.

        This is the case if the number of users changed in a run without a sweep: the first requests with the new number
        have the phase "ramp".
        """
        rows = self.run.requests[[COL.stage, COL.phase]]
        stages = rows[COL.stage][(rows[COL.phase] == "ramp").fillna(value=False).to_numpy(bool)]
        return bool((self.stage > 1 and (stages == self.stage).any()) or (stages == self.stage + 1).any())

    @property
    def used_by_others(self) -> bool:
        """Whether the servers counted more requests than the client sent."""
        return not self.overlaps and self.seen > self.sent

    @cached_property
    def comparisons(self) -> list[TimeComparison]:
        """The times that both sides measured."""
        found = []
        for metric in COMPARED:
            server = ServerTimes.of(self.records(metric))
            if server is None:
                continue
            # Engines differ in the answers that they count. The count shows which answers these are.
            choices = self._client_times(metric)
            client = min(choices, key=lambda times: abs(times.n - server.n))
            if client.n:
                found.append(TimeComparison(metric, client, server, self.used_by_others or self.overlaps))
        return found

    @cached_property
    def token_counts(self) -> list[TokenCounts]:
        """The tokens of the prompts and of the answers by both sides, where both are known."""
        ok, others = self._ok, self._others
        kinds = (("prompt", COL.input_tokens, "prompt_tokens"), ("output", COL.output_tokens, "generation_tokens"))
        counts = []
        for kind, column, metric in kinds:
            records = [record for record in self.records(metric) if record.increase is not None]
            tokens = _values(ok, column)
            if not records or not len(tokens) or np.isnan(tokens).any():
                continue
            more = _values(others, column)
            if kind == "output":
                more = np.fmax(more, _values(others, COL.requested_output_tokens))
            again = (ok[[COL.retries, COL.reconnects]].astype("float64").fillna(0.0) > 0).to_numpy().any()
            low = math.fsum(tokens)
            high = math.inf if again or np.isnan(more).any() else low + math.fsum(more)
            counts.append(TokenCounts(kind, low, high, _increase(records)))
        return counts

    @cached_property
    def _rows(self) -> DataFrame:
        rows = self.run.requests[_COLUMNS]  # a copy of all columns of a million rows takes half a gigabyte
        return rows[(rows[COL.stage] == self.stage).fillna(value=False).to_numpy(bool)]

    @cached_property
    def _ok(self) -> DataFrame:
        return self._rows[succeeded(self._rows[COL.error_code]).to_numpy(bool)]

    @cached_property
    def _others(self) -> DataFrame:
        """The requests without success that may have reached the server."""
        rows = self._rows[~succeeded(self._rows[COL.error_code]).to_numpy(bool)]
        sent = ~(dropped(rows[COL.error_code]) | rows[COL.error_code].isin([NOT_CONNECTED, CLIENT_LIMIT]))
        return rows[sent.to_numpy(bool)]

    def _client_times(self, metric: str) -> list[ClientTimes]:
        """Return the client's figures for each set of answers that an engine may count, the most usual set first."""
        ok, others = self._ok, self._others
        if metric == E2E:
            return [ClientTimes.of(_values(ok, COL.end_to_end_latency_s))]
        if metric == TPOT:
            values = _values(ok, COL.tpot_s)
            values[buffered(ok[COL.error_code]).to_numpy(bool)] = math.nan
            # vLLM counts an answer of one token with a TPOT of 0.
            single = int((_values(ok, COL.output_tokens) == 1).sum())
            return [ClientTimes.of(values), ClientTimes.of(np.concatenate([values, np.zeros(single)]))]
        times = _gap_times if metric == ITL else _ttfts
        return [times([ok, others]), times([ok])]


def server_stages(groups: Sequence[Group]) -> list[ServerStage]:
    """Return the stages with metrics of a server, in the order of their groups."""
    stages: dict[tuple[int, int], ServerStage] = {}
    for group in groups:
        if group.stage is None or (id(group.run), group.stage) in stages:
            continue
        by_server: dict[str, dict[str, ServerMetricRecord]] = {}
        for record in group.run.server_metrics:
            if record.stage == group.stage:
                by_server.setdefault(record.server, {})[record.metric] = record
        if by_server:
            stages[id(group.run), group.stage] = ServerStage(group.run, group.stage, group.load, by_server)
    return list(stages.values())


def share_of(metrics: Mapping[str, ServerMetricRecord], name: str) -> float:
    """Return a share of a stage; NaN if unknown."""
    return _known(metrics[name].mean) if name in metrics else math.nan


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _increase(records: Iterable[ServerMetricRecord]) -> float:
    return math.fsum(record.increase or 0.0 for record in records)


def _values(rows: DataFrame, column: str) -> Floats:
    return rows[column].to_numpy(np.float64, na_value=math.nan, copy=True)


def _ttfts(parts: Sequence[DataFrame]) -> ClientTimes:
    values = []
    for rows in parts:
        of_rows = _values(rows, COL.ttft_s)
        of_rows[buffered(rows[COL.error_code]).to_numpy(bool)] = math.nan
        values.append(of_rows)
    return ClientTimes.of(np.concatenate(values))


def _gap_times(parts: Sequence[DataFrame]) -> ClientTimes:
    """Return the mean time per token after the first of all answers together."""
    seconds = tokens = 0.0
    for rows in parts:
        times_s = _values(rows, COL.last_token_s) - _values(rows, COL.ttft_s)
        counts = _values(rows, COL.output_tokens) - 1
        known = np.isfinite(times_s) & (counts > 0) & ~buffered(rows[COL.error_code]).to_numpy(bool)
        seconds += math.fsum(times_s[known])
        tokens += math.fsum(counts[known])
    return ClientTimes(tokens, seconds / tokens if tokens else math.nan, {})
