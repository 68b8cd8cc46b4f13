"""The load of a stage, so many users in a closed loop or so many requests a second in an open one, and its names.

Everything that calls a stage by its load takes the words from here. Knows nothing of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_UNKNOWN = "-"
SPOKEN = ("Parallel requests", "Target requests/s")
"""How the columns are called beside a curve."""


@dataclass(frozen=True, slots=True)
class Load:
    """``users`` of a closed loop, or the target ``rate_per_s`` of an open one; neither where a file does not say."""

    users: int | None = None
    rate_per_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests start by a schedule, whatever the endpoint does."""
        return self.rate_per_s is not None

    @property
    def is_known(self) -> bool:
        """Whether the file says."""
        return self.is_open or self.users is not None

    @property
    def level(self) -> float | None:
        """The bare number, for an axis."""
        return self.users if self.rate_per_s is None else self.rate_per_s

    @property
    def order(self) -> tuple[bool, float]:
        """A sort key: closed loops by users, then open ones by rate."""
        return self.is_open, -1 if self.level is None else self.level

    @property
    def short(self) -> str:
        """As it stands on a point of a curve: ``8``, ``5/s``, ``?``."""
        if self.rate_per_s is not None:
            return f"{self.rate_per_s:g}/s"
        return "?" if self.users is None else str(self.users)

    @property
    def words(self) -> str:
        """As it stands in a sentence: ``concurrency 8``, ``5 requests/s``."""
        if self.rate_per_s is not None:
            return f"{self.rate_per_s:g} requests/s"
        return f"concurrency {_UNKNOWN if self.users is None else self.users}"

    @property
    def tag(self) -> str:
        """As it stands in brackets: ``8 parallel``, ``5/s``."""
        return self.short if self.is_open else f"{_UNKNOWN if self.users is None else self.users} parallel"

    @property
    def at(self) -> str:
        """The same after a name, with a space in front; "" where the file does not say."""
        return f" at {self.words}" if self.is_known else ""


def load_of(users: float | None, rate_per_s: float | None) -> Load:
    """The load that a row, a stage or a summary states; NaN and ``None`` are unknown."""
    if rate_per_s is not None and rate_per_s > 0:
        return Load(rate_per_s=float(rate_per_s))
    return Load() if users is None or math.isnan(users) else Load(int(users))


def loads_in_words(loads: Iterable[Load]) -> str:
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

    def values(self, load: Load) -> list[float | None]:
        """One row's values; ``None`` where it is of the other kind or not known."""
        wanted = ((self.users, load.users), (self.rates, load.rate_per_s))
        return [value for shown, value in wanted if shown]

    def marked(self, load: Load, name: str) -> list[str]:
        """The cells of a row that is shown by another name of its load, such as one with a mark."""
        return [_UNKNOWN if kind != load.is_open else name for kind in self._kinds]

    @property
    def _kinds(self) -> list[bool]:
        return [kind for kind, wanted in ((False, self.users), (True, self.rates)) if wanted]

    def cells(self, load: Load) -> list[str]:
        """The same as text."""
        return [_UNKNOWN if value is None else f"{value:g}" for value in self.values(load)]


def load_columns(loads: Iterable[Load], names: tuple[str, str] = ("Concurrency", "Rate")) -> LoadColumns:
    """The columns for rows of these loads."""
    found = set(loads)
    rates = any(load.is_open for load in found)
    return LoadColumns(not rates or any(not load.is_open for load in found), rates, names)


def axis_name(loads: Iterable[Load]) -> str:
    """What an axis of loads is called."""
    kinds = {load.is_open for load in loads}
    if kinds == {True}:
        return "Target rate, requests/s"
    return "Parallel requests, or target requests/s" if True in kinds else "Parallel requests"


def points_note(loads: Iterable[Load]) -> str:
    """What the labels of a curve's points are."""
    kinds = {load.is_open for load in loads}
    if kinds == {True}:
        return "Points are labelled with the target rate in requests/s."
    rates = " (/s: the target rate of an open loop)" if True in kinds else ""
    return f"Points are labelled with the parallel requests{rates}."
