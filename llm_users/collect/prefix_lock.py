"""A lock so that only one run at a time writes the files of a prefix. It ends with the process, also after a kill.

The lock is on the file ``PREFIX_llm_run.lock``, which names the process that holds it and is removed at the end of the
run. It is an fcntl lock, which belongs to one process: children do not hold it, and the file of a killed process does
not block a run.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from llm_users.run_files import LOCK_FILE, absolute, path_of

_HELD = (errno.EACCES, errno.EAGAIN)
_held: dict[str, PrefixLock] = {}


class PrefixInUseError(OSError):
    """Another process, or another environment of this process, writes files with the prefix."""


class PrefixLock:
    """The lock of a prefix, which permits writing its files. ``hold`` returns it."""

    def __init__(self, prefix: str, path: Path, descriptor: int | None) -> None:
        self.prefix = prefix
        self.looked_for_locust = False
        """Whether the check for Locust's files of an earlier run is done: later, the files are from this run."""
        self._path = path
        self._descriptor = descriptor
        self._pid = os.getpid()
        self._owner: object | None = None
        self._is_writing: Callable[[], bool] = lambda: False

    @property
    def is_of_this_process(self) -> bool:
        """False in a child of the process that created the lock."""
        return os.getpid() == self._pid

    def claim(self, owner: object, is_writing: Callable[[], bool]) -> None:
        """Start a run of ``owner``, an environment of this process.

        Raises ``PrefixInUseError`` while a run of another environment is writing.
        """
        if self._owner not in (None, owner) and self._is_writing():
            raise PrefixInUseError(
                f"--csv {self.prefix!r} is in use by another run of this process. Give each run its own prefix."
            )
        self._owner, self._is_writing = owner, is_writing

    def release(self) -> None:
        """Remove the file and release the prefix for other processes."""
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
    """Return the lock of the prefix; a process that already holds it gets the same lock again.

    Raises ``PrefixInUseError`` when another process holds the lock, OSError when the lock file cannot be created. On a
    file system without locks, there is no check.
    """
    # One name for all spellings: closing a second descriptor of the file would release the lock of the first one.
    folder, name = os.path.split(absolute(prefix))
    key = f"{Path(folder).resolve()}/{name}"
    if key in _held and _held[key].is_of_this_process:
        return _held[key]
    path = path_of(key, LOCK_FILE)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            try:
                about = json.loads(os.pread(descriptor, 4096, 0))
                holder = f"process {about['pid']} on {about['host']} since {about['since']}"
            except (OSError, ValueError, LookupError, TypeError):
                holder = "another process"
            os.close(descriptor)
            if error.errno in _HELD:
                raise PrefixInUseError(
                    f"--csv {prefix!r} is in use by {holder} (lock {path}). Wait until that run has ended, or set "
                    "another prefix with --csv FOLDER/NAME."
                ) from None
            lock = PrefixLock(prefix, path, None)
            break
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
                with contextlib.suppress(OSError):  # a full disk: the lock works, but its file does not name the holder
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, (json.dumps(about) + "\n").encode(), 0)
                lock = PrefixLock(prefix, path, descriptor)
                atexit.register(lock.release)
                break
        os.close(descriptor)  # its holder removed the file between the two calls
    _held[key] = lock
    return lock
