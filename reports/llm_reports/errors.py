"""What can be wrong with an input. Every message says what was wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class InputError(Exception):
    """An input or an option that cannot be used. The message is meant for the user; the command exits with 2."""


def unreadable(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that the system would not let us read."""
    return InputError(f"{path}: cannot be read ({error.strerror or error}). Check the path and its rights.")
