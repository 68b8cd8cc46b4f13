"""Remembers which texts this machine sent to which endpoint, and when, in a small file in the user's state folder.

When a run sends the same texts to the same endpoint as an earlier run, the server can answer from its prefix cache;
this file makes a note about that possible. It contains only digests and times, so no text, address or key can be read
from it. Several runs can use it at the same time. If the file cannot be read or written, only the note is missing.
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
except ImportError:  # Windows: without a lock, one of two runs that end at the same moment may be lost
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

MOST_ENTRIES = 500
"""Maximum number of entries; the oldest ones are dropped. 500 entries take 30 kB."""

_LONGEST_S = 30 * 86400.0
"""Maximum age of an entry in seconds: servers do not cache prompts for a month."""

_LOCK_WAIT_S = 2.0
_LOCK_LOOK_S = 0.02


class _Register(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    format: Literal["locust-llm sent texts 1"] = "locust-llm sent texts 1"
    sent: dict[str, float] = {}  # digest to seconds since 1970


def digest_of(*parts: str) -> str:
    """Return 32 hexadecimal digits. The boundaries of parts count: ("ab", "c") and ("a", "bc") have other digests."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def last_sent(digests: Iterable[str]) -> float | None:
    """Return when one of the digests was last sent, in seconds since 1970; None if not within the last 30 days."""
    path = _path()
    sent = _read(path).sent if path is not None else {}
    oldest = time.time() - _LONGEST_S
    return max((sent[digest] for digest in digests if sent.get(digest, 0.0) >= oldest), default=None)


def remember_sent(digests: Iterable[str]) -> None:
    """Store the current time as the last send time of the digests."""
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
    # Not blocking: a pipe at this path must not block a run.
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
