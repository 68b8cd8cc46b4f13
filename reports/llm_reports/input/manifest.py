"""The manifest of a run, PREFIX_llm_run.json: reading it, and where it disagrees with the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_reports.errors import InputError
from llm_reports.input.open_file import read_text

if TYPE_CHECKING:
    from pandas import DataFrame


def read_manifest(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The manifest, and a warning when the file is there but cannot be used."""
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
    """What the manifest and the stages say otherwise than the rows. Rows decide; each disagreement is a warning."""
    found: list[str] = []
    run_ids = sorted({run_id for run_id in requests["run_id"] if run_id})
    if len(run_ids) > 1:
        found.append(f"the rows come from {len(run_ids)} runs ({', '.join(run_ids)}) and are taken for one.")
    elif run_ids and manifest.get("run_id") not in (None, "", run_ids[0]):
        found.append(
            f"the manifest is of run {manifest['run_id']}, the rows are of run {run_ids[0]}: "
            "files of two runs are mixed."
        )
    repeated = int(requests["request_id"][requests["request_id"] != ""].duplicated().sum())
    if repeated:
        found.append(f"{repeated} rows repeat the request_id of another row: requests are counted twice.")
    sent, received = _count(manifest, "sent"), _count(manifest, "received")
    if sent is not None and received is not None and sent != received:
        found.append(f"the manifest counts {sent} records sent by the workers but {received} received: rows were lost.")
    if received is not None and received != len(requests):
        found.append(f"the manifest counts {received} records received, the rows file has {len(requests)} rows.")
    found.extend(_stage_disagreements(requests, stages))
    return tuple(found)


def _stage_disagreements(requests: DataFrame, stages: DataFrame) -> Iterator[str]:
    measured = requests[requests["measured"] == 1]["stage"].value_counts()
    counted = stages[["stage", "requests_measured"]].dropna()
    for stage, expected in zip(counted["stage"], counted["requests_measured"], strict=True):
        found = int(measured.get(stage, 0))
        if int(expected) != found:
            yield f"stage {stage}: the stages file counts {int(expected)} measured requests, the rows file has {found}."


def _count(manifest: Mapping[str, Any], key: str) -> int | None:
    """Records sent or received over all workers; ``None`` when a worker never said how many."""
    counts = manifest.get("counts")
    by_worker = counts.get(key) if isinstance(counts, dict) else None
    if not isinstance(by_worker, dict) or not all(type(count) is int for count in by_worker.values()):
        return None
    return sum(by_worker.values())
