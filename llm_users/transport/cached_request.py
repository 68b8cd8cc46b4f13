"""Cache the head of a request that the SDK built, and send later requests that differ only in their body with it.

An SDK takes half a millisecond of CPU for each request. At a few hundred requests per second this is most of a
worker's work, although the result (URL, headers, credentials) does not change. So the SDK builds one request. It is
called again whenever a response is not a plain success: it then gets the response that arrived, and handles it as if
it had sent the request itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx2

from llm_users.transport.connection import Origin
from llm_users.transport.errors import TransportError
from llm_users.transport.exchange import CURRENT, Exchange
from llm_users.transport.http1 import ResponseParser, with_body
from llm_users.transport.sdk import SdkExchange

_CREDENTIALS_REFUSED = (401, 403)


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of a response. Header names are in lower case."""

    status_code: int
    headers: Mapping[str, str]


class CachedRequest:
    """The cached request of one client and path. Empty until ``learn`` is called after a successful request."""

    def __init__(self) -> None:
        self._cached: tuple[Origin, bytes] | None = None

    @property
    def known(self) -> bool:
        return self._cached is not None

    def learn(self, exchange: Exchange) -> None:
        """Cache the head of the request that this exchange sent."""
        self._cached = exchange.head

    def send(self, exchange: Exchange, body: bytes) -> Head | None:
        """Send this body and return the head of the response; None if the SDK has to handle the request.

        If the request was sent, its response or error is in ``exchange.outcome``, where the SDK's adapter reads it.
        """
        if self._cached is None:
            return None
        origin, head = self._cached
        try:
            response = exchange.send(origin, with_body(head, body))
        except TransportError as error:
            exchange.outcome = error
            return None
        headers = _lower_case_headers(response)
        if 200 <= response.status < 300:
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
        exchange.mark_sent()
        response = exchange.body = ask_sdk()
        return Head(response.status_code, response.headers)
    if cached is not None and cached.known:
        body = encode()
        head = cached.send(exchange, body) if body is not None else None
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


def _lower_case_headers(response: ResponseParser) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
