"""The tracebacks in what a run said."""

from __future__ import annotations


def tracebacks(said: str) -> list[str]:
    """All but Locust's own: with --processes it now and then closes its CSV files while it writes into them."""
    found = said.split("Traceback (most recent call last):")[1:]
    return [text for text in found if not ("in stats_writer" in text and "I/O operation on closed file" in text)]
