"""Rows and stages of a run on disk, and the rows of the tab for its finished stages."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_users.record import STAGE_COLUMNS, RequestRecord, StageRecord
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from llm_users.web.stage_series import StageSeries
from tests.unit.reports.rows_on_disk import write_csv, write_rows


def read(path: Path, record_type: Any, columns: Any) -> list[Any]:
    types = {column.name: column.type for column in columns}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            record_type(**{name: types[name](value) for name, value in line.items() if value})
            for line in csv.DictReader(file)
        ]


def write_run(prefix: Path, rows: Sequence[RequestRecord], stages: Sequence[StageRecord]) -> Path:
    write_rows(path_of(prefix, REQUESTS_CSV), rows)
    names = [column.name for column in STAGE_COLUMNS]
    write_csv(path_of(prefix, STAGES_CSV), names, [[getattr(stage, name) for name in names] for stage in stages])
    return prefix


def finished(rows: Sequence[RequestRecord], stages: Sequence[StageRecord]) -> list[dict[str, Any]]:
    shown = []
    for stage in stages:
        series = StageSeries(stage.stage, stage.load)
        for row in rows:
            if row.stage == stage.stage:
                series.add(row)
        shown += series.finished_rows(stage)
    return shown
