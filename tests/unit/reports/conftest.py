"""Files as a run and as LLMPerf write them, made small and by hand or seeded, for the tests of the report."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from llm_users.quantile import DurationHistogram
from llm_users.record import STAGE_COLUMNS, RequestRecord, ServerMetricRecord, StageRecord
from llm_users.run_files import GAPS_CSV, MANIFEST_JSON, REQUESTS_CSV, SERVER_METRICS_CSV, STAGES_CSV, path_of
from tests.unit.reports.rows_on_disk import record, write_csv, write_rows
from tests.unit.reports.server_on_disk import write_server

WriteRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_job_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts of tests do not belong into the summary of the job that runs the tests."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes the files of a run and returns its PREFIX."""

    def write(
        records: Iterable[RequestRecord],
        *,
        stages: Iterable[StageRecord] = (),
        gaps_s: dict[int, list[float]] | dict[tuple[int, str], list[float]] | None = None,
        manifest: dict[str, Any] | None = None,
        server: Iterable[ServerMetricRecord] = (),
        name: str = "run",
    ) -> Path:
        prefix = tmp_path / name
        write_rows(path_of(prefix, REQUESTS_CSV), records)
        names = [column.name for column in STAGE_COLUMNS]
        rows = [[getattr(stage, column) for column in names] for stage in stages]
        if rows:
            write_csv(path_of(prefix, STAGES_CSV), names, rows)
        if gaps_s:
            lines = []
            for key, gaps in gaps_s.items():
                stage, model = key if isinstance(key, tuple) else (key, "")
                histogram = DurationHistogram()
                for gap in gaps:
                    histogram.add(gap)
                lines += [
                    [stage, b, *DurationHistogram.bounds_s(b), n, model] for b, n in sorted(histogram.counts.items())
                ]
            write_csv(path_of(prefix, GAPS_CSV), ["stage", "bucket", "lower_s", "upper_s", "count", "model"], lines)
        if server:
            write_server(path_of(prefix, SERVER_METRICS_CSV), server)
        if manifest is not None:
            path_of(prefix, MANIFEST_JSON).write_text(json.dumps(manifest))
        return prefix

    return write


@pytest.fixture
def write_responses(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file as LLMPerf does, with seeded figures and some throttled requests."""

    def write(name: str, *, seed: int = 1, ok: int = 137, failed: int = 13) -> Path:
        dice = random.Random(seed)
        responses = []
        for _ in range(ok):
            tokens = dice.randint(20, 400)
            ttft_s = dice.lognormvariate(-1.2, 0.6)
            latency_s = ttft_s + tokens * dice.uniform(0.01, 0.05)
            responses.append(
                {
                    "error_code": None,
                    "error_msg": "",
                    "inter_token_latency_s": latency_s / tokens,
                    "ttft_s": ttft_s,
                    "end_to_end_latency_s": latency_s,
                    "request_output_throughput_token_per_s": 1.0,
                    "number_total_tokens": 550 + tokens,
                    "number_output_tokens": tokens,
                    "number_input_tokens": 550,
                }
            )
        for _ in range(failed):
            error = dict.fromkeys(responses[0], 0) if responses else {"ttft_s": 0, "end_to_end_latency_s": 0}
            responses.append({**error, "error_code": 429, "error_msg": "slow down", "number_output_tokens": 1})
        dice.shuffle(responses)
        path = tmp_path / name
        path.write_text(json.dumps(responses, indent=1))
        return path

    return write


@pytest.fixture
def make_record() -> Callable[..., RequestRecord]:
    return record
