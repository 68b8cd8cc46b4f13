"""Putting the rows of a run together again: the rows file and the shards that workers, or a full disk, left.

What could not be written into its place lies in a folder that the manifest names: a shard with rows and beside it,
under the same prefix, the rest of the stages and chunk gaps, and perhaps the manifest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame

from llm_reports.errors import InputError
from llm_reports.input.manifest import disagreements
from llm_reports.input.open_file import plain_name
from llm_reports.input.related_files import RelatedFiles, related_files_of
from llm_reports.input.rows import empty_stages, read_requests, typed_frame
from llm_reports.run import Run
from llm_users.quantile import DurationHistogram
from llm_users.record import REQUEST_COLUMNS, STAGE_COLUMNS
from llm_users.run_files import SHARD_CSV


def with_shards(runs: Sequence[Run], paths: Sequence[Path]) -> list[Run]:
    """The runs with the rows of their shards; shards of no run among them are runs by themselves, one per run_id."""
    whole = list(runs)
    for path in paths:
        if any(path.resolve() in run.shards for run in whole) or path.stat().st_size == 0:
            continue
        rows, warnings = read_requests(path)
        more = related_files_of(path.with_name(plain_name(path).removesuffix(SHARD_CSV)))
        parts = list(rows.groupby("run_id", sort=False))
        if not parts and not more.empty:
            parts = [(plain_name(path).partition("_")[0], rows)]
        for run_id, part in parts:
            place = next((place for place, run in enumerate(whole) if run_id in set(run.requests["run_id"])), None)
            place = place if place is not None else _of_manifest(whole, str(run_id))
            if place is None:
                run = Run(str(run_id) or path.stem, path, part.reset_index(drop=True), empty_stages())
                whole.append(_with_related_files(dataclasses.replace(run, warnings=warnings), more))
            else:
                whole[place] = _merged(whole[place], part, path, warnings, more)
    return whole


def with_elsewhere(run: Run) -> Run:
    """The run with what its manifest says to be in other places of this machine; a warning for each that is not."""
    for name in elsewhere(run.manifest):
        path = Path(name)
        if path.is_file():
            try:
                merged = with_shards([run], [path])
            except InputError as error:
                run = dataclasses.replace(run, warnings=(*run.warnings, str(error)))
                continue
            if len(merged) == 1:  # else it is of another run
                run = dataclasses.replace(merged[0], shards=(*run.shards, path.resolve()))
        else:
            text = (
                f"{run.source}: rows of this run are in {path}, which is not on this machine. Copy its folder here and "
                "give the file too: llm-report PREFIX FILE."
            )
            run = dataclasses.replace(run, warnings=(*run.warnings, text))
    return run


def elsewhere(manifest: Mapping[str, Any]) -> list[str]:
    """The shards that a manifest names."""
    named = manifest.get("rows_elsewhere")
    if not isinstance(named, list):
        return []
    return [name for name in named if isinstance(name, str) and name.endswith(SHARD_CSV)]


def _of_manifest(runs: Sequence[Run], run_id: str) -> int | None:
    """The run whose rows file is empty but whose manifest has the id."""
    return next((place for place, run in enumerate(runs) if run.manifest.get("run_id") == run_id), None)


def _merged(run: Run, rows: DataFrame, path: Path, warnings: Sequence[str], more: RelatedFiles) -> Run:
    known = run.requests
    fresh = rows[~rows["request_id"].isin(set(known["request_id"]))].drop_duplicates("request_id")
    merged = pd.concat([known, fresh], ignore_index=True) if len(known) else fresh.reset_index(drop=True)
    merged = typed_frame({str(name): merged[name] for name in merged}, REQUEST_COLUMNS)
    # Notes about the rows file alone are replaced with notes about all rows.
    stale = {f"{run.source}: {text}" for text in disagreements(run.manifest, known, run.stages)}
    whole = _with_related_files(dataclasses.replace(run, requests=merged), more)
    found = [text for text in whole.warnings if text not in stale]
    found += [f"{run.source}: {text}" for text in disagreements(whole.manifest, merged, whole.stages)]
    found += [*warnings, f"{path}: {len(fresh)} rows were added from it; {len(rows) - len(fresh)} were there already."]
    return dataclasses.replace(whole, warnings=tuple(found))


def _with_related_files(run: Run, more: RelatedFiles) -> Run:
    """The run with the stages and gaps that are beside a shard, and with its manifest, which is the later one."""
    if more.empty:
        return run
    stages = run.stages
    if len(more.stages):
        kept = stages[~stages["stage"].isin(set(more.stages["stage"]))]
        stages = pd.concat([kept, more.stages], ignore_index=True) if len(kept) else more.stages
        stages = stages.sort_values("stage", ignore_index=True)
        stages = typed_frame({str(name): stages[name] for name in stages}, STAGE_COLUMNS)
    gaps = dict(run.gaps)
    for stage, histogram in more.gaps.items():
        # A line is in one of the two files, or in both with the same count.
        both = DurationHistogram()
        both.merge({**(gaps[stage].counts if stage in gaps else {}), **histogram.counts})
        gaps[stage] = both
    of_run = more.manifest.get("run_id") in (None, run.manifest.get("run_id")) or not run.manifest
    manifest = {**run.manifest, **more.manifest} if of_run else run.manifest
    return dataclasses.replace(
        run, stages=stages, gaps=gaps, manifest=manifest, warnings=(*run.warnings, *more.warnings)
    )
