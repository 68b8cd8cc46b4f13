"""Limit the decoded size of response bodies that are read as a whole: errors and lists of models.

The limit applies to the decoded size, not to the bytes on the wire: 200 KiB of gzip can hold 200 MiB, and decoding
them would block the process for a minute. The module uses httpx2's hooks and does not depend on an API.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import httpx2

from llm_users.transport.errors import BadResponse
from llm_users.transport.http1 import MAX_ERROR_BYTES, MAX_WHOLE_BYTES

NOT_COMPRESSED = ("", "identity", "none", "utf-8")
"""Values of ``Content-Encoding`` that servers send with uncompressed bodies."""

_ZLIB = ("gzip", "x-gzip", "deflate")
_ANY_HEADER, _NO_HEADER = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS


def bound_whole_body(response: httpx2.Response) -> None:
    """Decode the body of a response that is not streamed, up to the size limit. A hook for ``httpx2.Client``."""
    is_error = response.status_code >= 300
    if not is_error and response.request.method == "POST":
        return
    encoding = response.headers.get("content-encoding", "").strip().lower()
    response.headers.pop("content-encoding", None)
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _BoundedBody(response.stream, encoding, is_error=is_error)


class _BoundedBody(httpx2.SyncByteStream):
    """Yield the decoded body. An error body is cut at the limit; any other body beyond its limit raises."""

    def __init__(self, stream: httpx2.SyncByteStream, encoding: str, *, is_error: bool) -> None:
        self._stream = stream
        self._encoding = encoding
        self._is_error = is_error

    def __iter__(self) -> Iterator[bytes]:
        max_bytes = MAX_ERROR_BYTES if self._is_error else MAX_WHOLE_BYTES
        received = 0
        for data in self._decoded(max_bytes):
            received += len(data)
            yield data
            if received > max_bytes:
                if self._is_error:
                    return
                raise BadResponse(f"the response is longer than {max_bytes >> 20} MiB")

    def close(self) -> None:
        self._stream.close()

    def _decoded(self, max_bytes: int) -> Iterator[bytes]:
        """Yield the decoded body; decompression yields pieces of at most ``max_bytes`` bytes."""
        if self._encoding in NOT_COMPRESSED:
            yield from self._stream
        elif self._encoding in _ZLIB:
            yield from _inflated(self._stream, max_bytes)
        else:
            yield f"the body is not shown: it is compressed ({self._encoding}), which the request refused".encode()


def _inflated(stream: httpx2.SyncByteStream, max_bytes: int) -> Iterator[bytes]:
    decoder = zlib.decompressobj(_ANY_HEADER)
    begun = False
    for piece in stream:
        rest = piece
        while rest and not decoder.eof:
            try:
                data = decoder.decompress(rest, max_bytes)
            except zlib.error:
                if begun:
                    return  # the text that was decoded before the fault is shown
                decoder, begun = zlib.decompressobj(_NO_HEADER), True
                continue
            begun, rest = True, decoder.unconsumed_tail
            yield data
