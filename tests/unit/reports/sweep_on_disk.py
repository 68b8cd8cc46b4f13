"""A sweep as a run leaves it on disk, seeded: an endpoint that saturates, with failures and with hostile texts."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from llm_users.quantile import DurationHistogram
from llm_users.record import STAGE_COLUMNS, RequestRecord, StageRecord
from llm_users.run_files import GAPS_CSV, MANIFEST_JSON, REQUESTS_CSV, STAGES_CSV, path_of
from tests.unit.reports.rows_on_disk import record, write_csv, write_rows

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"
_STARTED_AT = 1_700_000_000.0
_CAPACITY = 12.0


def write_sweep(
    prefix: Path,
    *,
    levels: Sequence[int] = (1, 2, 4, 8, 16, 32),
    requests: int = 200,
    model: str = "llama-3.1-8b-instruct",
    seed: int = 5,
    healths: Sequence[str] = (),
) -> Path:
    """Writes the files of a run and returns its PREFIX; ``healths`` are the verdicts of the last stages."""
    dice = random.Random(seed)
    rows: list[RequestRecord] = []
    stages: list[StageRecord] = []
    gaps: list[list[object]] = []
    clock = 0.0
    verdicts = ["ok"] * (len(levels) - len(healths)) + list(healths)
    for number, (level, health) in enumerate(zip(levels, verdicts, strict=True), 1):
        made, took_s = _stage(dice, number, level, requests, clock, len(rows), model)
        rows += made
        clock += took_s + 1.0
        stages.append(_summary(number, level, made, took_s, health))
        histogram = DurationHistogram()
        for row in made:
            histogram.add(row.tpot_s or 0.01)
        gaps += [[number, b, *DurationHistogram.bounds_s(b), n] for b, n in sorted(histogram.counts.items())]
    write_rows(path_of(prefix, REQUESTS_CSV), rows)
    names = [column.name for column in STAGE_COLUMNS]
    values = [[getattr(stage, name) for name in names] for stage in stages]
    write_csv(path_of(prefix, STAGES_CSV), names, values)
    write_csv(path_of(prefix, GAPS_CSV), ["stage", "bucket", "low", "high", "count"], gaps)
    path_of(prefix, MANIFEST_JSON).write_text(
        json.dumps(
            {
                "run_id": "run-1",
                "host": "http://localhost:8000/v1",
                "model": model,
                "framework": "vllm",
                "options": {
                    "llm_sweep": ",".join(map(str, levels)),
                    "llm_requests": str(requests),
                    "llm_seed": "11111",
                },
                "clock": "CLOCK_MONOTONIC",
                "tokenizer": {"name": HOSTILE},
            }
        )
    )
    return prefix


def _stage(
    dice: random.Random, number: int, level: int, requests: int, clock: float, first: int, model: str
) -> tuple[list[RequestRecord], float]:
    free = [clock] * level
    crowd = max(1.0, level / _CAPACITY)
    rows = []
    for i in range(requests + level):
        user = min(range(level), key=free.__getitem__)
        tokens_in = max(20, int(dice.gauss(550, 150)))
        tokens = max(2, int(dice.gauss(150, 60)))
        ttft_s = 0.08 + tokens_in * 0.00012 * crowd + dice.lognormvariate(-4.2, 0.7) * crowd**1.5
        tpot_s = 0.0095 * crowd * dice.lognormvariate(0, 0.05)
        took_s = ttft_s + (tokens - 1) * tpot_s
        if dice.random() < 0.01:
            took_s *= dice.uniform(1.5, 3.0)  # a stalled request
        values = {
            "stage": number, "stage_end": number, "concurrency": level, "user_id": f"0-{user}", "model": model,
            "request_id": f"r{first + i:06d}", "started_at": _STARTED_AT + free[user], "input_tokens": tokens_in,
            "output_tokens": tokens, "window_tokens": float(tokens), "ttft_s": ttft_s, "ttfat_s": ttft_s,
            "tpot_s": (took_s - ttft_s) / (tokens - 1), "end_to_end_latency_s": took_s, "last_token_s": took_s,
            "request_output_throughput_token_per_s": tokens / took_s, "http_status": 200,
        }  # fmt: skip
        warmup = i < level
        if warmup:
            values |= {"phase": "warmup", "measured": 0}
        elif level >= 16 and dice.random() < 0.02 * crowd:
            values |= _failure(dice, took_s)
        rows.append(record(first + i, **values))
        free[user] += took_s if values.get("error_code") != "429" else 0.05
    return rows, max(free) - clock


def _failure(dice: random.Random, took_s: float) -> dict[str, object]:
    nothing: dict[str, object] = {
        "tpot_s": None, "output_tokens": None, "window_tokens": None, "request_output_throughput_token_per_s": None,
    }  # fmt: skip
    unanswered = {"ttft_s": None, "ttfat_s": None, "end_to_end_latency_s": None, "last_token_s": None}
    kind = dice.random()
    if kind < 0.6:
        return {**nothing, **unanswered, "error_code": "429", "http_status": 429, "error_message": "rate limit reached"}
    if kind < 0.8:
        return {**nothing, "error_code": "truncated", "error_message": f"the stream ended early: {HOSTILE}"}
    if kind < 0.9:
        return {**nothing, **unanswered, "error_code": "500", "http_status": 500, "error_message": "internal error"}
    return {**nothing, "error_code": "aborted", "error_message": "cut by the end of the stage", "last_token_s": took_s}


def _summary(number: int, level: int, rows: Sequence[RequestRecord], took_s: float, health: str) -> StageRecord:
    measured = [row for row in rows if row.measured]
    ok = [row for row in measured if row.ok]
    tokens = sum(row.window_tokens or 0.0 for row in rows)
    busy = {"ok": 0.3, "strained": 0.85, "disturbed": 0.02, "saturated": 0.99}[health]
    return StageRecord(
        stage=number, concurrency=level, measure_started_at=rows[0].started_at, measure_s=took_s,
        requests_started=len(rows), requests_measured=len(measured), requests_ok=len(ok),
        requests_failed=sum(not row.ok and row.error_code != "aborted" for row in measured),
        requests_throttled=sum(row.error_code == "429" for row in measured),
        requests_aborted=sum(row.error_code == "aborted" for row in measured), window_tokens=tokens,
        output_throughput_token_per_s=tokens / took_s, request_throughput_per_s=len(measured) / took_s,
        concurrency_actual=level * 0.97, client_cpu_s=took_s * busy, client_cpu_share_max=busy,
        lag_p99_s=0.001 if health == "ok" else 0.03, queue_p99_s=0.004, forced_start_share=0.01,
        coalesced_share=0.001, tokens_per_chunk=1.0, stamp_source="kernel", health=health,
    )  # fmt: skip
