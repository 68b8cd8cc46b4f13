"""The table that the tests print at their end: fault, what was done, rows expected and found, message shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One fault and what became of it."""

    fault: str
    done: str
    expected: int
    found: int
    shown: str


LINES: list[Line] = []

_HEAD = ("fault", "what was done", "rows expected", "rows found", "message shown")
_SHOWN_CHARACTERS = 150


def note(fault: str, done: str, expected: int, found: int, shown: str) -> None:
    """Put a line into the table."""
    LINES.append(Line(fault, done, expected, found, shown))


def markdown() -> list[str]:
    """The table, line by line; empty when nothing was noted."""
    if not LINES:
        return []
    rows = [_HEAD, ("---",) * len(_HEAD)]
    rows += [(e.fault, e.done, str(e.expected), str(e.found), _short(e.shown)) for e in LINES]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
