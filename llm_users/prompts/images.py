"""Images in messages: from URLs, from files, or synthetic images of a given size."""

from __future__ import annotations

import base64
import os
import re
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from llm_users.prompts.chat import with_images
from llm_users.prompts.draws import shuffled, stream
from llm_users.prompts.prompt import Prompt, PromptError, PromptSource

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)
_KEPT = 256
"""Number of files whose data URI is cached, because a task uses its image in every request."""

_SIZE = 512
_LARGEST = 8192
_TILE = 32
_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"})


def image_part(image: str | PathLike[str], *, detail: str | None = None) -> dict[str, Any]:
    """Return the content part of a message for an image from a URL, a data URI or a file. Raises ``PromptError``.

    Example::

        self.chat(messages=[{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            image_part("cat.png", detail="low"),
        ]}])
    """
    url = fspath(image)
    if not url.startswith(("http://", "https://", "data:")):
        path = Path(url)
        try:
            state = path.stat()
            url = _data_uri(path, state.st_mtime_ns, state.st_size)
        except OSError as error:
            raise PromptError(f"image {str(path)!r} cannot be read: {error.strerror}. Check the path") from error
    return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}}


@lru_cache(maxsize=_KEPT)
def _data_uri(path: Path, _modified_ns: int, _size: int) -> str:
    data = path.read_bytes()
    kind = next((kind for start, kind in _STARTS if data.startswith(start)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise PromptError(f"image {str(path)!r} has an unknown format. Servers accept PNG, JPEG, GIF, WebP and BMP")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True, slots=True)
class Pictures:
    """``count`` images per prompt: from ``folder``, otherwise synthetic images of ``width`` by ``height`` pixels."""

    count: int
    width: int = _SIZE
    height: int = _SIZE
    folder: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Pictures:
        """Parse ``N``, ``NxWIDTHxHEIGHT``, ``FOLDER`` or ``N:FOLDER``. Raises ``PromptError``."""
        sizes = re.fullmatch(r"\s*(\d+)\s*(?:x\s*(\d+)\s*x\s*(\d+)\s*)?", text)
        if sizes is not None:
            count, width, height = int(sizes[1]), int(sizes[2] or _SIZE), int(sizes[3] or _SIZE)
            if count < 1 or not (1 <= width <= _LARGEST and 1 <= height <= _LARGEST):
                raise PromptError(
                    f"{text!r}: set at least 1 image of 1 to {_LARGEST} pixels per side, such as 1x512x512"
                )
            return cls(count, width, height)
        numbered = re.fullmatch(r"([1-9]\d*):(.+)", text)
        count, name = (int(numbered[1]), numbered[2]) if numbered else (1, text)
        folder = os.path.expanduser(name)  # noqa: PTH111 - the methods of Path raise for a name that is too long
        if not os.path.isdir(folder):  # noqa: PTH112
            raise PromptError(
                f"{text!r} is neither NxWIDTHxHEIGHT, such as 1x512x512, nor an existing folder of images"
            )
        return cls(count, folder=Path(folder))


class PicturedSource:
    """The prompts of ``source`` with images. ``prompt`` is a pure function of both seeds and the index.

    The order of a folder's images depends on ``seed``, synthetic images on ``text_seed``.
    """

    def __init__(self, source: PromptSource, pictures: Pictures, seed: int, text_seed: str) -> None:
        self._source, self._pictures, self._text_seed = source, pictures, text_seed
        self.different, self.notes = source.different, source.notes
        self._files: list[Path] = []
        if pictures.folder is not None:
            files = sorted(file for file in pictures.folder.iterdir() if file.suffix.lower() in _ENDINGS)
            self._files = [files[index] for index in shuffled(stream(seed, "pictures"), range(len(files)))]
            if not self._files:
                raise PromptError(f"folder {str(pictures.folder)!r} has no images ({', '.join(sorted(_ENDINGS))})")

    def prompt(self, index: int) -> Prompt:
        prompt = self._source.prompt(index)
        count = self._pictures.count
        images = [self._image(index * count + number) for number in range(count)]
        messages = with_images(prompt.messages or [{"role": "user", "content": prompt.text or ""}], images)
        # Only the server knows the number of tokens of an image.
        return Prompt(index, None, messages, None, prompt.max_tokens)

    def _image(self, number: int) -> dict[str, Any]:
        if self._files:
            return image_part(self._files[number % len(self._files)])
        data = tiles(self._text_seed, number, self._pictures.width, self._pictures.height)
        return image_part(f"data:image/png;base64,{base64.b64encode(data).decode()}")


def tiles(seed: int | str, number: int, width: int, height: int) -> bytes:
    """Return image ``number`` as a PNG with coloured tiles.

    It has 6 kB at 512 by 512 pixels, because the pixels and not the bytes determine the cost for a server.
    """
    rng = stream(seed, number, "picture")
    across, down = -(-width // _TILE), -(-height // _TILE)
    colours = bytes(int(rng.random() * 256) for _ in range(3 * across * down))
    rows = []
    for row in range(down):
        start = 3 * across * row
        line = b"".join(colours[at : at + 3] * _TILE for at in range(start, start + 3 * across, 3))[: 3 * width]
        # The first line of a row of tiles is stored directly, the others as zero difference to the one above: filter 2.
        rows += [b"\x00" + line] + [b"\x02" + bytes(3 * width)] * (min(_TILE, height - row * _TILE) - 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits of red, green and blue
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
