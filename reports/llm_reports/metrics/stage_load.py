"""Loads of stages in words: as columns of a table, on an axis, in a sentence. ``StageLoad`` has the words for one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llm_users.record import StageLoad

_UNKNOWN = "-"
SPOKEN = ("Parallel requests", "Target requests/s")
"""How the columns are called beside a curve."""


def loads_in_words(loads: Iterable[StageLoad]) -> str:
    """Several of them, each kind once: ``concurrency 1, 2``, ``5, 10 requests/s``; "" for none that is known."""
    known = sorted({load for load in loads if load.is_known}, key=lambda load: load.order)
    users = ", ".join(str(load.users) for load in known if not load.is_open)
    rates = ", ".join(f"{load.rate_per_s:g}" for load in known if load.is_open)
    parts = (f"concurrency {users}" if users else "", f"{rates} requests/s" if rates else "")
    return " and ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class LoadColumns:
    """The columns of a table that say each row's load: one for each kind that is there, closed loops first."""

    users: bool
    rates: bool
    names: tuple[str, str] = ("Concurrency", "Rate")

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name, wanted in zip(self.names, (self.users, self.rates), strict=True) if wanted)

    def values(self, load: StageLoad) -> list[float | None]:
        """One row's values; ``None`` where it is of the other kind or not known."""
        wanted = ((self.users, load.users), (self.rates, load.rate_per_s))
        return [value for shown, value in wanted if shown]

    def marked(self, load: StageLoad, name: str) -> list[str]:
        """The cells of a row that is shown by another name of its load, such as one with a mark."""
        return [_UNKNOWN if kind != load.is_open else name for kind in self._kinds]

    @property
    def _kinds(self) -> list[bool]:
        return [kind for kind, wanted in ((False, self.users), (True, self.rates)) if wanted]

    def cells(self, load: StageLoad) -> list[str]:
        """The same as text."""
        return [_UNKNOWN if value is None else f"{value:g}" for value in self.values(load)]


def load_columns(loads: Iterable[StageLoad], names: tuple[str, str] = ("Concurrency", "Rate")) -> LoadColumns:
    """The columns for rows of these loads."""
    found = set(loads)
    rates = any(load.is_open for load in found)
    return LoadColumns(not rates or any(not load.is_open for load in found), rates, names)


def axis_name(loads: Iterable[StageLoad]) -> str:
    """What an axis of loads is called."""
    kinds = {load.is_open for load in loads}
    if kinds == {True}:
        return "Target rate, requests/s"
    return "Parallel requests, or target requests/s" if True in kinds else "Parallel requests"


def points_note(loads: Iterable[StageLoad]) -> str:
    """What the labels of a curve's points are."""
    kinds = {load.is_open for load in loads}
    if kinds == {True}:
        return "Points are labelled with the target rate in requests/s."
    rates = " (/s: the target rate of an open loop)" if True in kinds else ""
    return f"Points are labelled with the parallel requests{rates}."
