"""What tells rows apart that share framework, model and load: lengths, API, endpoint, run, date, stage.

Tables, notes, legends and charts take it from here. It shows what differs between rows that would look alike, and only
that: the conditions that differ; the run, and its date when the days differ, where no condition does; the stage where
one run has the same load twice.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from llm_reports.llmperf.conditions import stated_lengths
from llm_reports.metrics.groups import Group
from llm_reports.run import named_apart

ALIKE = 0.05
"""Mean lengths within this share are taken as equal; a larger difference explains one of times by itself."""
_ERRORS = 4  # standard errors: by chance, two equal means differ by more once in 16,000 times
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
"""Columns of words, which stand on the left."""
_Classes = list[list[int]]


@dataclass(frozen=True)
class Distinction:
    """A column: its name, and the cell of each group. ``keys`` are equal where the cells mean the same."""

    name: str
    cells: tuple[str, ...]
    keys: tuple[Hashable, ...]


def distinctions(groups: Sequence[Group], *, by_load: bool = True) -> list[Distinction]:
    """The columns that tell these groups apart; none when framework, model and load do.

    ``by_load`` is false where rows of any load stand under one name, such as those of a curve.
    """
    names = [(group.framework, group.model, group.load if by_load else None) for group in groups]
    alike = _alike(names)
    if not alike:
        return []
    found = list(_conditions(groups, alike))
    alike = _refined(alike, found)
    if not alike:
        return found
    runs = list(dict.fromkeys(group.run for group in groups))
    if any(len({groups[place].run for place in places}) > 1 for places in alike):
        named = dict(zip(runs, named_apart(runs), strict=True))
        found.append(_column(RUN, [named[group.run].name for group in groups]))
        days = _column(DATE, [_day(group) for group in groups])
        if _differs(days.keys, alike):
            found.append(days)
        alike = _refined(alike, found)
    if alike:
        found.append(_column(STAGE, ["" if group.stage is None else str(group.stage) for group in groups]))
    return found


def in_words(name: str, cell: str) -> str:
    """A cell of a distinction as it stands in a sentence: ``1000 input tokens``; "" for what is not known."""
    return "" if cell == UNKNOWN else _WORDS[name].format(cell)


def words_of(found: Sequence[Distinction], place: int, *, without: Sequence[str] = ()) -> list[str]:
    """What tells one group apart, in words."""
    words = (in_words(each.name, each.cells[place]) for each in found if each.name not in without)
    return [text for text in words if text]


def labels(groups: Sequence[Group]) -> list[str]:
    """The shortest names by which the rows can be told apart."""
    candidates = (
        [group.framework or "-" for group in groups],
        [group.model or "-" for group in groups],
        [group.load.words for group in groups],
    )
    parts: list[list[str]] = [[] for _ in groups]
    for values in candidates:
        if len({tuple(part) for part in parts}) == len(groups):
            break
        if len(set(values)) > 1:
            for part, value in zip(parts, values, strict=True):
                part.append(value)
    found = distinctions(groups)
    for place, part in enumerate(parts):
        part.extend(words_of(found, place))
    return [" ".join(part) for part in parts]


def _conditions(groups: Sequence[Group], alike: _Classes) -> Iterator[Distinction]:
    for kind in ("input", "output"):
        lengths = _lengths(groups, alike, kind)
        if _differs(lengths.keys, alike):
            yield lengths
    for name, values in (("API", _apis), ("Endpoint", _endpoints)):
        texts = _column(name, [", ".join(sorted(values(group))) for group in groups])
        if _differs(texts.keys, alike):
            yield texts


def _alike(keys: Sequence[Hashable]) -> _Classes:
    """The places that share a key, where there are several of one."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [each for each in places.values() if len(each) > 1]


def _refined(alike: _Classes, found: Sequence[Distinction]) -> _Classes:
    """The places that are still alike with these columns."""
    parts = (_alike([tuple(each.keys[place] for each in found) for place in places]) for places in alike)
    return [[places[i] for i in part] for places, of_class in zip(alike, parts, strict=True) for part in of_class]


