"""A sweep over rates as a run leaves it on disk, seeded: arrivals by a schedule, a bound on what is in flight."""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Sequence
from pathlib import Path

from llm_users.record import STAGE_COLUMNS, RequestRecord, StageRecord
from llm_users.run_files import MANIFEST_JSON, REQUESTS_CSV, STAGES_CSV, path_of
from tests.unit.reports.rows_on_disk import record, write_csv, write_rows

STARTED_AT = 1_700_000_000.0


def write_rates(
    prefix: Path, *, rates: Sequence[float] = (5, 10, 20), requests: int = 200, most: int = 8, policy: str = "wait",
    seed: int = 3, arrivals: str = "poisson", scale: float = 1.0,
) -> Path:  # fmt: skip
    """Writes the files of a run and returns its PREFIX. ``policy`` is wait or drop, ``most`` the places in flight."""
    dice = random.Random(seed)
    rows: list[RequestRecord] = []
    stages: list[StageRecord] = []
    for number, rate in enumerate(rates, 1):
        made = _stage(dice, number, rate, requests, most, policy, scale)
        rows += made
        stages.append(_summary(number, rate, made))
    write_rows(path_of(prefix, REQUESTS_CSV), rows)
    names = [column.name for column in STAGE_COLUMNS]
    values = [[getattr(stage, name) for name in names] for stage in stages]
    write_csv(path_of(prefix, STAGES_CSV), names, values)
    options = {"llm_rate": ",".join(f"{rate:g}" for rate in rates), "llm_arrivals": arrivals, "llm_overflow": policy}
    path_of(prefix, MANIFEST_JSON).write_text(json.dumps({"run_id": "run-1", "options": options}))
    return prefix


def _stage(
    dice: random.Random, number: int, rate: float, requests: int, most: int, policy: str, scale: float
) -> list[RequestRecord]:
    rows = []
    intended, ends = 1000.0 * number, [0.0] * most  # when each place is free again
    heapq.heapify(ends)
    for i in range(requests):
        intended += dice.expovariate(rate)
        values = {
            "request_id": f"r{number}-{i:05d}", "stage": number, "stage_end": number, "concurrency": 0,
            "rate_per_s": float(rate), "prompt_index": 1000 * number + i,
        }  # fmt: skip
        free = ends[0]
        if free > intended and policy == "drop":
            nothing = ("started_at", "queue_s", "connect_s", "ttft_s", "ttfat_s", "end_to_end_latency_s",
                       "last_token_s", "tpot_s", "output_tokens", "input_tokens", "stamp_source")  # fmt: skip
            dropped = {**values, **dict.fromkeys(nothing), "error_code": "overflow",
                       "error_message": "no place among --llm-max-in-flight"}  # fmt: skip
            rows.append(record(i, **dropped))
            continue
        held_s, late_s = max(0.0, free - intended), dice.uniform(0.0001, 0.002)
        start = intended + held_s + late_s
        ttft_s = scale * dice.lognormvariate(-2.3, 0.3)
        latency_s = ttft_s + 0.4 * dice.uniform(0.9, 1.1)
        heapq.heapreplace(ends, start + latency_s)
        values |= {
            "started_at": STARTED_AT + start, "queue_s": held_s + late_s, "held_s": held_s, "ttft_s": ttft_s,
            "ttfat_s": ttft_s, "end_to_end_latency_s": latency_s, "last_token_s": latency_s,
            "tpot_s": (latency_s - ttft_s) / 49, "window_tokens": 50.0, "http_status": 200,
            "corrected_ttft_s": held_s + late_s + ttft_s,
            "corrected_end_to_end_latency_s": held_s + late_s + latency_s,
        }  # fmt: skip
        rows.append(record(i, **values))
    return rows


def _summary(number: int, rate: float, rows: Sequence[RequestRecord]) -> StageRecord:
    sent = [row for row in rows if row.started_at is not None]
    starts = [row.started_at for row in sent if row.started_at is not None]
    window_s = max(starts) - min(starts)
    return StageRecord(
        stage=number, concurrency=0, rate_per_s=float(rate), measure_started_at=min(starts), measure_s=window_s,
        requests_started=len(sent), requests_measured=len(rows), requests_ok=len(sent),
        requests_failed=len(rows) - len(sent), window_tokens=50.0 * len(sent),
        output_throughput_token_per_s=50.0 * len(sent) / window_s, request_throughput_per_s=len(sent) / window_s,
        concurrency_actual=sum(row.end_to_end_latency_s or 0.0 for row in sent) / window_s, queue_p99_s=0.002,
        requests_held=sum((row.held_s or 0.0) > 0 for row in rows), requests_dropped=len(rows) - len(sent),
        stamp_source="kernel", health="ok",
    )  # fmt: skip
