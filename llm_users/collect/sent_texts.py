"""Which texts this machine sent to which endpoint, and when: a small file of digests in the user's state folder.

A run that sends the same texts to the same endpoint as an earlier run may be answered from the server's prefix cache;
with this file it can say so. The file holds digests and times: no text, no address and no key can be read from it.
Several runs may use it at the same time. A file that cannot be read or written costs the note and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from llm_users.collect.state_folder import read_file, replace_file, state_folder

try:
    import fcntl
except ImportError:  # Windows: without a lock, of two runs that end at the same moment one may be forgotten
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

MOST_ENTRIES = 500
"""The oldest are dropped. 500 entries take 30 kB."""

_LONGEST_S = 30 * 86400.0
"""A server keeps no prompt in its cache for a month."""

_LOCK_WAIT_S = 2.0
_LOCK_LOOK_S = 0.02


class _Register(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    format: Literal["locust-llm sent texts 1"] = "locust-llm sent texts 1"
    sent: dict[str, float] = {}  # digest to seconds since 1970


def digest_of(*parts: str) -> str:
    """32 hexadecimal digits. Parts are kept apart: ("ab", "c") and ("a", "bc") have different digests."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def last_sent(digests: Iterable[str]) -> float | None:
    """When one of these was sent last, in seconds since 1970; None when none was in the last 30 days."""
    path = _path()
    sent = _read(path).sent if path is not None else {}
    oldest = time.time() - _LONGEST_S
    return max((sent[digest] for digest in digests if sent.get(digest, 0.0) >= oldest), default=None)


def remember_sent(digests: Iterable[str]) -> None:
    """Store that these were sent just now."""
    path = _path()
    now = time.time()
    new = dict.fromkeys(digests, now)
    if path is None or not new:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            kept = {digest: at for digest, at in _read(path).sent.items() if at >= now - _LONGEST_S} | new
            newest = sorted(kept.items(), key=lambda entry: entry[1])[-MOST_ENTRIES:]
            replace_file(path, msgspec.json.encode(_Register(sent=dict(newest))) + b"\n")
    except OSError as error:
        logger.debug("%s was not written: %s", path, error)


def _path() -> Path | None:
    folder = state_folder()
    return None if folder is None else folder / "sent-texts.json"


def _read(path: Path) -> _Register:
    try:
        return msgspec.json.decode(read_file(path), type=_Register)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return _Register()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file. Raises ``OSError`` when another process holds it for longer than ``_LOCK_WAIT_S``."""
    # Not blocking: a pipe in its place must not hold up a run.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600), "rb") as file:
        limit = time.monotonic() + _LOCK_WAIT_S
        while fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise
                time.sleep(_LOCK_LOOK_S)
        yield
