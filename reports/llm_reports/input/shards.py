"""Merging of the rows of a run from the rows file and the shards that workers wrote, for example after a full disk.

Data that could not be written to its normal location is in a folder that the manifest names: a shard with rows and,
with the same prefix, the remaining stages and chunk gaps, and possibly the manifest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame

from llm_reports.errors import InputError
from llm_reports.input.open_file import plain_name
from llm_reports.input.related_files import RelatedFiles, disagreements, related_files_of, server_metrics_of
from llm_reports.input.rows import empty_stages, read_requests, typed_frame
from llm_reports.run import Run
from llm_users.quantile import DurationHistogram
from llm_users.record import COL, REQUEST_COLUMNS, STAGE_COLUMNS
from llm_users.run_files import SHARD_CSV


def with_shards(runs: Sequence[Run], paths: Sequence[Path]) -> list[Run]:
    """Return the runs with the rows of their shards; shards of other runs become additional runs, one per run_id."""
    merged = list(runs)
    for path in paths:
        if any(path.resolve() in run.shards for run in merged) or path.stat().st_size == 0:
            continue
        rows, warnings = read_requests(path)
        related = related_files_of(path.with_name(plain_name(path).removesuffix(SHARD_CSV)))
        parts = list(rows.groupby(COL.run_id, sort=False))
        if not parts and not related.empty:
            parts = [(plain_name(path).partition("_")[0], rows)]
        for run_id, part in parts:
            by_rows = [index for index, run in enumerate(merged) if run_id in set(run.requests[COL.run_id])]
            # The rows file of a run may be empty; then only its manifest has the id.
            by_manifest = [index for index, run in enumerate(merged) if run.manifest.get(COL.run_id) == str(run_id)]
            if by_rows or by_manifest:
                index = (by_rows or by_manifest)[0]
                merged[index] = _merged(merged[index], part, path, warnings, related)
            else:
                name = str(run_id) or path.stem
                run = Run(name, path, part.reset_index(drop=True), empty_stages(), warnings=warnings)
                merged.append(_with_related_files(run, related))
    return merged


def with_elsewhere(run: Run) -> Run:
    """Return the run with the shards that its manifest lists; add a warning for each file that does not exist here."""
    for name in elsewhere(run.manifest):
        path = Path(name)
        try:
            if not path.is_file():
                raise InputError(
                    f"{run.source}: rows of this run are in {path}, which does not exist on this machine. Copy its "
                    "folder to this machine and add the file to the command: llm-report PREFIX FILE."
                )
            merged = with_shards([run], [path])
        except InputError as error:
            run = dataclasses.replace(run, warnings=(*run.warnings, str(error)))
            continue
        if len(merged) == 1:  # otherwise the shard belongs to another run
            run = dataclasses.replace(merged[0], shards=(*run.shards, path.resolve()))
    return run


def elsewhere(manifest: Mapping[str, Any]) -> list[str]:
    """Return the shards that a manifest lists."""
    named = manifest.get("rows_elsewhere")
    names = named if isinstance(named, list) else []
    return [name for name in names if isinstance(name, str) and name.endswith(SHARD_CSV)]


def _merged(run: Run, rows: DataFrame, path: Path, warnings: Sequence[str], related: RelatedFiles) -> Run:
    known = run.requests
    added = rows[~rows[COL.request_id].isin(set(known[COL.request_id]))].drop_duplicates(COL.request_id)
    merged = pd.concat([known, added], ignore_index=True) if len(known) else added.reset_index(drop=True)
    merged = typed_frame({str(name): merged[name] for name in merged}, REQUEST_COLUMNS)
    # Warnings about the rows file alone are replaced with warnings about all rows.
    stale = {f"{run.source}: {text}" for text in disagreements(run.manifest, known, run.stages)}
    whole = _with_related_files(dataclasses.replace(run, requests=merged), related)
    messages = (
        *(text for text in whole.warnings if text not in stale),
        *(f"{run.source}: {text}" for text in disagreements(whole.manifest, merged, whole.stages)),
        *warnings,
        f"{path}: {len(added)} rows were added from this file; {len(rows) - len(added)} rows already existed.",
    )
    return dataclasses.replace(whole, warnings=messages)


def _with_related_files(run: Run, related: RelatedFiles) -> Run:
    """Return the run with the stages and gaps next to a shard, and with the shard's manifest, which is newer."""
    if related.empty:
        return run
    stages = run.stages
    if len(related.stages):
        kept = stages[~stages[COL.stage].isin(set(related.stages[COL.stage]))]
        stages = pd.concat([kept, related.stages], ignore_index=True) if len(kept) else related.stages
        stages = stages.sort_values(COL.stage, ignore_index=True)
        stages = typed_frame({str(name): stages[name] for name in stages}, STAGE_COLUMNS)
    gaps = dict(run.gaps)
    for stage, histograms in related.gaps.items():
        # Each bucket is in one of the two files, or in both with the same count.
        of_stage = dict(gaps.get(stage, {}))
        for model, histogram in histograms.items():
            both = DurationHistogram()
            both.merge({**(of_stage[model].counts if model in of_stage else {}), **histogram.counts})
            of_stage[model] = both
        gaps[stage] = of_stage
    of_run = related.manifest.get(COL.run_id) in (None, run.manifest.get(COL.run_id)) or not run.manifest
    manifest = {**run.manifest, **related.manifest} if of_run else run.manifest
    run_ids = {*run.requests[COL.run_id].unique(), str(manifest.get(COL.run_id) or "")}
    server_metrics, of_server = server_metrics_of(run_ids, (*run.server_metrics, *related.server_metrics))
    return dataclasses.replace(
        run,
        stages=stages,
        gaps=gaps,
        manifest=manifest,
        server_metrics=server_metrics,
        warnings=(*run.warnings, *related.warnings, *(f"{run.source}: {text}" for text in of_server)),
    )
