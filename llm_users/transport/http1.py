"""Build HTTP/1.1 requests as bytes, and parse responses with the llhttp parser that Locust installs.

The module handles bytes and headers, not sockets.
"""

from __future__ import annotations

from collections.abc import Iterable

from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from llm_users.transport.connection import Origin
from llm_users.transport.errors import BadResponse, ResponseCut

MAX_ERROR_BYTES = 1024 * 1024
"""Limit on the part of an error body that is read, because it is only used for the error message."""

MAX_WHOLE_BYTES = 64 * 1024 * 1024
"""Limit on a body that is read as a whole, such as a list of models."""

MAX_HEADER_BYTES = 256 * 1024
"""Limit on the headers of a response. A normal server sends less than a hundredth of it."""

Headers = list[tuple[bytes, bytes]]

_REPLACED = {b"accept-encoding", b"connection", b"content-length", b"transfer-encoding", b"host"}


def request_bytes(
    method: str, target: bytes, origin: Origin, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bytes:
    """Return the bytes of one request."""
    head = head_bytes(method, target, origin, headers)
    return with_body(head, body) if body or method not in ("GET", "HEAD") else head + b"\r\n"


def head_bytes(method: str, target: bytes, origin: Origin, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the request line and all headers except Content-Length.

    The request refuses compression, because a compressed stream hides the arrival times of its tokens. Raises
    ValueError for a header value with a line break.
    """
    host = next((value for name, value in headers if name.lower() == b"host"), None) or _host(origin)
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: " + host]
    kept = [(name, value) for name, value in headers if name.lower() not in _REPLACED]
    for name, value in kept:
        if b"\n" in value or b"\r" in value:
            raise ValueError(f"the value of the header {name.decode('latin-1')} contains a line break")
    lines += [name + b": " + value for name, value in kept]
    lines += [b"Accept-Encoding: identity", b"Connection: keep-alive", b""]
    return b"\r\n".join(lines)


def with_body(head: bytes, body: bytes) -> bytes:
    """Return the bytes of a request with this head and body."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _host(origin: Origin) -> bytes:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    default = {"http": 80, "https": 443}.get(origin.scheme)
    return host.encode() if origin.port == default else f"{host}:{origin.port}".encode()


def _text_of(error: HTTPParseError) -> str:
    """Return the text of an llhttp error without its number."""
    return str(error.args[0] if error.args else error)


class ResponseParser(HTTPResponseParser):
    """Parse one response. ``feed`` appends pieces of the body to ``body``; the caller empties it."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: Headers = []
        self.status = 0
        self.headers_complete = False
        self.complete = False
        self.body: list[bytearray] = []
        self.reason = ""
        # llhttp calls this by name; a bound method of a list avoids a Python frame per piece of body.
        self._on_body = self.body.append
        self._name = ""
        self._value: str | None = None
        self._header_bytes = 0
        self._surplus = False  # data arrived after this response

    def feed_or_refuse(self, data: bytes) -> None:
        """Call ``feed`` and convert its errors to ``ResponseCut`` or ``BadResponse``.

        ``data`` is empty at the end of the connection.
        """
        try:
            self.feed(data)
        except HTTPParseError as error:
            if self.complete and self.headers_complete:
                self._surplus = True
                return
            if not data:
                raise ResponseCut("the connection was closed before the response was complete") from None
            raise BadResponse(f"the server's response is not HTTP/1.1: {_text_of(error)}") from None
        if not self.headers_complete:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                raise BadResponse(f"the response's headers are longer than {MAX_HEADER_BYTES // 1024} KiB")

    @property
    def reusable(self) -> bool:
        """True if the connection can carry another request: the response is complete, and no data followed it."""
        return self.complete and not self._surplus and not self.parser_failed() and self.should_keep_alive()

    def is_over(self) -> bool:
        """Return True if the last byte of the response has arrived."""
        return self.complete and self.headers_complete

    def ends_by_itself(self) -> bool:
        """Return False if the body ends only when the connection closes, so that waiting for its end is useless."""
        return bool(self.should_keep_alive())

    # Callbacks of the parser. It may deliver names and values in several pieces.

    def _on_message_begin(self) -> None:
        if self.headers_complete:  # an unexpected second response
            self._surplus = True
            self._on_body = self._drop
        elif self.complete:  # after an interim 1xx response: start over
            self.headers.clear()
            self.complete = False
            self.reason = ""
            self.status = 0

    def _drop(self, piece: bytearray) -> None:
        pass

    def _on_status(self, text: str) -> None:
        if not self._surplus:
            self.reason += text

    def _on_header_field(self, text: str) -> None:
        if self._value is not None:
            self._store()
        if not self.headers_complete:
            self._name += text

    def _on_header_value(self, text: str) -> None:
        self._value = "" if self.headers_complete else (self._value or "") + text  # trailers are ignored

    def _on_headers_complete(self) -> None:
        if self._name:
            self._store()
        if not self._surplus:
            self.status = int(self.get_code())
            self.headers_complete = self.status >= 200

    def _on_message_complete(self) -> None:
        self.complete = True

    def _store(self) -> None:
        if not self.headers_complete:  # otherwise it is a trailer
            self.headers.append((self._name.encode("latin-1"), (self._value or "").encode("latin-1")))
        self._name, self._value = "", None
