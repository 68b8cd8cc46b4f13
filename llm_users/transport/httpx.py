"""Send the requests of an SDK on httpx2 through ``Exchange``, and skip the SDK where only the body is new.

``GeventTransport`` implements httpx2's transport interface. ``CachedRequest`` keeps the head of a request that the SDK
built, and sends later requests that differ only in their body with it: an SDK takes half a millisecond of CPU for each
request, although the result (URL, headers, credentials) does not change. At a few hundred requests per second this is
most of a worker's work. The SDK is called again whenever a response is not a plain success: it then gets the response
that arrived, and handles it as if it had sent the request itself. If the provider requires a signature of each request,
a ``HeadSigner`` replaces the signature in the cached head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import httpx2

from llm_users.transport.client_rules import TRACE_HEADERS
from llm_users.transport.connection import Origin, origin_of
from llm_users.transport.errors import (
    BadResponse,
    ClientLimitReached,
    ConnectFailed,
    DeadlineExceeded,
    Stalled,
    TransportError,
)
from llm_users.transport.exchange import (
    CURRENT,
    Exchange,
    SdkExchange,
    head_bytes,
    request_bytes,
    with_body,
)
from llm_users.transport.pool import Pool


class GeventTransport(httpx2.BaseTransport):
    """httpx2 transport over the process's pool. It uses the caller's exchange from ``CURRENT`` or creates one."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.scheme not in ("http", "https"):
            raise httpx2.UnsupportedProtocol(
                f"the URL must start with http:// or https://, not {request.url.scheme}://"
            )
        exchange = CURRENT.get() or Exchange(self.pool)
        origin = origin_of(str(request.url))
        body = request.read()
        try:
            response, exchange.outcome = exchange.outcome, None
            if isinstance(response, TransportError):  # of the request that was sent with a cached head
                raise response
            if response is None:
                target, headers = request.url.raw_path, request.headers.raw
                if request.method == "POST":
                    head = head_bytes(request.method, target, origin, headers)
                    # Otherwise it is a redirect, or another attempt.
                    is_first = exchange.response is None and exchange.head is None
                    exchange.head = (origin, head) if is_first else None
                    wire = with_body(head, body)
                else:
                    wire = request_bytes(request.method, target, origin, headers, body)
                response = (exchange.follow if exchange.redirected else exchange.send)(origin, wire)
        except TransportError as error:
            exchange.release()
            raise _as_httpx(error, request) from error
        except BaseException:
            exchange.release()
            raise
        return httpx2.Response(
            response.status,
            headers=response.headers,
            stream=_Body(exchange, request),
            extensions={"reason_phrase": response.reason.encode("ascii", "replace"), "http_version": b"HTTP/1.1"},
        )

    def close(self) -> None:
        """Do nothing: the pool belongs to the process and is closed with it."""


class _Body(httpx2.SyncByteStream):
    """The response body for SDK code that reads it as a whole (errors, model lists)."""

    def __init__(self, exchange: Exchange, request: httpx2.Request) -> None:
        self._exchange = exchange
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._exchange.whole_body()
        except TransportError as error:
            raise _as_httpx(error, self._request) from error

    def close(self) -> None:
        self._exchange.release()


def _as_httpx(error: TransportError, request: httpx2.Request) -> httpx2.TransportError:
    """Return httpx2's equivalent of a transport error, so that the SDK maps it to its own classes."""
    kinds: dict[type[TransportError], type[httpx2.TransportError]] = {
        ConnectFailed: httpx2.ConnectError,
        ClientLimitReached: httpx2.ConnectError,
        DeadlineExceeded: httpx2.ReadTimeout,
        Stalled: httpx2.ReadTimeout,
        BadResponse: httpx2.RemoteProtocolError,
    }
    return kinds.get(type(error), httpx2.ReadError)(str(error), request=request)


_CREDENTIALS_REFUSED = (401, 403)

SignHead = Callable[[bytes], bytes]
"""Returns a cached head that is signed for this body."""

HeadSigner = Callable[[bytes], SignHead]
"""Takes the head of a signed request and returns a function that signs this head for other bodies."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of a response. Header names are in lower case."""

    status_code: int
    headers: Mapping[str, str]


class CachedRequest:
    """The cached request of one client and path. Empty until ``learn`` is called after a successful request.

    ``signer`` is None if all requests have the same head.
    """

    def __init__(self, signer: HeadSigner | None = None) -> None:
        self._signer = signer
        self._cached: tuple[Origin, bytes] | None = None
        self._sign: SignHead | None = None

    def learn(self, exchange: Exchange) -> None:
        """Cache the head of the request that this exchange sent."""
        self._cached = exchange.head
        if self._signer is not None and exchange.head is not None:
            self._sign = self._signer(exchange.head[1])

    def send(self, exchange: Exchange, encode: Callable[[], bytes | None]) -> Head | None:
        """Send a request with the cached head and return the head of the response; None if the SDK has to handle it.

        ``encode`` returns the body as the SDK would write it, or None if only the SDK can encode it. If the request was
        sent, its response or error is in ``exchange.outcome``, where the SDK's adapter reads it.
        """
        if self._cached is None or (body := encode()) is None:
            return None
        origin, head = self._cached
        if self._sign is not None:
            head = self._sign(body)
        try:
            response = exchange.send(origin, with_body(head, body))
        except TransportError as error:
            exchange.outcome = error
            return None
        if 200 <= response.status < 300:
            headers: dict[str, str] = {}
            for raw_name, raw_value in response.headers:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            response.headers.clear()  # they are not needed again, and the answer may take minutes
            return Head(response.status, headers)
        if response.status < 400 or response.status in _CREDENTIALS_REFUSED:
            self._cached = None
        exchange.outcome = response
        return None


def send(
    exchange: Exchange | SdkExchange,
    cached: CachedRequest | None,
    encode: Callable[[], bytes | None],
    ask_sdk: Callable[[], httpx2.Response],
) -> Head:
    """Send a request, with the cached head if possible, else through the SDK; return the head of the response.

    ``cached`` is None if each request of this client may have a different head. ``encode`` returns the body as the
    SDK would write it, or None if only the SDK can encode it. Raises the exceptions of ``ask_sdk``.
    """
    if isinstance(exchange, SdkExchange):
        if exchange.trace_headers:
            TRACE_HEADERS.set(exchange.trace_headers)
        exchange.mark_sent()
        response = exchange.body = ask_sdk()
        return Head(response.status_code, response.headers)
    head = cached.send(exchange, encode) if cached is not None else None
    if head is not None:
        return head
    CURRENT.set(exchange)
    try:
        response = ask_sdk()
    finally:
        CURRENT.set(None)
    if cached is not None:
        cached.learn(exchange)
    return Head(response.status_code, response.headers)