def _differs(keys: Sequence[Hashable], alike: _Classes) -> bool:
    """Whether two of the rows that are alike have different known values."""
    return any(len({keys[place] for place in places if keys[place] is not None}) > 1 for places in alike)


def _column(name: str, texts: Sequence[str]) -> Distinction:
    return Distinction(name, tuple(text or UNKNOWN for text in texts), tuple(text or None for text in texts))


def _lengths(groups: Sequence[Group], alike: _Classes, kind: str) -> Distinction:
    """Return the mean lengths: of the requests if every row has them, else of the answers."""
    stated = [stated_lengths(group) for group in groups]
    means = [lengths.get(f"mean_{kind}_tokens") for lengths in stated]
    deviations = [lengths.get(f"stddev_{kind}_tokens") for lengths in stated]
    keys: list[Hashable] = [None] * len(groups)
    with_deviation = False
    for places in alike:
        if len({groups[place].run for place in places}) == 1:
            continue  # the stages of one run ask for the same lengths
        if any(means[place] is None for place in places):
            measured = [_measured(groups[place], kind) for place in places]
            for place, each, level in zip(places, measured, _levels(measured), strict=True):
                means[place] = None if each is None else round(each.mean)
                deviations[place] = None
                keys[place] = level
        else:
            known = all(deviations[place] is not None for place in places)
            for place in places:
                keys[place] = (means[place], deviations[place] if known else None)
            with_deviation |= len({keys[place] for place in places}) > len({means[place] for place in places})
    cells = [
        UNKNOWN if mean is None else f"{mean} ± {deviation}" if with_deviation and deviation is not None else str(mean)
        for mean, deviation in zip(means, deviations, strict=True)
    ]
    return Distinction(f"{kind.capitalize()} tokens", tuple(cells), tuple(keys))


@dataclass(frozen=True, order=True)
class _Measured:
    """A mean length of the answers of a group, and its standard error."""

    mean: float
    error: float

    def exceeds(self, other: _Measured) -> bool:
        """Whether it is surely larger by a share that matters."""
        surely = self.mean - other.mean > _ERRORS * math.hypot(self.error, other.error)
        return surely and self.mean > other.mean * (1 + ALIKE)


def _measured(group: Group, kind: str) -> _Measured | None:
    lengths = group.ok[f"{kind}_tokens"].astype("float64").dropna()
    if not len(lengths):
        return None
    return _Measured(float(lengths.mean()), float(lengths.std()) / math.sqrt(len(lengths)) if len(lengths) > 1 else 0.0)


def _levels(found: Sequence[_Measured | None]) -> list[float | None]:
    """The same number for means that do not differ: of the smallest one that they do not exceed."""
    levels: dict[_Measured, float] = {}
    lowest: _Measured | None = None
    for each in sorted(each for each in found if each is not None):
        lowest = each if lowest is None or each.exceeds(lowest) else lowest
        levels[each] = lowest.mean
    return [None if each is None else levels[each] for each in found]


def _apis(group: Group) -> set[str]:
    return _texts(group, "api")


def _endpoints(group: Group) -> set[str]:
    """The URLs; for ``--llm-simulator``, whose port is a free one that differs from run to run, the word."""
    manifest = group.run.manifest
    simulated = {str(manifest.get("host"))} if manifest.get("simulator") else set()
    return {SIMULATED if text in simulated else text for text in _texts(group, "endpoint")}


def _texts(group: Group, column: str) -> set[str]:
    return {str(text) for text in group.measured[column].unique() if text}


def _day(group: Group) -> str:
    """The day (UTC) on which its run started; of a foreign file, which has no times, that of its summary."""
    day = group.run.started
    stamp = group.run.manifest.get("timestamp")
    if day is None and isinstance(stamp, int | float):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            day = datetime.fromtimestamp(float(stamp), UTC)
    return f"{day:%Y-%m-%d}" if day is not None else ""
