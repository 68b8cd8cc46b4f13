"""Rules for the httpx2 clients that all users of a process share: redirects, cookies, and limits on whole bodies.

``Redirects`` and ``bound_whole_body`` are hooks of an ``httpx2.Client``; the cookie jars replace its own. The module
does not depend on an API.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from llm_users.transport.connection import DEFAULT_PORTS, Origin, origin_of
from llm_users.transport.errors import BadResponse, TransportError
from llm_users.transport.exchange import MAX_ERROR_BYTES, MAX_WHOLE_BYTES

MOST_REDIRECTS = 5

_KEEPING_THE_BODY = (307, 308)
_HOPS, _AUTHORIZATION = "llm_redirects", "llm_authorization"


class RedirectRefused(TransportError):
    """The response is a redirect that is not followed. ``code`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.code = str(status)
        self.status_code = status


class Redirects:
    """The redirects that one client follows: only within its own origin, and to origins that the user allows.

    Prompts and keys are sent only to the endpoint of the run and to these origins. ``on_request`` and ``on_response``
    are hooks of its ``httpx2.Client``.
    """

    def __init__(self, home: Origin, allowed: Collection[Origin], note: Callable[[str], object]) -> None:
        self._trusted = {home, *allowed}
        if home.scheme == "http" and home.port == DEFAULT_PORTS["http"]:  # an upgrade to https is allowed
            self._trusted.add(Origin("https", home.host, DEFAULT_PORTS["https"]))
        self._note = note
        self._noted = False

    def on_request(self, request: httpx2.Request) -> None:
        """Restore the authorization after a redirect, because httpx2 removes it for another origin."""
        if request.extensions.get(_HOPS):
            authorization = request.extensions.get(_AUTHORIZATION)
            if authorization:
                request.headers["authorization"] = authorization
        elif "authorization" in request.headers:
            request.extensions[_AUTHORIZATION] = request.headers["authorization"]

    def on_response(self, response: httpx2.Response) -> None:
        """Allow a redirect, or raise ``RedirectRefused``."""
        if not response.has_redirect_location:
            return
        request, status = response.request, response.status_code
        try:
            target = request.url.join(response.headers["location"])
        except httpx2.InvalidURL:
            target = httpx2.URL()
        if target.scheme not in DEFAULT_PORTS or not target.host:
            raise RedirectRefused(status, "the server redirects to a target that is not an http:// or https:// URL")
        origin, shown = origin_of(str(target)), _shown_url(target)
        if origin not in self._trusted:
            raise RedirectRefused(
                status,
                f"the server redirects to another origin, {origin}. The prompt and the keys were not sent there. If "
                f"this is intended, allow it with --llm-redirect-to {origin}, or set the final URL with --host",
            )
        if request.method not in ("GET", "HEAD") and status not in _KEEPING_THE_BODY:
            raise RedirectRefused(
                status,
                f"the server redirects to {shown}, and with the status {status} the request would lose its prompt "
                "(only 307 and 308 keep it). Set the final URL with --host",
            )
        hops = request.extensions[_HOPS] = int(request.extensions.get(_HOPS, 0)) + 1
        if hops > MOST_REDIRECTS:
            raise RedirectRefused(
                status, f"the server redirected {hops} times, last to {shown}. Set the final URL with --host"
            )
        if not self._noted and request.method == "POST":
            self._noted = True
            self._note(
                f"requests are redirected from {_shown_url(request.url)} to {shown}; the times of each request include "
                "one more round trip. Set the final URL with --host"
            )


def _shown_url(url: httpx2.URL) -> str:
    """Return a URL without user info and query, which may contain secrets."""
    return f"{origin_of(str(url))}{url.path}"


TRACE_HEADERS: ContextVar[tuple[tuple[str, str], ...]] = ContextVar(
    "headers that pass the trace of the request of this greenlet to the server", default=()
)


def add_trace_headers(request: httpx2.Request) -> None:
    """Add the headers in ``TRACE_HEADERS``, unless the request has them. A hook for an SDK that sends by itself."""
    for name, value in TRACE_HEADERS.get():
        request.headers.setdefault(name, value)


CURRENT_JAR: ContextVar[CookieJar | None] = ContextVar("cookies of the user that sends in this greenlet", default=None)


def no_cookies() -> CookieJar:
    """Return a jar that accepts no cookies."""
    return CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))


class UserCookies(CookieJar):
    """The jar of a shared client. It delegates to the jar of the user that sends the request (``CURRENT_JAR``).

    Load balancers use a cookie to keep a client on one replica. One jar for all users of a process would send the
    whole load to one replica.
    """

    def __iter__(self) -> Iterator[Cookie]:
        jar = CURRENT_JAR.get()
        return iter(()) if jar is None else iter(jar)

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Store the cookies of a response in the user's jar."""
        jar = CURRENT_JAR.get()
        if jar is not None:
            jar.extract_cookies(response, request)

    def add_cookie_header(self, request: Any) -> None:
        """Add the cookies of the user's jar to a request."""
        jar = CURRENT_JAR.get()
        if jar is not None:
            jar.add_cookie_header(request)


NOT_COMPRESSED = ("", "identity", "none", "utf-8")
"""Values of ``Content-Encoding`` that servers send with uncompressed bodies."""

_ZLIB = ("gzip", "x-gzip", "deflate")
_ANY_HEADER, _NO_HEADER = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS


def bound_whole_body(response: httpx2.Response) -> None:
    """Decode the body of a response that is not streamed, up to the size limit. A hook for ``httpx2.Client``.

    The limit applies to the decoded size, not to the bytes on the wire: 200 KiB of gzip can hold 200 MiB, and decoding
    them would block the process for a minute.
    """
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
        decoded: Iterable[bytes] = self._stream
        if self._encoding in _ZLIB:
            decoded = _inflated(self._stream, max_bytes)
        elif self._encoding not in NOT_COMPRESSED:
            reason = f"the body is not shown: it is compressed ({self._encoding}), which the request refused"
            decoded = [reason.encode()]
        received = 0
        for data in decoded:
            received += len(data)
            yield data
            if received > max_bytes:
                if self._is_error:
                    return
                raise BadResponse(f"the response is longer than {max_bytes >> 20} MiB")

    def close(self) -> None:
        self._stream.close()


def _inflated(stream: httpx2.SyncByteStream, max_bytes: int) -> Iterator[bytes]:
    """Yield the decompressed body in pieces of at most ``max_bytes`` bytes."""
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
