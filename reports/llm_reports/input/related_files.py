"""The files next to the rows of a run: stages, chunk gaps, manifest. Each may be absent or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandas import DataFrame

from llm_reports.errors import InputError
from llm_reports.input.manifest import read_manifest
from llm_reports.input.open_file import beside
from llm_reports.input.rows import empty_stages, read_gaps, read_stages
from llm_users.quantile import DurationHistogram
from llm_users.run_files import GAPS_CSV, MANIFEST_JSON, STAGES_CSV, path_of


@dataclass(frozen=True, eq=False)
class RelatedFiles:
    """The contents of the readable files next to a rows file or a shard."""

    stages: DataFrame
    gaps: Mapping[int, DurationHistogram]
    manifest: Mapping[str, Any]
    warnings: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether all files are absent or empty."""
        return self.stages.empty and not self.gaps and not self.manifest


def related_files_of(prefix: Path) -> RelatedFiles:
    """Read the files whose names begin with this prefix."""
    messages: list[str] = []
    stages = empty_stages()
    gaps: dict[int, DurationHistogram] = {}
    stages_path = beside(path_of(prefix, STAGES_CSV))
    gaps_path = beside(path_of(prefix, GAPS_CSV))
    # The tables need only the rows, so only the figures of an unreadable related file are missing.
    if stages_path.exists():
        try:
            stages, warnings = read_stages(stages_path)
            messages.extend(warnings)
        except InputError as error:
            messages.append(f"{error} Client health is therefore unknown.")
    if gaps_path.exists():
        try:
            gaps, warnings = read_gaps(gaps_path)
            messages.extend(warnings)
        except InputError as error:
            messages.append(f"{error} Chunk gaps are therefore omitted.")
    manifest, warnings = read_manifest(beside(path_of(prefix, MANIFEST_JSON)))
    return RelatedFiles(stages, gaps, manifest, (*messages, *warnings))
