"""Images in messages: URLs are sent unchanged, files as data URIs."""

from __future__ import annotations

import base64
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from llm_users.prompts.prompt import PromptError

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)
_KEPT = 256
"""Number of files whose data URI is cached, because a task uses its image in every request."""


def image_part(image: str | PathLike[str], *, detail: str | None = None) -> dict[str, Any]:
    """Return the content part of a message for an image from a URL, a data URI or a file. Raises ``PromptError``.

    Example::

        self.chat(messages=[{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            image_part("cat.png", detail="low"),
        ]}])
    """
    name = fspath(image)
    url = name if name.startswith(("http://", "https://", "data:")) else _data_uri_of(Path(name))
    return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}}


def _data_uri_of(path: Path) -> str:
    try:
        state = path.stat()
        return _data_uri(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise PromptError(f"image {str(path)!r} cannot be read: {error.strerror}. Check the path") from error


@lru_cache(maxsize=_KEPT)
def _data_uri(path: Path, _modified_ns: int, _size: int) -> str:
    data = path.read_bytes()
    kind = next((kind for start, kind in _STARTS if data.startswith(start)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise PromptError(f"image {str(path)!r} has an unknown format. Servers accept PNG, JPEG, GIF, WebP and BMP")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
