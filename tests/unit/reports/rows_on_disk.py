"""Files as a run and as LLMPerf write them, made small and by hand or seeded, for the tests of the report."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from llm_users.record import REQUEST_COLUMNS, RequestRecord, cell

WriteRun = Callable[..., Path]


def record(index: int, **values: Any) -> RequestRecord:
    """A measured, successful request: TTFT 0.1 s, 1 s for 50 tokens; ``values`` say what is different."""
    defaults: dict[str, Any] = {
        "request_id": f"r{index}",
        "run_id": "run-1",
        "stage": 1,
        "stage_end": 1,
        "api": "openai-chat",
        "model": "tiny",
        "framework": "vllm",
        "phase": "measure",
        "phase_end": "measure",
        "measured": 1,
        "concurrency": 1,
        "started_at": 1_700_000_000.0 + index,
        "queue_s": 0.0,
        "connect_s": 0.0,
        "ttft_s": 0.1,
        "ttfat_s": 0.1,
        "end_to_end_latency_s": 1.0,
        "last_token_s": 1.0,
        "tpot_s": 0.018,
        "output_tokens": 50,
        "output_tokens_source": "usage",
        "input_tokens": 550,
        "stamp_source": "kernel",
    }
    return RequestRecord(**{**defaults, **values})


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([cell(value) for value in row] for row in rows)
    return path


def write_rows(path: Path, records: Iterable[RequestRecord]) -> Path:
    return write_csv(path, [column.name for column in REQUEST_COLUMNS], [each.row() for each in records])
