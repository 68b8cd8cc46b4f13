"""Send boto3's requests through ``Exchange`` by answering botocore's ``before-send`` event, or use boto3's own path.

botocore validates the parameters, resolves the endpoint and signs; this module sends the request. It uses botocore's
interface and does not depend on the API that is called.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

import msgspec
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ResponseStreamingError
from botocore.exceptions import ReadTimeoutError as BotoReadTimeout
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import ReadTimeoutError as PoolReadTimeout

from llm_users.transport.connection import origin_of
from llm_users.transport.errors import ConnectFailed, ConnectionLost, DeadlineExceeded, ResponseCut, TransportError
from llm_users.transport.eventstream import Message
from llm_users.transport.exchange import Exchange, SdkExchange, request_bytes
from llm_users.transport.pool import Pool
from llm_users.transport.tls import (
    CA_VARIABLES,
    CERT_VARIABLE,
    KEY_VARIABLE,
    PASSWORD_VARIABLE,
    TlsSettings,
    tls_context,
)


class Sending:
    """One call of an operation: its exchange and the number of attempts that botocore makes.

    t0 is the start of the first attempt, because the caller also waits for retries.
    """

    def __init__(self, exchange: Exchange | BotocoreExchange, *, leaves_body: bool = False) -> None:
        """Create a call. ``leaves_body``: the caller reads the body of a successful response, and botocore does not."""
        self.exchange = exchange
        self.leaves_body = leaves_body
        self.attempts = 0
        self._first_sent_ns = self._first_wall_ns = 0

    def attempted(self) -> None:
        """Update the exchange after an attempt, whatever its result. t0 stays the time of the first sent attempt."""
        exchange = self.exchange
        exchange.retries = max(0, self.attempts - 1)
        if self._first_sent_ns:
            exchange.sent_ns, exchange.sent_wall_ns = self._first_sent_ns, self._first_wall_ns
        elif exchange.sent_ns:
            self._first_sent_ns, self._first_wall_ns = exchange.sent_ns, exchange.sent_wall_ns


SENDING: ContextVar[Sending | None] = ContextVar("call that this greenlet is about to make", default=None)


def send_through(client: Any, pool: Pool) -> None:
    """Send all further requests of this client through our transport."""

    def send(request: AWSPreparedRequest, **_event: Any) -> AWSResponse:
        return _send(request, SENDING.get() or Sending(Exchange(pool)))

    _on_send(client, send)


def only_stamp(client: Any) -> None:
    """Let botocore send the requests of this client; only record t0, and add trace headers, after signing."""

    def mark(request: AWSPreparedRequest, **_event: Any) -> None:
        sending = SENDING.get()
        if sending is not None and isinstance(sending.exchange, SdkExchange):
            for name, value in sending.exchange.trace_headers:
                request.headers.setdefault(name, value)
            sending.attempts += 1
            sending.exchange.mark_sent()
            sending.attempted()

    _on_send(client, mark)


def _on_send(client: Any, handler: Callable[..., Any]) -> None:
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register_first(f"before-send.{service}.*", handler)


def _send(request: AWSPreparedRequest, sending: Sending) -> AWSResponse:
    exchange = cast(Exchange, sending.exchange)
    parts = urlsplit(request.url)
    origin = origin_of(request.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = [(_bytes(name), _bytes(value)) for name, value in request.headers.items()]
    wire = request_bytes(request.method, target.encode(), origin, headers, _bytes(request.body or b""))
    sending.attempts += 1
    try:
        response = exchange.send(origin, wire)
    except TransportError as error:
        exchange.release()
        # As botocore's own classes, so that botocore can decide on a retry. It has none for other errors.
        if isinstance(error, ConnectFailed):
            raise EndpointConnectionError(endpoint_url=request.url, error=error) from error
        if isinstance(error, ConnectionLost):
            raise ConnectionClosedError(endpoint_url=request.url, error=error) from error
        raise
    except BaseException:
        exchange.release()
        raise
    finally:
        sending.attempted()
    names = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    body = _NoBody() if sending.leaves_body and response.status < 300 else _Raw(exchange)
    return AWSResponse(request.url, response.status, names, body)


def _bytes(value: str | bytes | bytearray) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


class _Raw:
    """The response body for botocore, which reads it only when the response is an error."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def stream(self, *_size: Any, **_more: Any) -> Iterator[bytes]:
        return self._exchange.whole_body()

    def close(self) -> None:
        self._exchange.release()


