"""Opening of input files as text: plain, gzip (detected by its first bytes), or standard input (``-``)."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import IO

from llm_reports.errors import InputError
from llm_users.run_files import GZIP_SUFFIX

STDIN = Path("-")
_GZIP_MAGIC = b"\x1f\x8b"


def open_text(path: Path, *, errors: str = "strict") -> IO[str]:
    """Open a file as UTF-8 text with unchanged line ends.

    Raises ``OSError``, which ``gzip`` also uses for bad data.
    """
    raw: IO[bytes] = io.BytesIO(_stdin_bytes()) if path == STDIN else path.open("rb")
    compressed = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    raw.seek(0)
    binary = io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb")) if compressed else raw
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors=errors, newline="")


def read_text(path: Path) -> str:
    """Read a file as text; raises ``InputError`` when it cannot be read or is not UTF-8."""
    try:
        with open_text(path) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file ({error.reason}). Use the unmodified file.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError | EOFError | zlib.error) -> InputError:
    """Return the error for a damaged compressed file, or for a file that the system does not let the process read."""
    if not isinstance(error, OSError):
        return InputError(f"{path}: the compressed file is truncated or damaged ({error}). Compress it again.")
    return InputError(f"{path}: cannot be read ({error.strerror or error}). Check the path and its permissions.")


def plain_name(path: Path) -> str:
    """Return the name of a file without its compression suffix."""
    return path.name.removesuffix(GZIP_SUFFIX)


def beside(path: Path) -> Path:
    """Return the path of the compressed file if only that exists; otherwise return the path unchanged."""
    compressed = path.with_name(path.name + GZIP_SUFFIX)
    return compressed if compressed.is_file() and not path.exists() else path


def is_json(path: Path) -> bool:
    """Return whether an input is JSON: by its name, or for standard input by its first character."""
    if path != STDIN:
        return plain_name(path).endswith(".json")
    return read_text(path).lstrip()[:1] in ("[", "{")


@cache
def _stdin_bytes() -> bytes:
    """Read all of standard input. The cache allows two reads: one to detect the format, one to load the data."""
    return sys.stdin.buffer.read()
