"""The folder with the user's state between runs, and functions that read and replace its small files.

Files are written atomically. Only regular files of at most 64 KiB are read: a pipe or a large file at the same path
must not block a run.
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
    """Return the folder in ``XDG_STATE_HOME``, otherwise in the home folder; None without both. It may not exist."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if state and Path(state).is_absolute():  # the XDG specification says to ignore relative paths
        return Path(state) / _NAME
    try:
        return Path.home() / ".local" / "state" / _NAME
    except RuntimeError:
        return None


def replace_file(path: Path, data: bytes) -> None:
    """Write the file atomically and create its parent folders. Raises ``OSError`` when that is not possible."""
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
    """Return the content of a regular file of at most 64 KiB. Raises ``OSError``, or ``ValueError`` for other files."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
    return data