class _NoBody:
    """An empty body for botocore's parser: the caller reads the body from the exchange."""

    def stream(self, *_size: Any, **_more: Any) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """Do nothing: the caller releases the exchange."""


class ParsedBody:
    """The answer of an operation without a stream that boto3 has read and parsed, as ``body`` of an exchange."""

    def __init__(self, response: dict[str, Any]) -> None:
        self._document = {name: value for name, value in response.items() if name != "ResponseMetadata"}

    def __iter__(self) -> Iterator[bytes]:
        yield msgspec.json.encode(self._document)

    def close(self) -> None:
        """Do nothing: boto3 has released the connection."""


class BotocoreExchange(SdkExchange):
    """A request that boto3 sends, reads and parses by itself. ``body`` is its event stream or its whole answer.

    Events are converted back to messages, so that the same reader serves both paths.
    """

    def pieces(self) -> Iterator[Any]:
        try:
            for event in self.body:
                if isinstance(event, bytes):  # a piece of a whole answer
                    self.received += len(event)
                    yield event
                    continue
                message = _message(event)
                self.received += len(message.payload)
                yield message
        except (PoolReadTimeout, BotoReadTimeout) as error:
            raise DeadlineExceeded(f"no data arrived within the read timeout: {error}") from error
        except (ProtocolError, ResponseStreamingError, HTTPError) as error:
            raise ResponseCut(f"the connection was closed before the response was complete: {error}") from error
        except OSError as error:
            raise ConnectionLost(f"the connection was lost: {error}") from error


def _message(event: dict[str, Any]) -> Message:
    """Return the message that boto3 parsed into this event."""
    name, content = next(iter(event.items()))
    return Message({":message-type": "event", ":event-type": name}, msgspec.json.encode(content))


def network_of(pool: Pool, url: str) -> tuple[dict[str, Any], bool | str | None]:
    """Return the arguments for a client's Config and its ``verify``, to reach this endpoint on boto3's own path.

    The rules for proxies and certificates are those of our transport. By default boto3 uses a proxy for connections to
    this machine too, and ignores SSL_CERT_FILE and the client certificate from the options.
    Raises ValueError for settings that boto3 does not support, OSError or ``ConnectFailed`` for settings that are
    wrong on any path.
    """
    config: dict[str, Any] = {"proxies": {}}  # prevents botocore from reading the environment itself
    verify = False if pool.tls.insecure else _authorities()
    origin = origin_of(url)
    proxy = pool.proxies.of(origin)
    if proxy is not None:
        proxy_url = str(proxy.origin)
        if proxy.authorization:  # boto3's form of the URL includes the user name and password
            login = base64.b64decode(proxy.authorization.partition(b" ")[2]).decode()
            user, _, password = login.partition(":")
            proxy_url = proxy_url.replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@", 1)
        config["proxies"] = {origin.scheme: proxy_url}
        if isinstance(verify, str):
            config["proxies_config"] = {"proxy_ca_bundle": verify}
    certificate = _certificate(pool.tls) if origin.scheme == "https" else None
    if certificate is not None:
        config["client_cert"] = certificate
    return config, verify


def _authorities() -> str | None:
    """Return the CA file that the environment names; None to use boto3's own."""
    for variable in CA_VARIABLES:
        path = os.environ.get(variable)
        if path and Path(path).is_dir():
            raise ValueError(
                f"{variable} names a folder, but boto3's own path reads certificates only from a file. Name a PEM "
                "file, or use --llm-transport fast"
            )
        if path:
            return path
    return None


def _certificate(settings: TlsSettings) -> str | tuple[str, str] | None:
    """Return the path of the client certificate, together with the key's path if the key is in a separate file."""
    cert, key = settings.client_cert, settings.client_key
    if cert is None:
        cert, key = os.environ.get(CERT_VARIABLE), os.environ.get(KEY_VARIABLE)
    if not cert:
        return None
    tls_context(settings)  # raises an error that says what is wrong with the files
    passwords_asked = []

    def password() -> str:
        passwords_asked.append(PASSWORD_VARIABLE)
        return os.environ.get(PASSWORD_VARIABLE, "")

    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key or None, password)
    if passwords_asked:
        raise ValueError(
            f"the key of the client certificate {cert} has a password, and boto3's own path cannot open it. Use a key "
            "without a password, or use --llm-transport fast"
        )
    return (cert, key) if key else cert
