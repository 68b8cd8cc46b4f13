"""Columns that distinguish rows with the same framework, model and load: lengths, API, endpoint, run, date, stage.

Tables, notes, legends and charts use these columns. They show only what differs between rows that would otherwise look
the same: first the conditions that differ; if conditions do not distinguish the rows, the run, and its date when the
days differ; and the stage if one run has the same load twice.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from llm_reports.llmperf.results import stated_lengths
from llm_reports.metrics.groups import Group
from llm_reports.metrics.stage_group import StageGroup
from llm_reports.run import LOAD_SEARCH_KEY, Run, named_apart

ALIKE = 0.05
"""Mean lengths within this share count as equal; a larger difference alone explains a difference of times."""
_ERRORS = 4  # standard errors; two equal means differ by more than this by chance once in 16,000 times
UNKNOWN = "-"
RUN, DATE, STAGE = "Run", "Date", "Stage"
SIMULATED = "simulator"
"""The endpoint of a run with ``--llm-simulator``."""
_WORDS = {
    "Input tokens": "{} input tokens",
    "Output tokens": "{} output tokens",
    "API": "{}",
    "Endpoint": "at {}",
    RUN: "run {}",
    DATE: "of {}",
    STAGE: "stage {}",
}
TEXT_COLUMNS = ("API", "Endpoint", RUN, DATE)
"""Text columns, which are aligned left."""
_Classes = list[list[int]]


@dataclass(frozen=True)
class Distinction:
    """A column: its name, and the cell of each group. ``keys`` are equal if the cells have the same meaning."""

    name: str
    cells: tuple[str, ...]
    keys: tuple[Hashable, ...]


def distinctions(groups: Sequence[StageGroup], *, by_load: bool = True) -> list[Distinction]:
    """Return the columns that distinguish these groups; empty if framework, model and load distinguish them.

    ``by_load`` is false if rows with different loads share one name, as in a curve.
    """
    names = [(group.framework, group.model, group.load if by_load else group.load.lengths) for group in groups]
    ambiguous = _alike(names)
    # The loads of a load search are not in the order of its stages, so the stage is always shown.
    stages = by_load and any(LOAD_SEARCH_KEY in group.run.manifest for group in groups)
    if not ambiguous and not stages:
        return []
    columns = [_lengths(groups, ambiguous, kind) for kind in ("input", "output")]
    for name, texts in (
        ("API", [group.facts.apis for group in groups]),
        ("Endpoint", [_endpoints(group) for group in groups]),
    ):
        columns.append(_column(name, [", ".join(sorted(of_group)) for of_group in texts]))
    columns = [column for column in columns if _differs(column.keys, ambiguous)]
    ambiguous = _refined(ambiguous, columns)
    if not ambiguous and not stages:
        return columns
    runs = cast("list[Run]", list(dict.fromkeys(group.run for group in groups)))
    if any(len({groups[index].run for index in indices}) > 1 for indices in ambiguous):
        renamed = {id(run): named for run, named in zip(runs, named_apart(runs), strict=True)}
        columns.append(_column(RUN, [renamed[id(group.run)].name for group in groups]))
        days = _column(DATE, [_day(group) for group in groups])
        if _differs(days.keys, ambiguous):
            columns.append(days)
        ambiguous = _refined(ambiguous, columns)
    if ambiguous or stages:
        columns.append(_column(STAGE, ["" if group.stage is None else str(group.stage) for group in groups]))
    return columns


def in_words(name: str, cell: str) -> str:
    """Return a cell of a distinction for use in a sentence: ``1000 input tokens``; "" if it is unknown."""
    return "" if cell == UNKNOWN else _WORDS[name].format(cell)


def words_of(columns: Sequence[Distinction], index: int, *, without: Sequence[str] = ()) -> list[str]:
    """Return the words that distinguish the group with this index."""
    words = (in_words(column.name, column.cells[index]) for column in columns if column.name not in without)
    return [text for text in words if text]


def labels(groups: Sequence[StageGroup]) -> list[str]:
    """Return the shortest names that distinguish the rows."""
    parts: list[list[str]] = [[] for _ in groups]
    for values in zip(
        *((group.framework or "-", group.model or "-", group.load.words) for group in groups), strict=True
    ):
        if len(set(values)) > 1 and len(set(map(tuple, parts))) < len(groups):
            for part, value in zip(parts, values, strict=True):
                part.append(value)
    columns = distinctions(groups)
    return [" ".join([*part, *words_of(columns, index)]) for index, part in enumerate(parts)]


def entry_names(groups: Sequence[StageGroup]) -> list[str]:
    """Return a name for each row that is never empty: its label, or the run's name (of its file) without a framework.

    The load follows the run's name if the run has several rows.
    """
    names = []
    for label, group in zip(labels(groups), groups, strict=True):
        if group.framework and label:
            names.append(label)
        else:
            several = sum(other.run is group.run for other in groups) > 1
            names.append(f"{group.run.name}{group.load.at if several else ''}")
    return names


def _alike(keys: Sequence[Hashable]) -> _Classes:
    """Return the indices with the same key, for each key that occurs more than once."""
    indices_by_key: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        indices_by_key[key].append(index)
    return [indices for indices in indices_by_key.values() if len(indices) > 1]


def _refined(alike: _Classes, columns: Sequence[Distinction]) -> _Classes:
    """Return the indices that these columns do not distinguish."""
    parts = (_alike([tuple(column.keys[index] for column in columns) for index in indices]) for indices in alike)
    return [[indices[i] for i in part] for indices, of_class in zip(alike, parts, strict=True) for part in of_class]


def _differs(keys: Sequence[Hashable], alike: _Classes) -> bool:
    """Return whether two rows of the same class have different known values."""
    return any(len({keys[index] for index in indices if keys[index] is not None}) > 1 for indices in alike)


def _column(name: str, texts: Sequence[str]) -> Distinction:
    return Distinction(name, tuple(text or UNKNOWN for text in texts), tuple(text or None for text in texts))


def _lengths(groups: Sequence[StageGroup], alike: _Classes, kind: str) -> Distinction:
    """Return the mean lengths: the requested lengths if every row has them, otherwise the measured lengths."""
    stated = [stated_lengths(group) for group in groups]
    means = [lengths.get(f"mean_{kind}_tokens") for lengths in stated]
    deviations = [lengths.get(f"stddev_{kind}_tokens") for lengths in stated]
    keys: list[Hashable] = [None] * len(groups)
    with_deviation = False
    for indices in alike:
        if len({groups[index].run for index in indices}) == 1:
            continue  # all stages of one run request the same lengths
        if any(means[index] is None for index in indices):
            measured = [_Measured.of(cast("Group", groups[index]), kind) for index in indices]
            for index, length, level in zip(indices, measured, _levels(measured), strict=True):
                means[index] = None if length is None else round(length.mean)
                deviations[index] = None
                keys[index] = level
        else:
            known = all(deviations[index] is not None for index in indices)
            for index in indices:
                keys[index] = (means[index], deviations[index] if known else None)
            with_deviation |= len({keys[index] for index in indices}) > len({means[index] for index in indices})
    cells = [
        UNKNOWN if mean is None else f"{mean} ± {deviation}" if with_deviation and deviation is not None else str(mean)
        for mean, deviation in zip(means, deviations, strict=True)
    ]
    return Distinction(f"{kind.capitalize()} tokens", tuple(cells), tuple(keys))


@dataclass(frozen=True, order=True)
class _Measured:
    """The measured mean length of a group, and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, group: Group, kind: str) -> _Measured | None:
        """Return the mean of the successful requests; None when their lengths are unknown."""
        lengths = group.ok[f"{kind}_tokens"].astype("float64").dropna()
        if not len(lengths):
            return None
        return cls(float(lengths.mean()), float(lengths.std()) / math.sqrt(len(lengths)) if len(lengths) > 1 else 0.0)

    def exceeds(self, other: _Measured) -> bool:
        """Return whether this mean is significantly larger, and by more than the share ``ALIKE``."""
        significant = self.mean - other.mean > _ERRORS * math.hypot(self.error, other.error)
        return significant and self.mean > other.mean * (1 + ALIKE)


def _levels(lengths: Sequence[_Measured | None]) -> list[float | None]:
    """Return equal numbers for means that do not differ: the smallest mean that they do not exceed."""
    levels: dict[_Measured, float] = {}
    lowest: _Measured | None = None
    for length in sorted(length for length in lengths if length is not None):
        lowest = length if lowest is None or length.exceeds(lowest) else lowest
        levels[length] = lowest.mean
    return [None if length is None else levels[length] for length in lengths]


def _endpoints(group: StageGroup) -> set[str]:
    """Return the URLs. For ``--llm-simulator``, return a fixed word, because its port differs from run to run."""
    manifest = group.run.manifest
    simulated = {str(manifest.get("host"))} if manifest.get("simulator") else set()
    return {SIMULATED if text in simulated else text for text in group.facts.endpoints}


def _day(group: StageGroup) -> str:
    """Return the day (UTC) on which the run started; a foreign file does not have times, so use its summary's date."""
    day = group.run.started
    stamp = group.run.manifest.get("timestamp")
    if day is None and isinstance(stamp, int | float):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            day = datetime.fromtimestamp(float(stamp), UTC)
    return f"{day:%Y-%m-%d}" if day is not None else ""
