"""The tracebacks in what a run said."""

from __future__ import annotations


def tracebacks(said: str) -> list[str]:
    """Return the text after the first line of each traceback."""
    return said.split("Traceback (most recent call last):")[1:]
