"""One server's ``/metrics``: a GET on the transport of the requests, bounded in time and size.

The request carries no key, no cookie and no credentials, and redirects are errors: another server's metrics would be
wrong. ``Connection.read`` returns to the event loop before each read, so the timeout works and streams continue while a
server sends without a pause.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import gevent

from llm_users.secrets import redact_start
from llm_users.transport.connection import Connection, origin_of
from llm_users.transport.errors import ConnectFailed, TransportError
from llm_users.transport.exchange import ResponseParser, request_bytes
from llm_users.transport.pool import Pool

TIMEOUT_S = 2.0
"""How long one answer may take."""

MOST_BYTES = 4 * 1024 * 1024
"""How much of an answer is read, with headers and framing. vLLM's metrics have about 50 kB."""

_TEXT_TYPES = ("text/plain", "application/openmetrics-text")
_HEADERS = (
    (b"Accept", b"text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5"),
    (b"User-Agent", b"locust-llm"),
)


class NoMetrics(Exception):
    """The endpoint gave no metrics. The message says what it did: ``answers with status 404``."""


class _TooLate(Exception):
    """The time of a request is over."""


class MetricsEndpoint:
    """The metrics of one server. ``url`` is the whole URL. ``pool`` has the TLS settings and the proxies."""

    def __init__(self, url: str, pool: Pool) -> None:
        self.url = url
        self._pool = pool
        self._origin = origin_of(url)
        parts = urlsplit(url)
        target = f"{parts.path or '/metrics'}{f'?{parts.query}' if parts.query else ''}".encode()
        self._request = request_bytes("GET", target, self._origin, _HEADERS, b"")

    def get(self) -> tuple[bytes, str]:
        """Return the text and its content type. Raises ``NoMetrics``."""
        try:
            with gevent.Timeout(TIMEOUT_S, _TooLate):
                try:
                    return self._answer(fresh=False)
                except _ClosedByServer:
                    return self._answer(fresh=True)
        except _TooLate:
            raise NoMetrics(f"did not answer within {TIMEOUT_S:g} s") from None
        except ConnectFailed as error:
            raise NoMetrics(f"cannot be reached ({redact_start(str(error), 150)})") from None
        except TransportError as error:
            raise NoMetrics(f"does not answer in HTTP ({redact_start(str(error), 120)})") from None
        except OSError as error:
            raise NoMetrics(f"cannot be reached ({redact_start(error.strerror or str(error), 100)})") from None

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def _answer(self, *, fresh: bool) -> tuple[bytes, str]:
        connection, connect_ns = self._pool.acquire(self._origin, fresh=fresh)
        reusable = False
        try:
            parser, body = self._receive(connection, is_kept=not connect_ns)
            reusable = parser.reusable
        finally:
            self._pool.release(connection, reusable=reusable)
        return body, _kind(parser)

    def _receive(self, connection: Connection, *, is_kept: bool) -> tuple[ResponseParser, bytes]:
        parser = ResponseParser()
        pieces: list[bytes | bytearray] = []
        received = 0
        try:
            connection.send(self._request)
            while not parser.is_over():
                data = connection.read().data
                received += len(data)
                if is_kept and not received:
                    raise _ClosedByServer
                if received > MOST_BYTES:
                    raise NoMetrics(f"answers with more than {MOST_BYTES // 2**20} MiB")
                parser.feed_or_refuse(data)
                if parser.headers_complete and (problem := _problem(parser)):
                    raise NoMetrics(problem)
                pieces += parser.take_body()
        except ConnectionError:
            if is_kept and not received:
                raise _ClosedByServer from None
            raise
        return parser, b"".join(pieces)


class _ClosedByServer(Exception):
    """The server closed a kept connection before it sent an answer."""


def _header(parser: ResponseParser, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in parser.headers if key.lower() == name), "")


def _kind(parser: ResponseParser) -> str:
    return _header(parser, b"content-type")


def _problem(parser: ResponseParser) -> str:
    kind = _kind(parser).partition(";")[0].strip().lower()
    if 300 <= parser.status < 400:
        where = redact_start(_header(parser, b"location"), 100)
        return f"answers with status {parser.status}, a redirect to {where or 'nowhere'}"
    if parser.status != 200:
        return f"answers with status {parser.status}"
    if (coding := _header(parser, b"content-encoding") or "identity").lower() != "identity":
        return f"answers with the content encoding {redact_start(coding, 40)}"
    if kind and kind not in _TEXT_TYPES:
        return f"answers with the content type {redact_start(kind, 80)} instead of text/plain"
    return ""
