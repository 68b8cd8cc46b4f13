"""Send the openai SDK's requests through ``Exchange``: an implementation of httpx2's transport interface.

The module uses httpx2's interface and does not depend on the API that is called.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx2

from llm_users.transport.connection import Origin, origin_of
from llm_users.transport.errors import (
    BadResponse,
    ClientLimitReached,
    ConnectFailed,
    DeadlineExceeded,
    TransportError,
)
from llm_users.transport.exchange import CURRENT, Exchange
from llm_users.transport.http1 import (
    MAX_ERROR_BYTES,
    MAX_WHOLE_BYTES,
    ResponseParser,
    head_bytes,
    request_bytes,
    with_body,
)
from llm_users.transport.pool import Pool

__all__ = ["GeventTransport", "as_httpx"]


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
            response = _outcome_of(exchange)
            if response is None:
                wire = _wire(exchange, origin, request, body)
                response = (exchange.follow if exchange.redirected else exchange.send)(origin, wire)
        except TransportError as error:
            exchange.release()
            raise as_httpx(error, request) from error
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


def _wire(exchange: Exchange, origin: Origin, request: httpx2.Request, body: bytes) -> bytes:
    if request.method != "POST":
        return request_bytes(request.method, request.url.raw_path, origin, request.headers.raw, body)
    head = head_bytes(request.method, request.url.raw_path, origin, request.headers.raw)
    is_first = exchange.response is None and exchange.head is None  # otherwise a redirect, or another attempt
    exchange.head = (origin, head) if is_first else None
    return with_body(head, body)


def _outcome_of(exchange: Exchange) -> ResponseParser | None:
    """Return the response that this request already got, and clear it. Raises the error if the request failed."""
    outcome, exchange.outcome = exchange.outcome, None
    if isinstance(outcome, TransportError):
        raise outcome
    return outcome


class _Body(httpx2.SyncByteStream):
    """The response body for SDK code that reads it as a whole (errors, model lists)."""

    def __init__(self, exchange: Exchange, request: httpx2.Request) -> None:
        self._exchange = exchange
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        response = self._exchange.response
        is_error = response is not None and response.status >= 300
        received = 0
        try:
            for arrival in self._exchange.arrivals():
                for piece in arrival.pieces:
                    received += len(piece)
                    yield bytes(piece)
                if is_error and received > MAX_ERROR_BYTES:
                    return
                if received > MAX_WHOLE_BYTES:
                    raise BadResponse(f"the response is longer than {MAX_WHOLE_BYTES >> 20} MiB")
            self._exchange.release()
        except TransportError as error:
            if is_error:
                return  # an error with a truncated text is still the same error
            raise as_httpx(error, self._request) from error

    def close(self) -> None:
        self._exchange.release()


def as_httpx(error: TransportError, request: httpx2.Request) -> httpx2.TransportError:
    """Return httpx2's equivalent of a transport error, so that the SDK maps it to its own classes."""
    kinds: dict[type[TransportError], type[httpx2.TransportError]] = {
        ConnectFailed: httpx2.ConnectError,
        ClientLimitReached: httpx2.ConnectError,
        DeadlineExceeded: httpx2.ReadTimeout,
        BadResponse: httpx2.RemoteProtocolError,
    }
    return kinds.get(type(error), httpx2.ReadError)(str(error), request=request)
