"""Where this user's state is kept between runs, and how its small files are read and replaced.

A file is written whole or not at all. What is read is at most a few kilobytes of a regular file: a pipe or a large
file in its place must not hold up a run.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

_NAME = "locust-llm"
_MOST_BYTES = 65536


def state_folder() -> Path | None:
    """The folder: in ``XDG_STATE_HOME``, else in the home folder; None when there is neither. It need not exist."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if state and Path(state).is_absolute():  # the specification has relative ones ignored
        return Path(state) / _NAME
    try:
        return Path.home() / ".local" / "state" / _NAME
    except RuntimeError:
        return None


def replace_file(path: Path, data: bytes) -> None:
    """Write the file, whole or not at all, and the folders above it. Raises ``OSError`` when that is not possible."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most 64 KiB. Raises ``OSError``, or ``ValueError`` for anything else."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a file")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too long")
    return data
