"""Send one request and read its response on a pooled connection, and record the stamps for all timing columns.

The module handles HTTP, connections and the clock, and does not interpret the body. SDK adapters get the exchange of
the request that they send from ``CURRENT``, so the caller has the stamps even if the SDK raises an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

import gevent

from llm_users.transport import clock
from llm_users.transport.connection import Connection, Origin, Read
from llm_users.transport.errors import ConnectionLost, TransportError, UnaskedBytes
from llm_users.transport.http1 import ResponseParser
from llm_users.transport.pool import Pool

RESEND_WITHIN_S = 0.05
"""A reused connection that was already closed reports this within one round trip, so the request is sent again. A
request that fails later has reached the server, so the failure counts. The limit is twice the connection's connect
time if that is longer."""

LINGER_S = 0.1
"""Maximum time to wait for the end of the body after the last event, so that the connection can be reused."""


class Arrival(NamedTuple):
    """Body bytes from one read of the socket, in pieces as HTTP's framing splits them.

    ``stamp_ns`` is the kernel's receive stamp on the monotonic clock (0 if the kernel gave none), ``clock_ns`` is the
    monotonic clock when the read returned.
    """

    stamp_ns: int
    clock_ns: int
    pieces: list[bytearray]


class Exchange:
    """One request and its stamps. All ``_ns`` values are on the monotonic clock; 0 means "did not happen"."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.connection: Connection | None = None
        self.response: ResponseParser | None = None
        self.connect_started_ns = 0
        self.connect_ns = 0
        self.sent_ns = 0  # t0
        self.sent_wall_ns = 0
        self.reads = 0
        self.received = 0  # bytes, including headers and framing
        self.reconnects = 0
        self.not_before: Callable[[], None] | None = None
        """Called once before the first byte is sent; it returns when the request is due. None: it is due now."""
        self.head: tuple[Origin, bytes] | None = None
        """Origin and head of this exchange's only request, set by an SDK's adapter; see ``cached_request``."""
        self.outcome: ResponseParser | TransportError | None = None
        """The response or error of a request that was sent with a cached head, for the SDK that handles it next."""
        self.retries = 0  # attempts after the first, if the SDK is configured to retry
        self._reads_before = 0  # reads of earlier attempts
        self._head_reads = 0  # reads of this attempt that contained only headers
        self._offset_ns = 0
        self._early: list[Arrival] = []  # body data that arrived together with the headers
        self._early_failure: TransportError | None = None

    def reserve(self, origin: Origin, *, fresh: bool = False) -> None:
        """Acquire a connection before the request is built, so that neither step is part of the measured times."""
        self.sent_ns = 0
        self.response = None
        self.connect_started_ns = clock.now_ns()
        self.sent_wall_ns = self.connect_started_ns + clock.wall_offset_ns()
        try:
            self.connection, self.connect_ns = self.pool.acquire(origin, fresh=fresh)
        except BaseException:
            self.connect_ns = clock.now_ns() - self.connect_started_ns
            raise

    def send(self, origin: Origin, request: bytes) -> ResponseParser:
        """Send a request and read the response up to the end of the headers.

        If a reused connection was already closed, the request is sent once more on a new one. Raises
        ``ConnectionLost`` if the connection closes without a response later than ``RESEND_WITHIN_S``.
        """
        if self.connection is None or self.connection.origin != origin:
            self.release()
            self.reserve(origin)
        assert self.connection is not None
        try:
            return self._send(request)
        except ConnectionLost as error:
            # Servers close idle connections at any time, some although they advertise keep-alive (llama.cpp), some
            # with a final 408 that must not be mistaken for the response to this request.
            unasked = isinstance(error, UnaskedBytes)
            if not self.connection.used or (self.reads > self._reads_before and not unasked):
                raise
            resend_within_ns = max(int(RESEND_WITHIN_S * 1e9), 2 * self.connection.connect_ns)
            if clock.now_ns() - self.sent_ns > resend_within_ns and not unasked:
                raise
        self.release()
        self.reconnects += 1
        self.reserve(origin, fresh=True)
        return self._send(request)

    def follow(self, origin: Origin, request: bytes) -> ResponseParser:
        """Send a request to the target of a redirect. t0 and the connect times stay those of the first request."""
        first_stamps = self.sent_ns, self.sent_wall_ns, self.connect_started_ns, self.connect_ns
        try:
            return self.send(origin, request)
        finally:
            self.sent_ns, self.sent_wall_ns, self.connect_started_ns, self.connect_ns = first_stamps

    @property
    def redirected(self) -> bool:
        """True if the response to the last request is a redirect."""
        return self.response is not None and 300 <= self.response.status < 400

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the body as it arrives. Raises a ``TransportError`` if it ends too early or is invalid.

        The connection is not released: only the caller, which interprets the body, can decide whether it is reusable.
        """
        response = self.response
        assert response is not None
        yield from self._early
        self._early.clear()
        if self._early_failure is not None:
            raise self._early_failure
        connection = self.connection
        while not response.complete:
            assert connection is not None
            read = self._read(connection)
            kernel_ns = read.kernel_ns
            stamp_ns = kernel_ns - self._offset_ns if kernel_ns else 0
            failure: TransportError | None = None
            try:
                response.feed_or_refuse(read.data)
            except TransportError as error:
                failure = error
            if response.body:
                pieces = response.body[:]
                response.body.clear()
            else:
                pieces = []
            yield Arrival(stamp_ns, read.clock_ns, pieces)
            if failure is not None:  # the data before the failure is yielded first
                raise failure

    def drain(self) -> None:
        """Read the rest of the body after the last event, for at most ``LINGER_S``, and release the connection."""
        response = self.response
        if self.connection is not None and response is not None and not response.complete and response.ends_by_itself():
            with contextlib.suppress(TransportError), gevent.Timeout(LINGER_S, False):  # type: ignore[arg-type]
                for _arrival in self.arrivals():
                    pass
        self.release()

    def release(self) -> None:
        """Return the connection to the pool, or close it if the response is incomplete. You can call this again."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        response = self.response
        finished = response is None and not self.sent_ns  # reserved, but not used
        if response is not None:
            finished = response.reusable
        self.pool.release(connection, reusable=finished)

    def discard(self) -> None:
        """Close the connection in any case, because further bytes could belong to a different response."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self.pool.release(connection, reusable=False)

    @property
    def body_reads(self) -> int:
        """The number of socket reads that contained a part of the body."""
        return self.reads - self._reads_before - self._head_reads

    def clock_moved(self) -> bool:
        """Return True if the wall clock was set or slewed during the request, so that kernel stamps are unreliable."""
        return abs(clock.wall_offset_ns() - self._offset_ns) > clock.OFFSET_TOLERANCE_NS

    def _send(self, request: bytes) -> ResponseParser:
        connection = self.connection
        assert connection is not None
        self._reads_before, self._head_reads = self.reads, 0
        self._early.clear()
        self._early_failure = None
        if connection.dress is not None:
            request = connection.dress(request)
        if self.not_before is not None:
            wait, self.not_before = self.not_before, None
            wait()
        self._offset_ns = clock.wall_offset_ns()
        response = self.response = ResponseParser()
        self.sent_ns = clock.now_ns()
        self.sent_wall_ns = self.sent_ns + self._offset_ns
        try:
            connection.send(request)
        except OSError as error:
            raise ConnectionLost(
                f"the connection was lost while the request was sent: {error.strerror or error}"
            ) from error
        while not response.headers_complete:
            read = self._read(connection)
            if not read.data:
                raise ConnectionLost("the server closed the connection without a response")
            if read.kernel_ns and read.kernel_ns < self.sent_wall_ns and connection.used and self._is_unasked():
                raise UnaskedBytes("unexpected bytes arrived before the request was sent")
            try:
                response.feed_or_refuse(read.data)
            except TransportError as error:
                if not response.body:
                    raise
                self._early_failure = error
            if response.body:
                stamp_ns = read.kernel_ns - self._offset_ns if read.kernel_ns else 0
                self._early.append(Arrival(stamp_ns, read.clock_ns, response.body[:]))
                response.body.clear()
                continue
            self._head_reads += 1
            if response.is_over():
                stamp_ns = read.kernel_ns - self._offset_ns if read.kernel_ns else 0
                self._early.append(Arrival(stamp_ns, read.clock_ns, []))
        return response

    def _is_unasked(self) -> bool:
        """Return True if a stamp before the request is from the first read and is not caused by a moved clock."""
        return self.reads == self._reads_before + 1 and not self.clock_moved()

    def _read(self, connection: Connection) -> Read:
        try:
            read = connection.read()
        except OSError as error:
            raise ConnectionLost(f"the connection was lost: {_describe(error)}") from error
        if read.data:
            self.reads += 1
            self.received += len(read.data)
        return read


def _describe(error: OSError) -> str:
    message = error.strerror or str(error)
    if "CERTIFICATE_REQUIRED" in message.upper().replace(" ", "_"):  # TLS 1.3 reports this only after the handshake
        return f"{message}. Set a client certificate with --llm-client-cert or SSL_CLIENT_CERT"
    return message


CURRENT: ContextVar[Exchange | None] = ContextVar(
    "exchange of the request that this greenlet is about to send", default=None
)
