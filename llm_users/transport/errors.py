"""The transport's errors, from the first byte of a connection to the last byte of a response.

``code`` is the row's ``error_code``. Messages name the peer and never contain a header or a body that we sent.
"""

from __future__ import annotations

from llm_users.outcome import CLIENT_LIMIT, NOT_CONNECTED


class TransportError(Exception):
    """Base class of the transport's errors. ``code`` is the row's ``error_code``."""

    code = "reset"


class ConnectFailed(TransportError):
    """The connection failed: DNS, refused, unreachable, handshake, or connect timeout."""

    code = NOT_CONNECTED


class ClientLimitReached(ConnectFailed):
    """The connection failed because this machine had no file descriptor, port or memory for it."""

    code = CLIENT_LIMIT


class DeadlineExceeded(TransportError):
    """The request took longer than its deadline."""

    code = "timeout"


class Stalled(DeadlineExceeded):
    """The peer sent no bytes for longer than ``--llm-stall-timeout``."""

    code = "stalled"


class ConnectionLost(TransportError):
    """The peer reset or closed the connection before its response was complete."""

    code = "reset"


class UnaskedBytes(ConnectionLost):
    """A reused connection delivered bytes before the request was sent, so they cannot be its response."""


class ResponseCut(ConnectionLost):
    """The peer closed the connection in the middle of a response body."""

    code = "truncated"


class BadResponse(TransportError):
    """The response is not HTTP, or not a stream of the announced type."""

    code = "malformed"
