"""Putting the rows of a run together again: the rows file and the shards that workers, or a full disk, left."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from llm_users.record import REQUEST_COLUMNS
from reports.manifest import disagreements
from reports.rows_file import empty_stages, read_requests, typed_frame
from reports.run import Run


def with_shards(runs: Sequence[Run], paths: Sequence[Path]) -> list[Run]:
    """The runs with the rows of their shards; shards of no run among them are runs by themselves, one per run_id."""
    whole = list(runs)
    for path in paths:
        rows, warnings = read_requests(path)
        for run_id, part in rows.groupby("run_id", sort=False):
            place = next((place for place, run in enumerate(whole) if run_id in set(run.requests["run_id"])), None)
            place = place if place is not None else _of_manifest(whole, str(run_id))
            if place is None:
                run = Run(str(run_id) or path.stem, path, part.reset_index(drop=True), empty_stages())
                whole.append(dataclasses.replace(run, warnings=warnings))
            else:
                whole[place] = _merged(whole[place], part, path, warnings)
    return whole


def _of_manifest(runs: Sequence[Run], run_id: str) -> int | None:
    """The run whose rows file is empty but whose manifest has the id."""
    return next((place for place, run in enumerate(runs) if run.manifest.get("run_id") == run_id), None)


def _merged(run: Run, rows: DataFrame, path: Path, warnings: Sequence[str]) -> Run:
    known = run.requests
    fresh = rows[~rows["request_id"].isin(set(known["request_id"]))].drop_duplicates("request_id")
    merged = pd.concat([known, fresh], ignore_index=True) if len(known) else fresh.reset_index(drop=True)
    merged = typed_frame({str(name): merged[name] for name in merged}, REQUEST_COLUMNS)
    # What was said of the rows file alone is said anew of all rows.
    stale = {f"{run.source}: {text}" for text in disagreements(run.manifest, known, run.stages)}
    found = [text for text in run.warnings if text not in stale]
    found += [f"{run.source}: {text}" for text in disagreements(run.manifest, merged, run.stages)]
    found += [*warnings, f"{path}: {len(fresh)} rows were added from it; {len(rows) - len(fresh)} were there already."]
    return dataclasses.replace(run, requests=merged, warnings=tuple(found))
