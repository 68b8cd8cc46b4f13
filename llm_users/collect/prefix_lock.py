"""One run at a time writes the files of a prefix: a lock that ends with the process, however that ends.

The lock is on ``PREFIX_llm_run.lock``, which says who holds it and is removed when the run is over. It is an
fcntl lock, which belongs to one process: children do not hold it, and the file of a killed process blocks no run.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_users.run_files import LOCK_FILE, absolute, path_of

try:
    import fcntl
except ImportError:  # Windows has none: two runs with one prefix are not noticed there
    fcntl = None  # type: ignore[assignment]

_HELD = (errno.EACCES, errno.EAGAIN)
_held: dict[str, PrefixLock] = {}


class PrefixInUseError(OSError):
    """Another process or another environment of this process writes files of the prefix."""


class PrefixLock:
    """The right to write the files of a prefix. Get one with ``hold``."""

    def __init__(self, prefix: str, path: Path, descriptor: int | None) -> None:
        self.prefix = prefix
        self.looked_for_locust = False
        """Whether files that Locust wrote in an earlier run were looked for: later there are those of this one."""
        self._path = path
        self._descriptor = descriptor
        self._pid = os.getpid()
        self._owner: object | None = None
        self._is_writing: Callable[[], bool] = lambda: False

    @property
    def is_of_this_process(self) -> bool:
        """False in a child of the process that made it."""
        return os.getpid() == self._pid

    def claim(self, owner: object, is_writing: Callable[[], bool]) -> None:
        """One of this process's environments begins a run. Raises ``PrefixInUseError`` while another one has one."""
        if self._owner not in (None, owner) and self._is_writing():
            raise PrefixInUseError(
                f"--csv {self.prefix!r} is in use by another run of this process. Give each run its own prefix."
            )
        self._owner, self._is_writing = owner, is_writing

    def release(self) -> None:
        """Remove the file and let another process have the prefix."""
        if self._descriptor is None or not self.is_of_this_process:
            return
        try:
            if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                self._path.unlink()
        except OSError:
            pass  # the folder was removed
        os.close(self._descriptor)
        self._descriptor = None
        for key in [key for key, lock in _held.items() if lock is self]:
            del _held[key]


def hold(prefix: str) -> PrefixLock:
    """The lock of the prefix, this process's own if it has it already.

    Raises ``PrefixInUseError`` when another process has it, OSError when the file of the lock cannot be made. Where
    the file system has no locks, nothing is checked.
    """
    key = _key(prefix)
    if key in _held and _held[key].is_of_this_process:
        return _held[key]
    path = path_of(key, LOCK_FILE)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if fcntl is not None:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            said = _read(descriptor)
            os.close(descriptor)
            if error.errno in _HELD:
                raise PrefixInUseError(_refusal(prefix, path, said)) from None
            lock = PrefixLock(prefix, path, None)
            break
        if _is_at(descriptor, path):
            _write(descriptor)
            lock = PrefixLock(prefix, path, descriptor)
            atexit.register(lock.release)
            break
        os.close(descriptor)  # its holder has removed it between the two calls
    _held[key] = lock
    return lock


def _key(prefix: str) -> str:
    """One name for all spellings: to close a second descriptor of the file would end the lock of the first."""
    whole = absolute(prefix)
    folder, name = os.path.split(whole)
    return f"{Path(folder).resolve()}/{name}"


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write(descriptor: int) -> None:
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(about) + "\n").encode(), 0)
    except OSError:
        pass  # a full disk: the lock holds, its file does not say whose it is


def _read(descriptor: int) -> dict[str, Any]:
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _refusal(prefix: str, path: Path, said: dict[str, Any]) -> str:
    holder = "another process"
    if said:
        holder = f"process {said.get('pid')} on {said.get('host')} since {said.get('since')}"
    return (
        f"--csv {prefix!r} is in use by {holder} (lock {path}). Wait until that run has ended, or give another prefix "
        "with --csv FOLDER/NAME."
    )
