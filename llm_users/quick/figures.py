"""The figures of the stages of a sweep, from the files that the run writes. The files can still be growing."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llm_users.outcome import BUFFERED, Outcome, outcome_of
from llm_users.quantile import quantile
from llm_users.record import COL, unguarded
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class StageFigures:
    """One stage. Times and rates per user are medians over its successful requests; NaN if they are unknown."""

    users: int
    requests: int
    failed: int
    ttft_s: float
    tpot_s: float
    tokens_per_s_each: float
    """Output tokens of an answer, divided by its end-to-end latency."""
    latency_s: float
    tokens_per_s: float
    """Output tokens of all users together, per second of the MEASURE window."""
    health: str

    @property
    def succeeded(self) -> int:
        """Return the number of successful requests."""
        return self.requests - self.failed


def read_figures(prefix: Path, *, complete_only: bool = False) -> list[StageFigures]:
    """Return the stages that have ended. ``complete_only`` omits a stage whose rows are not all in the file yet."""
    requests = _rows(path_of(prefix, REQUESTS_CSV))
    figures = []
    for stage in _rows(path_of(prefix, STAGES_CSV)):
        rows = [row for row in requests if row[COL.stage] == stage[COL.stage] and row[COL.measured] == "1"]
        if complete_only and len(rows) < int(stage[COL.requests_measured]):
            break
        figures.append(_figures(stage, rows))
    return figures


@dataclass(frozen=True, slots=True)
class Usage:
    """What all requests of one model used, warm-ups included. A missing count of tokens adds nothing."""

    model: str
    requests: int
    input_tokens: float
    output_tokens: float
    cached_tokens: float
    cache_write_tokens: float


def usage_of(prefix: Path) -> list[Usage]:
    """Return the usage of each model, without requests that failed before any output, which cost nothing."""
    rows = [
        row
        for row in _rows(path_of(prefix, REQUESTS_CSV))
        if _outcome(row) is Outcome.OK or _sum([row], COL.output_tokens)
    ]
    columns = (COL.input_tokens, COL.output_tokens, COL.cached_tokens, COL.cache_write_tokens)
    usages = []
    for model in sorted({row[COL.model] for row in rows}):
        own = [row for row in rows if row[COL.model] == model]
        usages.append(Usage(unguarded(model), len(own), *(_sum(own, column) for column in columns)))
    return usages


def _sum(rows: Iterable[Row], column: str) -> float:
    return math.fsum(float(row[column]) for row in rows if row[column])


def first_failure(prefix: Path) -> str:
    """Return the code and message of the first failed request, or "" if no request failed."""
    for row in _rows(path_of(prefix, REQUESTS_CSV)):
        if _outcome(row).is_failure:
            return f"{row[COL.error_code]}: {row[COL.error_message]}".rstrip(": ")
    return ""


def _figures(stage: Row, rows: list[Row]) -> StageFigures:
    ended = [row for row in rows if not _outcome(row).is_unfinished]
    ok = [row for row in ended if _outcome(row) is Outcome.OK]
    streamed = [row for row in ok if row[COL.error_code] != BUFFERED]
    return StageFigures(
        users=int(stage[COL.concurrency]),
        requests=len(ended),
        failed=len(ended) - len(ok),
        ttft_s=_median(streamed, COL.ttft_s),
        tpot_s=_median(streamed, COL.tpot_s),
        tokens_per_s_each=_median(ok, COL.request_output_throughput_token_per_s),
        latency_s=_median(ok, COL.end_to_end_latency_s),
        tokens_per_s=float(stage[COL.output_throughput_token_per_s] or math.nan),
        health=stage[COL.health],
    )


def _median(rows: Iterable[Row], column: str) -> float:
    return quantile(sorted(float(row[column]) for row in rows if row[column]), 0.5)


def _outcome(row: Row) -> Outcome:
    return outcome_of(row[COL.error_code], int(row[COL.http_status]) if row[COL.http_status] else None)


def _rows(path: Path) -> list[Row]:
    """Return the complete lines of a file that a run writes; [] if the file does not exist yet."""
    try:
        text = path.read_bytes().decode(errors="replace")  # a character can be written in part
    except (FileNotFoundError, NotADirectoryError):
        return []
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
