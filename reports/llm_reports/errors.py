"""Errors for invalid inputs. Every message states what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class InputError(Exception):
    """An input or an option that cannot be used. The message is for the user; the command exits with code 2."""


def unreadable(path: Path, error: OSError) -> InputError:
    """Return the error for a file or folder that the operating system does not let the process read."""
    return InputError(f"{path}: cannot be read ({error.strerror or error}). Check the path and its permissions.")
