"""Requests that differ from an earlier one in their body only: built without the SDK, sent with the head it made.

An SDK takes half a millisecond of CPU for each request, at a few hundred per second most of what a worker does,
although nothing of what it works out changes: URL, headers, credentials. So it builds one, and is asked again whenever
an answer is anything but a plain success; it is then given what came, and does with it what it would have done.
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
    """What an answer began with. Headers are found by their names in lower case."""

    status_code: int
    headers: Mapping[str, str]


class CachedRequest:
    """One per client and path; empty until ``learn`` was called after a request that succeeded."""

    def __init__(self) -> None:
        self._known: tuple[Origin, bytes] | None = None

    @property
    def known(self) -> bool:
        return self._known is not None

    def learn(self, exchange: Exchange) -> None:
        """Take over the head of the request that this exchange carried."""
        self._known = exchange.head

    def send(self, exchange: Exchange, body: bytes) -> Head | None:
        """The beginning of the answer to this body; None when the SDK has to be asked.

        What came of the request, if it was sent, waits in ``exchange.outcome``, where the SDK's adapter finds it.
        """
        if self._known is None:
            return None
        origin, head = self._known
        try:
            response = exchange.send(origin, with_body(head, body))
        except TransportError as error:
            exchange.outcome = error
            return None
        headers = _readable(response)
        if 200 <= response.status < 300:
            return Head(response.status, headers)
        if response.status < 400 or response.status in _CREDENTIALS_REFUSED:
            self._known = None
        exchange.outcome = response
        return None


def send(
    exchange: Exchange | SdkExchange,
    cached: CachedRequest | None,
    encode: Callable[[], bytes | None],
    ask_sdk: Callable[[], httpx2.Response],
) -> Head:
    """Send a request and return the beginning of its answer: from the cached request if possible, else with the SDK.

    ``cached`` None: each request of this client may have a head of its own. ``encode`` gives the body as the SDK
    would write it, None when only the SDK can. Raises what ``ask_sdk`` raises.
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


def _readable(response: ResponseParser) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
