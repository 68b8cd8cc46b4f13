"""Names for the loads of several stages: table columns, an axis, a sentence. ``StageLoad`` names a single load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_users.record import StageLoad

_UNKNOWN = "-"
LENGTHS = ("ISL", "OSL")
"""The names of the columns with the lengths of prompts and answers, in tokens."""
SPOKEN = ("Parallel requests", "Target requests/s")
"""The names of the columns in tables next to a curve."""


def loads_in_words(loads: Iterable[StageLoad]) -> str:
    """Return the loads in words, grouped by kind: ``concurrency 1, 2``, ``5, 10 requests/s``; "" if all are unknown."""
    known = sorted({load for load in loads if load.is_known}, key=lambda load: load.order)
    users = ", ".join(dict.fromkeys(str(load.users) for load in known if not load.is_open))
    rates = ", ".join(dict.fromkeys(load.rate_text for load in known if load.is_open))
    lengths = ", ".join(dict.fromkeys(load.lengths.text for load in known if load.lengths is not None))
    parts = (f"concurrency {users}" if users else "", f"{rates} requests/s" if rates else "")
    return " and ".join(filter(None, parts)) + (f" with {lengths} tokens" if lengths else "")


@dataclass(frozen=True, slots=True)
class LoadColumns:
    """The table columns with the load of each row: one column per kind of load, closed loops first.

    With ``lengths``, two columns before them have the lengths of the stage's requests: ISL and OSL, the input and
    output sequence lengths in tokens.
    """

    users: bool
    rates: bool
    names: tuple[str, str] = ("Concurrency", "Rate")
    lengths: bool = False

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""
        levels = (name for name, wanted in zip(self.names, (self.users, self.rates), strict=True) if wanted)
        return (*(LENGTHS if self.lengths else ()), *levels)

    def values(self, load: StageLoad) -> list[float | None]:
        """Return the values of one row; ``None`` for the other kind of load and for an unknown load."""
        wanted = ((self.users, load.users), (self.rates, load.rate_per_s))
        return [*self._lengths(load), *(value for shown, value in wanted if shown)]

    def marked(self, load: StageLoad, name: str) -> list[str]:
        """Return the cells of a row whose load is shown with another name, for example with remarks."""
        kinds = [kind for kind, wanted in ((False, self.users), (True, self.rates)) if wanted]
        lengths = [_UNKNOWN if tokens is None else str(tokens) for tokens in self._lengths(load)]
        return [*lengths, *(_UNKNOWN if kind != load.is_open else name for kind in kinds)]

    def cells(self, load: StageLoad) -> list[str]:
        """Return the values of one row as text."""
        if load.is_open:
            return self.marked(load, load.rate_text)
        return self.marked(load, _UNKNOWN if load.users is None else str(load.users))

    def _lengths(self, load: StageLoad) -> Sequence[int | None]:
        if not self.lengths:
            return ()
        return (None, None) if load.lengths is None else load.lengths


def load_columns(loads: Iterable[StageLoad], names: tuple[str, str] = ("Concurrency", "Rate")) -> LoadColumns:
    """Return the columns for rows with these loads."""
    unique = set(loads)
    rates = any(load.is_open for load in unique)
    lengths = any(load.lengths is not None for load in unique)
    return LoadColumns(not rates or any(not load.is_open for load in unique), rates, names, lengths)


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
