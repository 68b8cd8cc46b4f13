"""The manifest of a run, PREFIX_llm_run.json: this module reads it and compares it with the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_reports.errors import InputError
from llm_reports.input.open_file import read_text
from llm_users.record import COL

if TYPE_CHECKING:
    from pandas import DataFrame


def read_manifest(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the manifest, and a warning when the file exists but cannot be used."""
    if not path.exists():
        return {}, ()
    try:
        manifest = json.loads(read_text(path))
    except (InputError, ValueError, RecursionError) as error:
        return {}, (f"{path}: the manifest cannot be read ({error}); it was not compared with the rows.",)
    if not isinstance(manifest, dict):
        return {}, (f"{path}: the manifest is not a JSON object; it was not compared with the rows.",)
    return manifest, ()


def disagreements(manifest: Mapping[str, Any], requests: DataFrame, stages: DataFrame) -> tuple[str, ...]:
    """Return a warning for each difference between the rows and the manifest or stages. The rows take precedence."""
    warnings: list[str] = []
    run_ids = sorted({run_id for run_id in requests[COL.run_id] if run_id})
    if len(run_ids) > 1:
        warnings.append(f"the rows come from {len(run_ids)} runs ({', '.join(run_ids)}) and are treated as one run.")
    elif run_ids and manifest.get(COL.run_id) not in (None, "", run_ids[0]):
        warnings.append(
            f"the manifest belongs to run {manifest[COL.run_id]}, the rows belong to run {run_ids[0]}: "
            "the files of two runs are mixed."
        )
    repeated = int(requests[COL.request_id][requests[COL.request_id] != ""].duplicated().sum())
    if repeated:
        warnings.append(f"{repeated} rows repeat the request_id of another row, so requests are counted twice.")
    sent, received = _count(manifest, "sent"), _count(manifest, "received")
    if sent is not None and received is not None and sent != received:
        warnings.append(
            f"the manifest counts {sent} records sent by the workers but {received} received: rows were lost."
        )
    if received is not None and received != len(requests):
        warnings.append(f"the manifest counts {received} records received, the rows file has {len(requests)} rows.")
    warnings.extend(_stage_disagreements(requests, stages))
    return tuple(warnings)


def _stage_disagreements(requests: DataFrame, stages: DataFrame) -> Iterator[str]:
    measured = requests[requests[COL.measured] == 1][COL.stage].value_counts()
    counted = stages[[COL.stage, "requests_measured"]].dropna()
    for stage, expected in zip(counted[COL.stage], counted["requests_measured"], strict=True):
        actual = int(measured.get(stage, 0))
        if int(expected) != actual:
            yield (
                f"stage {stage}: the stages file counts {int(expected)} measured requests, the rows file has {actual}."
            )


def _count(manifest: Mapping[str, Any], key: str) -> int | None:
    """Return the number of records sent or received by all workers; ``None`` when a worker did not report it."""
    counts = manifest.get("counts")
    by_worker = counts.get(key) if isinstance(counts, dict) else None
    if not isinstance(by_worker, dict) or not all(type(count) is int for count in by_worker.values()):
        return None
    return sum(by_worker.values())
