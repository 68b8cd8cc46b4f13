"""Bodies that are read as a whole, errors and lists of models: bounded in what they become, not in what is sent.

200 KiB of gzip can hold 200 MiB, whose decoding would stop the process for a minute. Knows httpx2's hooks and no API.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import httpx2

from llm_users.transport.errors import BadResponse
from llm_users.transport.http1 import MAX_ERROR_BYTES, MAX_WHOLE_BYTES

NOT_COMPRESSED = ("", "identity", "none", "utf-8")
"""Values of ``Content-Encoding`` that servers send with plain bodies."""

_ZLIB = ("gzip", "x-gzip", "deflate")
_ANY_HEADER, _NO_HEADER = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS


def bound_whole_body(response: httpx2.Response) -> None:
    """A hook of ``httpx2.Client``: decode the body of an answer that is not streamed, up to the bound."""
    is_error = response.status_code >= 300
    if not is_error and response.request.method == "POST":
        return
    encoding = response.headers.get("content-encoding", "").strip().lower()
    response.headers.pop("content-encoding", None)
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Bounded(response.stream, encoding, is_error=is_error)


class _Bounded(httpx2.SyncByteStream):
    """The decoded body. Of an error the beginning is enough; another body beyond the bound raises."""

    def __init__(self, stream: httpx2.SyncByteStream, encoding: str, *, is_error: bool) -> None:
        self._stream = stream
        self._encoding = encoding
        self._is_error = is_error

    def __iter__(self) -> Iterator[bytes]:
        most = MAX_ERROR_BYTES if self._is_error else MAX_WHOLE_BYTES
        taken = 0
        for data in self._decoded(most):
            taken += len(data)
            yield data
            if taken > most:
                if self._is_error:
                    return
                raise BadResponse(f"the response is longer than {most >> 20} MiB")

    def close(self) -> None:
        self._stream.close()

    def _decoded(self, most: int) -> Iterator[bytes]:
        """Pieces of at most ``most`` bytes."""
        if self._encoding in NOT_COMPRESSED:
            yield from self._stream
        elif self._encoding in _ZLIB:
            yield from _inflated(self._stream, most)
        else:
            yield f"its text is compressed ({self._encoding}), although that was refused, and is not shown".encode()


def _inflated(stream: httpx2.SyncByteStream, most: int) -> Iterator[bytes]:
    decoder = zlib.decompressobj(_ANY_HEADER)
    begun = False
    for piece in stream:
        rest = piece
        while rest and not decoder.eof:
            try:
                data = decoder.decompress(rest, most)
            except zlib.error:
                if begun:
                    return  # what came until here is shown
                decoder, begun = zlib.decompressobj(_NO_HEADER), True
                continue
            begun, rest = True, decoder.unconsumed_tail
            yield data
