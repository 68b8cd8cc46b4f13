"""HTTP/1.1 codec: parses requests from a byte buffer and writes responses as bytes.

It does not depend on sockets, on time or on the JSON of any API.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
LAST_CHUNK = b"0\r\n\r\n"
_TLS_HANDSHAKE = b"\x16\x03"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_HEAD, _FIXED, _SIZE, _DATA, _TRAILER = range(5)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_HEX = re.compile(rb"[0-9a-fA-F]{1,8}")


class BadRequest(Exception):
    """The bytes are not a valid request; the connection cannot be used after it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Request:
    """One complete request. Header names are lower case; `path` and `query` are as received, not decoded."""

    method: str
    path: str
    headers: dict[str, str]
    keep_alive: bool
    can_chunk: bool
    query: str = ""
    body: bytes = b""


class RequestReader:
    """Splits a byte stream into requests without scanning parsed bytes again."""

    __slots__ = ("_body", "_buffer", "_need", "_request", "_state", "wants_continue")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body = bytearray()
        self._request: Request | None = None
        self._state = _HEAD
        self._need = 0
        self.wants_continue = False

    @property
    def waiting_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Request | None:
        """Return the next complete request, or None when more bytes are needed. Raises BadRequest."""
        while True:
            if self._state == _HEAD:
                if not self._take_head():
                    return None
            elif self._state == _FIXED:
                if len(self._buffer) < self._need:
                    return None
                self._body += self._take(self._need)
                return self._finish()
            elif self._state == _DATA:
                if len(self._buffer) < self._need + 2:
                    return None
                self._body += self._take(self._need)
                if self._take(2) != b"\r\n":
                    raise BadRequest(400, "a chunk of the request body does not end in a line break")
                self._state = _SIZE
            else:
                line = self._take_line()
                if line is None:
                    return None
                if self._state == _SIZE:
                    self._take_size(line)
                elif not line:
                    return self._finish()

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequest(400, "a line of the request body's framing is too long")
            return None
        line = self._take(end)
        del self._buffer[:2]
        return line

    def _take_size(self, line: bytes) -> None:
        digits = line.partition(b";")[0].strip()
        if not _HEX.fullmatch(digits):
            raise BadRequest(400, "a chunk of the request body has no valid size")
        self._need = int(digits, 16)
        if len(self._body) + self._need > MAX_BODY_BYTES:
            raise BadRequest(413, f"the request body is larger than {MAX_BODY_BYTES} bytes")
        self._state = _DATA if self._need else _TRAILER

    def _take_head(self) -> bool:
        while self._buffer.startswith(b"\r\n"):  # RFC 9112 2.2: ignore empty lines before a request
            del self._buffer[:2]
        if self._buffer.startswith(_TLS_HANDSHAKE):
            raise BadRequest(400, "this port does not use TLS; write http:// in the URL")
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD_BYTES:
                raise BadRequest(431, f"the request's headers are larger than {MAX_HEAD_BYTES} bytes")
            return False
        head = self._take(end).decode("latin-1")
        del self._buffer[:4]
        first_line, *lines = head.split("\r\n")
        parts = first_line.split(" ")
        if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise BadRequest(400, "the request line is not METHOD PATH HTTP/1.1")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise BadRequest(400, "a header line is not NAME: VALUE")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        is_http_1_1 = parts[2] == "HTTP/1.1"
        connection_header = headers.get("connection", "").lower()
        keep_alive = "close" not in connection_header if is_http_1_1 else "keep-alive" in connection_header
        path, _, query = parts[1].partition("?")
        self._request = Request(parts[0], path, headers, keep_alive, is_http_1_1, query)
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise BadRequest(
                    400, "unsupported framing of the request body: use chunked or Content-Length, not both"
                )
            self._state = _SIZE
        else:
            if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
                raise BadRequest(400, "Content-Length is not a number")
            self._need = int(length or 0)
            if self._need > MAX_BODY_BYTES:
                raise BadRequest(413, f"the request body is larger than {MAX_BODY_BYTES} bytes")
            self._state = _FIXED
        expects = headers.get("expect", "").lower() == "100-continue"
        self.wants_continue = expects and (coding is not None or len(self._buffer) < self._need)
        return True

    def _finish(self) -> Request:
        request = self._request
        assert request is not None
        request.body = bytes(self._body)
        self._body.clear()
        self._request, self._state, self.wants_continue = None, _HEAD, False
        return request


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Error')}", "server: llm-simulator"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def response(
    status: int,
    body: bytes,
    *,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
    keep_alive: bool = True,
) -> bytes:
    """Return a complete response with a Content-Length."""
    fields = {"content-type": content_type} if body else {}
    fields |= {"content-length": str(len(body)), "connection": "keep-alive" if keep_alive else "close"}
    return _head(status, fields | (headers or {})) + body


def stream_head(content_type: str, *, chunked: bool, keep_alive: bool, headers: dict[str, str]) -> bytes:
    """Return the head of a streamed response. Without chunks, the end of the connection ends the body."""
    fields = {"content-type": content_type, "cache-control": "no-cache"}
    fields["connection"] = "keep-alive" if chunked and keep_alive else "close"
    if chunked:
        fields["transfer-encoding"] = "chunked"
    return _head(200, fields | headers)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
