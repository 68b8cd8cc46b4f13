"""One run as the report sees it: its rows and what was written beside them. Knows no file format."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_users.quantile import DurationHistogram

if TYPE_CHECKING:
    from pandas import DataFrame

AT = " @ "
"""Between a model and its endpoint, in the name of a model that was asked at several."""


@dataclass(frozen=True, eq=False)
class Run:
    """The rows of one run, or of one foreign file.

    ``requests`` and ``stages`` have the columns of ``llm_users.record`` (columns of the file beyond those are kept).
    Numbers that were not measured are missing values; text that was not set is "". ``stages`` has no rows when the
    run has no such file. ``gaps`` holds one histogram of chunk gaps per stage, ``manifest`` is PREFIX_llm_run.json, or
    the ``*_summary.json`` beside a foreign file.
    """

    name: str
    source: Path
    requests: DataFrame
    stages: DataFrame
    gaps: Mapping[int, DurationHistogram] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    report_dir: Path | None = None
    foreign: bool = False
    warnings: tuple[str, ...] = ()
    shards: tuple[Path, ...] = ()
    """The shards that the manifest names and whose rows are among ``requests``."""

    @property
    def measured(self) -> int:
        """How many requests count in the statistics, failed ones included."""
        return int((self.requests["measured"] == 1).sum())

    @property
    def started(self) -> datetime | None:
        """When its first request started, in UTC; ``None`` where the rows do not say."""
        try:
            return datetime.fromtimestamp(float(self.requests["started_at"].min()), UTC)
        except (ValueError, OverflowError, OSError):  # no rows, or a time stamp that no calendar has
            return None


def named_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs with names that differ: runs of one name are called by as many folders as tell them apart.

    ``out/a/run`` and ``out/b/run`` are ``a/run`` and ``b/run``; what a folder holds twice, by the names of its files.
    """
    return [
        run if run.name == name else dataclasses.replace(run, name=name)
        for run, name in zip(runs, _distinct(runs), strict=True)
    ]


def _distinct(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs]
    folders = [list(run.source.resolve().parent.parts[1:]) for run in runs]
    while same := [place for place, name in enumerate(names) if names.count(name) > 1 and folders[place]]:
        for place in same:
            names[place] = f"{folders[place].pop()}/{names[place]}"
    if len(set(names)) == len(names):
        return names
    # One folder holds both, such as ``run.csv`` beside ``run_llm_requests.csv``; or one file was loaded twice.
    named = [
        name if names.count(name) == 1 else f"{run.source.parent.name}/{run.source.name}".lstrip("/")
        for run, name in zip(runs, names, strict=True)
    ]
    return [
        name if named.count(name) == 1 else f"{name} ({named[: place + 1].count(name)})"
        for place, name in enumerate(named)
    ]
