"""Notes about texts that a run sends to its endpoint again, and the register of sent texts.

Generated prompts differ from run to run, unless the options repeat those of another run. Given prompts (a fixed text, a
dataset, conversations of a file) are the same in each run: the register tells whether an earlier run on this machine
has sent them. When it has, the server can answer from its prefix cache.

The register is a small file in the user's state folder that contains only digests and times, so no text, address or key
can be read from it. Several runs can use it at the same time. If the file cannot be read or written, only the note is
missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gevent
import msgspec

from llm_users.collect.state_folder import read_file, replace_file, state_folder
from llm_users.load.worker.thread_pool import in_thread
from llm_users.options.table import Options
from llm_users.prompts import file_digest, texts_digest
from llm_users.transport.endpoint import clean_url

_MAY_ANSWER = "a prefix cache may answer them"
_ADVICE = (
    "--llm-cache-bust makes prompts differ from run to run; some servers report cached tokens only with an option "
    "(vLLM: --enable-prompt-tokens-details)"
)

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
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise
                time.sleep(_LOCK_LOOK_S)
        yield


class RepeatedTexts:
    """The texts of one run that earlier runs may have sent, for each endpoint of the run."""

    def __init__(self, options: Options, user_classes: Iterable[Any], host: str | None) -> None:
        """Read the datasets, in a thread."""
        self._options = options
        classes = [user for user in user_classes if hasattr(user, "prepare_process")]
        self._generates = False
        self._digests: list[str] = []
        if options.simulator is not None:  # the simulator starts and ends with the run and caches nothing
            return
        for conversations in {bool(user.holds_conversations) for user in classes}:
            texts = in_thread(partial(self._texts, conversations))
            if texts is not None:
                users = [user for user in classes if bool(user.holds_conversations) is conversations]
                endpoints = {endpoint for user in users for endpoint in _endpoints(options, user, host)}
                self._digests += [digest_of(url, model, *texts) for url, model in sorted(endpoints)]

    def note(self) -> str | None:
        """Return the note for the manifest and the tables, or None if no earlier run sent these texts."""
        options, sent_at = self._options, last_sent(self._digests)
        when = "" if sent_at is None else time.strftime(", last on %Y-%m-%d at %H:%M", time.localtime(sent_at))
        if self._generates and options.repeated_run_key is not None:
            same = "this seed" if options.repeat_prompts else f"this seed and --llm-run-key {options.run_key}"
            return f"the prompts repeat those of earlier runs with {same}{when}; {_MAY_ANSWER}"
        if sent_at is None:
            return None
        return f"an earlier run on this machine sent the same prompts to this endpoint{when}; {_MAY_ANSWER}. {_ADVICE}"

    def remember(self) -> None:
        """Add the texts of this run to the register."""
        gevent.get_hub().threadpool.apply(remember_sent, (self._digests,))

    def _texts(self, conversations: bool) -> tuple[str, ...] | None:
        """Return what determines the texts of a kind of user, or None if they are new in each run."""
        options = self._options
        if options.cache_bust:
            return None
        digest: str | None = None
        if conversations and options.conversations is not None:
            digest = file_digest(options.conversations)
        elif not conversations and options.prompt is not None:
            digest = digest_of("text", options.prompt)
        elif not conversations and options.prompts is not None:
            digest = texts_digest(options.prompts)
        if digest is not None and options.shared_prefix is None:
            return "given", digest
        self._generates = True
        if options.repeated_run_key is None:
            return None
        if digest is not None:  # given texts after a generated prefix
            names: tuple[str, ...] = ("given", digest)
        else:
            trace = (options.trace, str(options.trace_block_size)) if options.trace is not None else ("",)
            names = ("generated", str(conversations), str(options.output_tokens), *trace)
        return (*names, options.repeated_run_key, str(options.seed), str(options.shared_prefix))


def _endpoints(options: Options, user: Any, host: str | None) -> set[tuple[str, str]]:
    """Return (base URL, model) of all requests of a user class. An empty model means the only model of the server."""
    own = user.host or host or ""
    if user.model is None and options.targets:
        pairs = {(target.url or own, target.model or "") for target in options.targets}
    else:
        pairs = {(own, user.model or options.model or "")}
    return {(clean_url(url) if url else f"{user.__name__} {options.region}", model) for url, model in pairs}
