"""One run as the input of a report: its rows and related data. This module does not depend on a file format."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_users.quantile import DurationHistogram
from llm_users.record import COL, ServerMetricRecord

if TYPE_CHECKING:
    from pandas import DataFrame

AT = " @ "
"""The separator between model and endpoint in the name of a model that has requests at several endpoints."""

LOAD_SEARCH_KEY = "find"
"""The key of a load search in the manifest."""


@dataclass(frozen=True, eq=False)
class Run:
    """The rows of one run, or of one foreign file.

    ``requests`` and ``stages`` have the columns of ``llm_users.record`` (additional columns of the file are kept).
    Numbers that were not measured are missing values; text that was not set is "". ``stages`` is empty when the run
    does not have a stages file. ``gaps`` contains the histograms of chunk gaps by stage and model; the model is "" if a
    histogram pools several models. ``manifest`` is PREFIX_llm_run.json, or the ``*_summary.json`` next to a foreign
    file.
    """

    name: str
    source: Path
    requests: DataFrame
    stages: DataFrame
    gaps: Mapping[int, Mapping[str, DurationHistogram]] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    report_dir: Path | None = None
    foreign: bool = False
    warnings: tuple[str, ...] = ()
    shards: tuple[Path, ...] = ()
    """The shards that the manifest lists and whose rows are in ``requests``."""
    server_metrics: tuple[ServerMetricRecord, ...] = ()
    """The metrics of the servers themselves, one record per stage, server and metric."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of the run, from its manifest; empty when the manifest does not contain them."""
        options = self.manifest.get("options")
        return options if isinstance(options, dict) else {}

    @property
    def measured(self) -> int:
        """The number of requests that count in the statistics, including failed ones."""
        return int((self.requests[COL.measured] == 1).sum())

    @property
    def unmeasured_cause(self) -> str:
        """Why no request was measured: the refusal of the run or the errors of its requests; "" if it is unknown."""
        from llm_reports.metrics.outcomes import failure_reasons

        return str(self.manifest.get("refused") or "") or failure_reasons(self.requests)

    @property
    def started(self) -> datetime | None:
        """The start of the first request, in UTC; ``None`` when the rows do not contain it."""
        try:
            return datetime.fromtimestamp(float(self.requests[COL.started_at].min()), UTC)
        except (ValueError, OverflowError, OSError):  # zero rows, or a timestamp outside the calendar
            return None


def named_apart(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with distinct names; runs of the same name get the folder names that distinguish them.

    ``out/a/run`` and ``out/b/run`` become ``a/run`` and ``b/run``. Runs of the same name in one folder get the names of
    their files.
    """
    names = [run.name for run in runs]
    folders = [list(run.source.resolve().parent.parts[1:]) for run in runs]
    while same := [index for index, name in enumerate(names) if names.count(name) > 1 and folders[index]]:
        for index in same:
            names[index] = f"{folders[index].pop()}/{names[index]}"
    # One folder contains both, such as ``run.csv`` next to ``run_llm_requests.csv``; or one file was loaded twice.
    named = [
        name if names.count(name) == 1 else f"{run.source.parent.name}/{run.source.name}".lstrip("/")
        for run, name in zip(runs, names, strict=True)
    ]
    counted = [
        name if named.count(name) == 1 else f"{name} ({named[: index + 1].count(name)})"
        for index, name in enumerate(named)
    ]
    renamed = zip(runs, counted, strict=True)
    return [run if run.name == name else dataclasses.replace(run, name=name) for run, name in renamed]
