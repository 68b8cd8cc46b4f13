"""Reads the user's files as bytes, compressed or not. A file that cannot be read raises a one-line error.

It does not depend on the content of the files.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from llm_users.prompts.prompt import PromptError

_BOM = b"\xef\xbb\xbf"
# The first bytes decide, because names can be wrong: gzip (RFC 1952), bzip2 ("BZh"), xz and Zstandard (RFC 8878).
_UNPACKERS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_ZSTD, _ZIP = b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
COMPRESSED = frozenset({".gz", ".gzip", ".bz2", ".xz"})
"""Extensions that follow the extension of the content."""

# Byte order marks; UTF-32 first, because its mark starts with the mark of UTF-16.
_OTHER_TEXT = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def ending_of(file: Path) -> str:
    """Return the extension of the content of a file: ``.jsonl`` for ``a.jsonl`` and for ``a.jsonl.gz``."""
    ending = file.suffix.lower()
    return Path(file.stem).suffix.lower() if ending in COMPRESSED else ending


def stamp_of(file: Path) -> tuple[int, int] | None:
    """Return a stamp that changes with the file; None when the file cannot be read."""
    with suppress(OSError, ValueError):
        status = file.stat()
        return status.st_size, status.st_mtime_ns
    return None


def read_text(where: str, file: Path) -> bytes:
    """Return the content of a text file without compression and byte order mark.

    ``where`` is the start of the message of a ``PromptError``. The caller checks that the text is UTF-8, because it can
    name the line with the error.
    """
    with opened(where, os.fspath(file)) as content:
        return content.read().removeprefix(_BOM)


@contextmanager
def opened(where: str, name: str) -> Iterator[IO[bytes]]:
    """Open a text file for reading without its compression; errors in the block become a ``PromptError``."""
    try:
        # Not Path, because its methods raise for a name that is too long and for a home that does not exist.
        with open(os.path.expanduser(name), "rb") as raw:  # noqa: PTH111, PTH123
            head = raw.read(8)
            raw.seek(0)
            _refuse_foreign(where, head)
            unpack = next((unpack for magic, unpack in _UNPACKERS.items() if head.startswith(magic)), None)
            if unpack is None:
                yield raw
                return
            with unpack(raw) as content:
                _refuse_foreign(where, content.read(8))
                content.seek(0)
                yield content
    except PromptError:
        raise
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise PromptError(
            f"{where}: its compressed data is damaged or incomplete ({error}). Copy or download it again"
        ) from error
    except IsADirectoryError as error:
        raise PromptError(f"{where} cannot be read: it is a folder. Check the path, and set a file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise PromptError(f"{where} cannot be read: {reason}. Check the path") from error


def _refuse_foreign(where: str, head: bytes) -> None:
    for mark, encoding in _OTHER_TEXT.items():
        if head.startswith(mark):
            raise PromptError(f"{where} is {encoding} text. Save it as UTF-8")
    for magic, kind in ((_ZSTD, "with Zstandard"), (_ZIP, "as a ZIP archive")):
        if head.startswith(magic):
            raise PromptError(f"{where} is compressed {kind}. Decompress it, or compress it with gzip")
