"""The files next to the rows of a run: stages, chunk gaps, server metrics, manifest. Each may be absent or damaged.

This module also compares the manifest, PREFIX_llm_run.json, and the stages with the rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pandas import DataFrame

from llm_reports.errors import InputError
from llm_reports.input.open_file import beside, read_text
from llm_reports.input.rows import empty_stages, read_gaps, read_server_metrics, read_stages
from llm_users.number_words import counted
from llm_users.quantile import DurationHistogram
from llm_users.record import COL, ServerMetricRecord
from llm_users.run_files import GAPS_CSV, MANIFEST_JSON, SERVER_METRICS_CSV, STAGES_CSV, path_of

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RelatedFiles:
    """The contents of the readable files next to a rows file or a shard."""

    stages: DataFrame
    gaps: Mapping[int, Mapping[str, DurationHistogram]]
    manifest: Mapping[str, Any]
    warnings: tuple[str, ...]
    server_metrics: tuple[ServerMetricRecord, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether all files are absent or empty."""
        return self.stages.empty and not self.gaps and not self.manifest and not self.server_metrics


def related_files_of(prefix: Path) -> RelatedFiles:
    """Read the files whose names begin with this prefix."""
    stages_path, gaps_path = path_of(prefix, STAGES_CSV), path_of(prefix, GAPS_CSV)
    stages, of_stages = _readable(stages_path, read_stages, empty_stages, "Client health is therefore unknown.")
    gaps, of_gaps = _readable(
        gaps_path, read_gaps, dict[int, dict[str, DurationHistogram]], "Chunk gaps are therefore omitted."
    )
    manifest, of_manifest = _read_manifest(beside(path_of(prefix, MANIFEST_JSON)))
    server_metrics, of_server = _readable(
        path_of(prefix, SERVER_METRICS_CSV),
        read_server_metrics,
        tuple[ServerMetricRecord, ...],
        "The server's own metrics are therefore omitted.",
    )
    warnings = (*of_stages, *of_gaps, *of_manifest, *of_server)
    return RelatedFiles(stages, gaps, manifest, warnings, server_metrics)


def server_metrics_of(
    run_ids: Collection[str], records: Iterable[ServerMetricRecord]
) -> tuple[tuple[ServerMetricRecord, ...], tuple[str, ...]]:
    """Return the records of a run, the last one of each stage, server and metric, and a warning about omitted ones.

    ``run_ids`` are those of the rows; "" and an empty collection stand for unknown ones.
    """
    known = set(run_ids) - {""}
    own: dict[tuple[int, str, str], ServerMetricRecord] = {}
    others = 0
    for record in records:
        if record.run_id and known and record.run_id not in known:
            others += 1
        else:
            own[record.stage, record.server, record.metric] = record
    text = f"the server's own metrics: {counted(others, 'line')} of another run ignored."
    return tuple(own.values()), (text,) if others else ()


def _readable(
    path: Path, read: Callable[[Path], tuple[T, tuple[str, ...]]], empty: Callable[[], T], consequence: str
) -> tuple[T, tuple[str, ...]]:
    """Return the content of a file and warnings; the tables need only the rows, so the file may be unreadable."""
    path = beside(path)
    if not path.exists():
        return empty(), ()
    try:
        return read(path)
    except InputError as error:
        return empty(), (f"{error} {consequence}",)


def _read_manifest(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
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
    measured = requests[requests[COL.measured] == 1][COL.stage].value_counts()
    for stage, expected in stages[[COL.stage, COL.requests_measured]].dropna().itertuples(index=False):
        if (actual := int(measured.get(stage, 0))) != int(expected):
            warnings.append(
                f"stage {stage}: the stages file counts {int(expected)} measured requests, the rows file has {actual}."
            )
    return tuple(warnings)


def _count(manifest: Mapping[str, Any], key: str) -> int | None:
    """Return the number of records sent or received by all workers; ``None`` when a worker did not report it."""
    counts = manifest.get("counts")
    by_worker = counts.get(key) if isinstance(counts, dict) else None
    if not isinstance(by_worker, dict) or not all(type(count) is int for count in by_worker.values()):
        return None
    return sum(by_worker.values())
