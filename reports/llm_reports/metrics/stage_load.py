"""Names for the loads of several stages: table columns, an axis, a sentence. ``StageLoad`` names a single load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llm_users.record import StageLoad

_UNKNOWN = "-"
SPOKEN = ("Parallel requests", "Target requests/s")
"""The names of the columns in tables next to a curve."""


def loads_in_words(loads: Iterable[StageLoad]) -> str:
    """Return the loads in words, grouped by kind: ``concurrency 1, 2``, ``5, 10 requests/s``; "" if all are unknown."""
    known = sorted({load for load in loads if load.is_known}, key=lambda load: load.order)
    users = ", ".join(str(load.users) for load in known if not load.is_open)
    rates = ", ".join(f"{load.rate_per_s:g}" for load in known if load.is_open)
    parts = (f"concurrency {users}" if users else "", f"{rates} requests/s" if rates else "")
    return " and ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class LoadColumns:
    """The table columns with the load of each row: one column per kind of load, closed loops first."""

    users: bool
    rates: bool
    names: tuple[str, str] = ("Concurrency", "Rate")

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name, wanted in zip(self.names, (self.users, self.rates), strict=True) if wanted)

    def values(self, load: StageLoad) -> list[float | None]:
        """Return the values of one row; ``None`` for the other kind of load and for an unknown load."""
        wanted = ((self.users, load.users), (self.rates, load.rate_per_s))
        return [value for shown, value in wanted if shown]

    def marked(self, load: StageLoad, name: str) -> list[str]:
        """Return the cells of a row whose load is shown with another name, for example with remarks."""
        kinds = [kind for kind, wanted in ((False, self.users), (True, self.rates)) if wanted]
        return [_UNKNOWN if kind != load.is_open else name for kind in kinds]

    def cells(self, load: StageLoad) -> list[str]:
        """Return the values of one row as text."""
        return [_UNKNOWN if value is None else f"{value:g}" for value in self.values(load)]


def load_columns(loads: Iterable[StageLoad], names: tuple[str, str] = ("Concurrency", "Rate")) -> LoadColumns:
    """Return the columns for rows with these loads."""
    unique = set(loads)
    rates = any(load.is_open for load in unique)
    return LoadColumns(not rates or any(not load.is_open for load in unique), rates, names)


def axis_name(loads: Iterable[StageLoad]) -> str:
    """Return the name of an axis of loads."""
    kinds = {load.is_open for load in loads}
    if kinds == {True}:
        return "Target rate, requests/s"
    return "Parallel requests, or target requests/s" if True in kinds else "Parallel requests"


def points_note(loads: Iterable[StageLoad]) -> str:
    """Return the note that explains the labels of the points of a curve."""
    kinds = {load.is_open for load in loads}
    if kinds == {True}:
        return "Point labels are target rates in requests/s."
    rates = " (/s: the target rate of an open loop)" if True in kinds else ""
    return f"Point labels are numbers of parallel requests{rates}."
