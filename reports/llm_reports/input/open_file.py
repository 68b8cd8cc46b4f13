"""Opening input files as text: plain, compressed with gzip (known by its first bytes), or standard input (``-``)."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import IO

from llm_reports.errors import InputError, unreadable
from llm_users.run_files import GZIP_SUFFIX

STDIN = Path("-")
_GZIP_MAGIC = b"\x1f\x8b"


def open_text(path: Path, *, errors: str = "strict") -> IO[str]:
    """A file as UTF-8 text with its line ends as they are; raises ``OSError``, which ``gzip`` uses for bad data too."""
    raw: IO[bytes] = io.BytesIO(_stdin_bytes()) if path == STDIN else path.open("rb")
    compressed = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    raw.seek(0)
    binary = io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb")) if compressed else raw
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors=errors, newline="")


def read_text(path: Path) -> str:
    """A whole file as text; raises ``InputError`` when it cannot be read or is not UTF-8."""
    try:
        with open_text(path) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error.reason}). Give the file as it is.") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: the compressed file is cut or damaged ({error}). Compress it again.") from error
    except OSError as error:
        raise unreadable(path, error) from error


def plain_name(path: Path) -> str:
    """The name of a file without the ending of its compression."""
    return path.name.removesuffix(GZIP_SUFFIX)


def beside(path: Path) -> Path:
    """The file of this name or, where there is none, its compressed form; the former when there is neither."""
    compressed = path.with_name(path.name + GZIP_SUFFIX)
    return compressed if compressed.is_file() and not path.exists() else path


def is_json(path: Path) -> bool:
    """Whether an input is JSON: by its name, standard input by its first character."""
    if path != STDIN:
        return plain_name(path).endswith(".json")
    return read_text(path).lstrip()[:1] in ("[", "{")


@cache
def _stdin_bytes() -> bytes:
    """All of standard input. It can be read once, and it is needed twice: to see what it is, and to read it."""
    return sys.stdin.buffer.read()
