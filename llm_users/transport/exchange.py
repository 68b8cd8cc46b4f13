"""One request and its response on a pooled connection, with the stamps that everything else is computed from.

Knows HTTP, connections and the clock; not what the body means. SDK adapters find the exchange of the request they
are asked to send in ``CURRENT``, so the caller has its stamps whatever the SDK makes of the outcome.
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
"""A kept connection that was closed before the request says so within a round trip. Requests that die later had
reached the server, so their failure is the server's and counts. Twice the connection's own connect time if longer."""

LINGER_S = 0.1
"""Time spent after the last event to see the end of the body, so that the connection can be used again."""


class Arrival(NamedTuple):
    """Body bytes that one read of the socket brought, in the pieces HTTP's framing left them in.

    ``stamp_ns`` is the kernel's receive stamp on the monotonic clock (0 when the kernel gave none), ``clock_ns`` the
    monotonic clock when the read returned.
    """

    stamp_ns: int
    clock_ns: int
    pieces: list[bytearray]


class Exchange:
    """Stamps of one request. All ``_ns`` values are on the monotonic clock; 0 means "did not happen"."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.connection: Connection | None = None
        self.response: ResponseParser | None = None
        self.connect_started_ns = 0
        self.connect_ns = 0
        self.sent_ns = 0  # t0
        self.sent_wall_ns = 0
        self.reads = 0
        self.received = 0  # bytes, headers and framing included
        self.reconnects = 0
        self.not_before: Callable[[], None] | None = None
        """Called once before the first byte goes out: returns when the request is due. None: it is due at once."""
        self.head: tuple[Origin, bytes] | None = None
        """Where an SDK's adapter sent this exchange's only request, and the head it had; see ``transport.template``."""
        self.outcome: ResponseParser | TransportError | None = None
        """What came of the request when it was sent without the SDK that now wants to send it."""
        self.retries = 0  # attempts beyond the first, when the SDK was told to make some
        self._reads_before = 0  # reads of earlier attempts
        self._head_reads = 0  # reads of this attempt that brought headers and nothing else
        self._offset_ns = 0
        self._early: list[Arrival] = []  # what came together with the headers
        self._early_failure: TransportError | None = None

    def reserve(self, origin: Origin, *, fresh: bool = False) -> None:
        """Take a connection before the request is built, so that neither waiting nor building is on the clock."""
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
        """Send and read up to the end of the headers. A reused connection that was already dead is replaced, once.

        Raises ``ConnectionLost`` when the connection dies without an answer later than ``RESEND_WITHIN_S``.
        """
        if self.connection is None or self.connection.origin != origin:
            self.release()
            self.reserve(origin)
        assert self.connection is not None
        try:
            return self._send(request)
        except ConnectionLost as error:
            # Servers close idle connections whenever they like, some while advertising keep-alive (llama.cpp), some
            # with a parting word (408) that must not be taken for an answer.
            unasked = isinstance(error, UnaskedBytes)
            if not self.connection.used or (self.reads > self._reads_before and not unasked):
                raise
            patience_ns = max(int(RESEND_WITHIN_S * 1e9), 2 * self.connection.connect_ns)
            if clock.now_ns() - self.sent_ns > patience_ns and not unasked:
                raise
        self.release()
        self.reconnects += 1
        self.reserve(origin, fresh=True)
        return self._send(request)

    def follow(self, origin: Origin, request: bytes) -> ResponseParser:
        """Send a request again where the server redirected it: t0 and what came before it stay the first hop's."""
        begun = self.sent_ns, self.sent_wall_ns, self.connect_started_ns, self.connect_ns
        try:
            return self.send(origin, request)
        finally:
            self.sent_ns, self.sent_wall_ns, self.connect_started_ns, self.connect_ns = begun

    @property
    def redirected(self) -> bool:
        """True when the answer to the last request was a redirect."""
        return self.response is not None and 300 <= self.response.status < 400

    def arrivals(self) -> Iterator[Arrival]:
        """The body as it arrives. Raises ``ConnectionLost`` and its kin when it ends too early.

        The connection stays: only whoever knows what the body means can tell whether another request may have it.
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
            if failure is not None:  # what came before it was handed over first
                raise failure

    def drain(self) -> None:
        """After the last event: take the rest of the body if it is already on its way, and give the connection back."""
        response = self.response
        if self.connection is not None and response is not None and not response.complete and response.ends_by_itself():
            with contextlib.suppress(TransportError), gevent.Timeout(LINGER_S, False):  # type: ignore[arg-type]
                for _arrival in self.arrivals():
                    pass
        self.release()

    def release(self) -> None:
        """Give the connection back; one in the middle of a response is closed. Harmless when repeated."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        response = self.response
        finished = response is None and not self.sent_ns  # reserved, never used
        if response is not None:
            finished = response.reusable
        self.pool.release(connection, reusable=finished)

    def discard(self) -> None:
        """Close the connection whatever came over it: what comes next could be an answer to another request."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self.pool.release(connection, reusable=False)

    @property
    def body_reads(self) -> int:
        """Reads of the socket that brought a part of the body."""
        return self.reads - self._reads_before - self._head_reads

    def clock_moved(self) -> bool:
        """True when the wall clock was set or slewed during the request, so that kernel stamps cannot be trusted."""
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
                raise ConnectionLost("the server closed the connection without an answer")
            if read.kernel_ns and read.kernel_ns < self.sent_wall_ns and connection.used and self._is_unasked():
                raise UnaskedBytes("bytes that nobody had asked for came before the request was sent")
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
        """The first bytes have a stamp from before the request: True unless that is the clock's fault."""
        return self.reads == self._reads_before + 1 and not self.clock_moved()

    def _read(self, connection: Connection) -> Read:
        try:
            read = connection.read()
        except OSError as error:
            raise ConnectionLost(f"the connection was lost: {_words(error)}") from error
        if read.data:
            self.reads += 1
            self.received += len(read.data)
        return read


def _words(error: OSError) -> str:
    words = error.strerror or str(error)
    if "CERTIFICATE_REQUIRED" in words.upper().replace(" ", "_"):  # TLS 1.3 says so only after the handshake
        return f"{words}. Give a client certificate with --llm-client-cert or SSL_CLIENT_CERT"
    return words


CURRENT: ContextVar[Exchange | None] = ContextVar(
    "exchange of the request that this greenlet is about to send", default=None
)
