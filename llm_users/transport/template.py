"""Requests that differ from an earlier one in their body only: built without the SDK, sent with the head it made.

An SDK takes half a millisecond of CPU for each request, at a few hundred per second most of what a load process does,
although nothing of what it works out changes: URL, headers, credentials. So it builds one, and is asked again whenever
an answer is anything but a plain success; it is then given what came, and does with it what it would have done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_users.transport.connection import Origin
from llm_users.transport.errors import TransportError
from llm_users.transport.exchange import Exchange
from llm_users.transport.http1 import ResponseParser, with_body

_CREDENTIALS_REFUSED = (401, 403)


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer began with. Names of headers are in lower case."""

    status_code: int
    headers: Mapping[str, str]


class RequestTemplate:
    """One per client and path; empty until ``learn`` was called after a request that succeeded."""

    def __init__(self) -> None:
        self._known: tuple[Origin, bytes] | None = None

    @property
    def known(self) -> bool:
        return self._known is not None

    def learn(self, exchange: Exchange, answer_headers: Mapping[str, str]) -> None:
        """Take over the head of the request that this exchange carried, unless the next may need another one."""
        if "set-cookie" not in answer_headers:
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
        if 200 <= response.status < 300 and "set-cookie" not in headers:
            return Head(response.status, headers)
        if response.status < 400 or response.status in _CREDENTIALS_REFUSED or "set-cookie" in headers:
            self._known = None
        exchange.outcome = response
        return None


def _readable(response: ResponseParser) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
