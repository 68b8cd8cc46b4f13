"""What can go wrong between the first byte of a connection and the last byte of a response.

``code`` is the row's ``error_code``. Messages name the peer and never hold a header or a body that we sent.
"""

from __future__ import annotations

from llm_users.outcome import CLIENT_LIMIT


class TransportError(Exception):
    """Base of the transport's errors; ``code`` is what the row says."""

    code = "reset"


class ConnectFailed(TransportError):
    """No connection: DNS, refused, unreachable, handshake, or longer than the connect timeout."""

    code = "connect"


class ClientLimitReached(ConnectFailed):
    """No connection, because this machine had no file descriptor, port or memory for one."""

    code = CLIENT_LIMIT


class DeadlineExceeded(TransportError):
    """The request took longer than its deadline."""

    code = "timeout"


class ConnectionLost(TransportError):
    """The peer reset or closed the connection before its response was complete."""

    code = "reset"


class UnaskedBytes(ConnectionLost):
    """A kept connection brought bytes before the request was sent: whatever they are, they are not its answer."""


class ResponseCut(ConnectionLost):
    """The peer closed the connection in the middle of a response body."""

    code = "truncated"


class BadResponse(TransportError):
    """What came back is not HTTP, or not a stream of the promised kind."""

    code = "malformed"
