"""Send one request and read its response on a pooled connection, and record the stamps for all timing columns.

The module builds HTTP/1.1 requests as bytes, parses responses with the llhttp parser that Locust installs, and does not
interpret the body. The event loop reads the response as it arrives. It parses the body later, in larger parts, and
resumes the greenlet of the request only when there is something for it to do: for each token, the code that runs when
it arrives is not in the processor's cache, so a call of the parser takes ten times as long as one of a hundred calls.

``Exchange`` uses this project's connections; ``SdkExchange`` has the same interface for a request that an SDK sends
with its own HTTP stack. SDK adapters get the exchange of the request that they send from ``CURRENT``, so the caller has
the stamps even if the SDK raises an error.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from itertools import chain, pairwise, repeat
from typing import Any, NamedTuple

import gevent
from gevent import get_hub, getcurrent
from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from llm_users.transport import clock
from llm_users.transport.connection import DEFAULT_PORTS, EMPTY_LINE, Connection, Origin
from llm_users.transport.errors import (
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    ResponseCut,
    TransportError,
    UnaskedBytes,
)
from llm_users.transport.pool import Pool

MAX_ERROR_BYTES = 1024 * 1024
"""Limit on the part of an error body that is read, because it is only used for the error message."""

MAX_WHOLE_BYTES = 64 * 1024 * 1024
"""Limit on a body that is read as a whole, such as a list of models."""

_TLS_ALERT = b"\x15\x03"
"""The first bytes of an alert: a server that expects TLS may send one in response to a request without TLS."""

MAX_HEADER_BYTES = 256 * 1024
"""Limit on the headers of a response. A normal server sends less than a hundredth of it."""

RESEND_WITHIN_S = 0.05
"""A reused connection that was already closed reports this within one round trip, so the request is sent again. A
request that fails later has reached the server, so the failure counts. The limit is twice the connection's connect
time if that is longer."""

LINGER_S = 0.1
"""Maximum time to wait for the end of the body after the last event, so that the connection can be reused."""

LATE_S = 1.0
"""Maximum time for which a body that arrives is not given to its reader. The grace periods after a finish reason are
not shorter, so that they can be measured from its arrival."""

LATE_BYTES = 128 * 1024
"""Maximum number of bytes that are not given to the reader. It decodes them in about a millisecond."""

_MOST_HELD_BYTES = 2 * LATE_BYTES
"""Limit on the bytes that are held for a reader that is busy; then the connection is not read until it continues."""

MOST_CHUNK_BYTES = 4096
"""Chunks of this size and more are left to the parser: with large pieces of data, its calls do not matter."""

_CHUNK_SIZES = {line: size for size in range(1, MOST_CHUNK_BYTES) for line in (b"%x" % size, b"%X" % size)}
"""The lines that announce a chunk, without leading zeros and extensions. The last chunk (0) is not among them."""

_REPLACED = {b"accept-encoding", b"connection", b"content-length", b"transfer-encoding", b"host"}


def request_bytes(
    method: str, target: bytes, origin: Origin, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bytes:
    """Return the bytes of one request."""
    head = head_bytes(method, target, origin, headers)
    return with_body(head, body) if body or method not in ("GET", "HEAD") else head + b"\r\n"


def head_bytes(method: str, target: bytes, origin: Origin, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the request line and all headers except Content-Length.

    The request refuses compression, because a compressed stream hides the arrival times of its tokens. Raises
    ValueError for a header value with a line break.
    """
    host = next((value for name, value in headers if name.lower() == b"host"), None)
    if not host:
        host = origin.authority.encode()
        if origin.port == DEFAULT_PORTS.get(origin.scheme):
            host = host.rpartition(b":")[0]
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: " + host]
    kept = [(name, value) for name, value in headers if name.lower() not in _REPLACED]
    for name, value in kept:
        if b"\n" in value or b"\r" in value:
            raise ValueError(f"the value of the header {name.decode('latin-1')} contains a line break")
    lines += [name + b": " + value for name, value in kept]
    lines += [b"Accept-Encoding: identity", b"Connection: keep-alive", b""]
    return b"\r\n".join(lines)


def with_body(head: bytes, body: bytes) -> bytes:
    """Return the bytes of a request with this head and body."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def with_trace_headers(request: bytes, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return the bytes of a request with these additional headers, unless it already has the first of them."""
    line_end = request.index(b"\r\n") + 2
    head = request[line_end : request.index(b"\r\n\r\n") + 2]
    if f"\r\n{headers[0][0]}:".encode() in b"\r\n" + head.lower():
        return request
    added = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")
    return request[:line_end] + added + request[line_end:]


class ResponseParser(HTTPResponseParser):
    """Parse one response. ``feed`` appends pieces of the body to ``body``; ``take_body`` empties it."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.headers_complete = False
        self.complete = False
        self.body: list[bytes | bytearray] = []
        self.reason = ""
        # llhttp calls this by name; a bound method of a list avoids a Python frame per piece of body.
        self._on_body = self.body.append
        self._name = ""
        self._value: str | None = None
        self._header_bytes = 0
        self._surplus = False  # data arrived after this response

    def feed_or_refuse(self, data: bytes) -> None:
        """Call ``feed`` and convert its errors to ``ResponseCut`` or ``BadResponse``.

        ``data`` is empty at the end of the connection.
        """
        try:
            self.feed(data)
        except HTTPParseError as error:
            if self.is_over():
                self._surplus = True
                return
            if not data:
                raise ResponseCut("the connection was closed before the response was complete") from None
            if data.startswith(_TLS_ALERT):
                raise ConnectFailed("the server uses TLS on this port: write https:// in the base URL") from None
            text = error.args[0] if error.args else error  # without llhttp's number
            raise BadResponse(f"the server's response is not HTTP/1.1: {text}") from None
        if not self.headers_complete:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                raise BadResponse(f"the response's headers are longer than {MAX_HEADER_BYTES // 1024} KiB")

    def take_body(self) -> list[bytes | bytearray]:
        """Return the pieces of the body since the last call."""
        body, self.body = self.body, []
        if not self._surplus:
            self._on_body = self.body.append
        return body

    @property
    def reusable(self) -> bool:
        """True if the connection can carry another request: the response is complete, and no data followed it."""
        return self.complete and not self._surplus and not self.parser_failed() and self.should_keep_alive()

    def is_over(self) -> bool:
        """Return True if the last byte of the response has arrived."""
        return self.complete and self.headers_complete

    @property
    def is_chunked(self) -> bool:
        """True if the body has chunked framing."""
        return any(name.lower() == b"transfer-encoding" and b"chunked" in value.lower() for name, value in self.headers)

    def ends_by_itself(self) -> bool:
        """Return False if the body ends only when the connection closes, so that waiting for its end is useless."""
        return bool(self.should_keep_alive())

    # Callbacks of the parser. It may deliver names and values in several pieces.

    def _on_message_begin(self) -> None:
        if self.headers_complete:  # an unexpected second response
            self._surplus = True
            self._on_body = self._drop
        elif self.complete:  # after an interim 1xx response: start over
            self.headers.clear()
            self.complete = False
            self.reason = ""
            self.status = 0

    def _drop(self, piece: bytes | bytearray) -> None:
        pass

    def _on_status(self, text: str) -> None:
        if not self._surplus:
            self.reason += text

    def _on_header_field(self, text: str) -> None:
        if self._value is not None:
            self._store()
        if not self.headers_complete:
            self._name += text

    def _on_header_value(self, text: str) -> None:
        self._value = "" if self.headers_complete else (self._value or "") + text  # trailers are ignored

    def _on_headers_complete(self) -> None:
        if self._name:
            self._store()
        if not self._surplus:
            self.status = int(self.get_code())
            self.headers_complete = self.status >= 200

    def _on_message_complete(self) -> None:
        self.complete = True

    def _store(self) -> None:
        if not self.headers_complete:  # otherwise it is a trailer
            self.headers.append((self._name.encode("latin-1"), (self._value or "").encode("latin-1")))
        self._name, self._value = "", None


def whole_chunks(reads: Sequence[bytes]) -> list[bytes]:
    """Return the content of the first reads, as long as each one is exactly one chunk of chunked framing.

    Servers stream tokens in such reads, and one pass over many of them takes a tenth of the time of the parser's calls.
    All other reads are left to the parser. The first read must begin where a chunk begins.
    """
    parts = b"".join(reads).split(b"\r\n")
    sizes, contents = parts[::2], parts[1::2]
    count = 0
    # A content with a line break shifts the parts after it, so that it and they do not match.
    for read, size, content in zip(reads, sizes, contents, strict=False):
        length = len(content)
        if _CHUNK_SIZES.get(size) != length or len(read) != length + len(size) + 4:
            break
        count += 1
    return contents[:count]


def is_whole(read: bytes) -> bool:
    """Return True if a read consists of chunks, none of them the last one, and ends where the next chunk begins.

    It must begin where a chunk begins.
    """
    start = 0
    while start < len(read):
        end = read.find(b"\r\n", start, start + 8)
        size = _CHUNK_SIZES.get(read[start:end]) if end > 0 else None
        if size is None or read[end + 2 + size : end + 4 + size] != b"\r\n":
            return False
        start = end + 4 + size
    return True


class Arrivals(NamedTuple):
    """A part of a body, as it arrived: its pieces as HTTP's framing splits them, and the reads that contained them."""

    pieces: Sequence[bytes | bytearray]
    stamps_ns: Sequence[int]
    """For each read, the kernel's receive stamp on the monotonic clock; 0 if the kernel gave none."""
    clocks_ns: Sequence[int]
    """For each read, the monotonic clock when it returned."""
    ends: Sequence[int]
    """For each read, the number of pieces up to its end."""

    def reads(self, start: int = 0) -> Iterator[tuple[int, int, int]]:
        """Yield the two stamps and the end of each read. Omit reads that end before piece ``start``."""
        first = bisect_left(self.ends, start)
        yield from zip(self.stamps_ns[first:], self.clocks_ns[first:], self.ends[first:], strict=True)

    def stamps_of_pieces(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the two stamps of each piece."""
        stamps_ns, clocks_ns, ends = self.stamps_ns, self.clocks_ns, self.ends
        if ends[-1] != len(ends) or ends != list(range(1, len(ends) + 1)):  # a read did not contain one piece
            counts = [end - start for start, end in pairwise((0, *ends))]
            stamps_ns = list(chain.from_iterable(map(repeat, stamps_ns, counts)))
            clocks_ns = list(chain.from_iterable(map(repeat, clocks_ns, counts)))
        return stamps_ns, clocks_ns


_NOTHING = Arrivals((), (), (), ())


class Exchange:
    """One request and its stamps. All ``_ns`` values are on the monotonic clock; 0 means "did not happen"."""

    __slots__ = (
        "_at_chunk", "_clocks_ns", "_ends", "_given", "_head_reads", "_is_paused", "_last_read_ns", "_offset_ns",
        "_parses_late", "_reader", "_reads_before", "_stamps_ns", "_switch_to_hub", "_timer", "_unparsed",
        "_wakes_reader", "connect_ns", "connect_started_ns", "connection", "failure", "head", "not_before", "outcome",
        "pool", "process_at", "reads", "received", "reconnects", "response", "retries", "sent_ns", "sent_wall_ns",
        "terminator", "trace_headers",
    )  # fmt: skip

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
        self.trace_headers: tuple[tuple[str, str], ...] = ()
        """Names and values of headers that pass a trace to the server. They are not part of ``head``."""
        self.not_before: Callable[[], None] | None = None
        """Called once before the first byte is sent; it returns when the request is due. None: it is due now."""
        self.head: tuple[Origin, bytes] | None = None
        """Origin and head of this exchange's only request, set by an SDK's adapter; see ``httpx``."""
        self.outcome: ResponseParser | TransportError | None = None
        """The response or error of a request that was sent with a cached head, for the SDK that handles it next."""
        self.retries = 0  # attempts after the first, if the SDK is configured to retry
        self._reads_before = 0  # reads of earlier attempts
        self._head_reads = 0  # reads of this attempt that contained only headers
        self.process_at = LATE_BYTES
        """The number of received bytes at which the reader is resumed."""
        self.terminator = EMPTY_LINE
        """Bytes that mark the last event of the body. After them, the reader is resumed within ``LINGER_S``."""
        self.failure: TransportError | None = None
        """Why the body ended too early; None if it did not."""
        self._offset_ns = 0
        # As in ``Arrivals``, with the pieces in ``response.body``.
        self._stamps_ns: list[int] = []
        self._clocks_ns: list[int] = []
        self._ends: list[int] = []
        self._unparsed: list[Any] = []  # reads of the body that are not parsed, as in ``Connection.held``
        self._given = 0  # received bytes when the reader was last given what had arrived
        self._reader: Any = None  # the greenlet that waits
        self._wakes_reader = True  # at each read
        self._parses_late = False  # the last read of the body can be recognized without the parser
        self._at_chunk = False  # the next read of the body begins where a chunk begins
        self._is_paused = False
        self._timer: Any = None
        self._last_read_ns = 0
        self._switch_to_hub = get_hub().switch

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
        if self.trace_headers:
            request = with_trace_headers(request, self.trace_headers)
        try:
            return self._send(request)
        except ConnectionLost as error:
            # Servers close idle connections at any time, some although they advertise keep-alive (llama.cpp), some
            # with a final 408 that must not be mistaken for the response to this request.
            unasked = isinstance(error, UnaskedBytes)
            if self.reads == self._reads_before and self.pool.uses_tls(origin):
                raise ConnectFailed(f"{origin} uses TLS: write https://{origin.authority} in the base URL") from error
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

    @property
    def is_over(self) -> bool:
        """True if nothing more arrives: the response is complete, or it has failed."""
        return self.failure is not None or (self.response is not None and self.response.is_over())

    def wait(self, *, each_read: bool = True, timeout_s: float | None = None) -> bool:
        """Wait until there is something to process, or the body is over. Return False after ``timeout_s``.

        ``each_read``: resume the caller at each read. Otherwise it is resumed when ``process_at`` bytes have been
        received, ``LATE_S`` after the first read, ``LINGER_S`` after the terminator, or at the end of the body.
        """
        if self._ends or self._unparsed or self.is_over:
            return True
        assert self.connection is not None
        if self._is_paused:
            self._is_paused = False
            self.connection.start_reading(self._on_read, self._on_error)
        self._wakes_reader = each_read
        self._stop_timer()
        if timeout_s is not None:
            self._start_timer(timeout_s)
        self._reader = getcurrent()
        try:
            self._switch_to_hub()
        finally:
            self._reader = None
            self._stop_timer()
        return bool(self._ends or self._unparsed) or self.is_over

    @property
    def last_read_ns(self) -> int:
        """The monotonic clock at the last read of the response; 0 if nothing has been read."""
        if self._unparsed:
            return int(self._unparsed[-2])
        return self._clocks_ns[-1] if self._clocks_ns else self._last_read_ns

    def take(self) -> Arrivals:
        """Return what has arrived since the last call."""
        response = self.response
        assert response is not None
        self._parse(response)
        self._last_read_ns = self.last_read_ns
        arrivals = Arrivals(response.take_body(), self._stamps_ns, self._clocks_ns, self._ends)
        self._stamps_ns, self._clocks_ns, self._ends = [], [], []
        self._given = self.received
        self.process_at = self.received + LATE_BYTES
        return arrivals

    def resume_reader(self) -> None:
        """Resume the reader soon if anything has arrived that it was not given."""
        if self._reader is not None and (self._ends or self._unparsed):
            get_hub().loop.run_callback(self._wake)

    def arrivals(self) -> Iterator[Arrivals]:
        """Yield the body as it arrives. Raises a ``TransportError`` if it ends too early or is invalid.

        The connection is not released: only the caller, which interprets the body, can decide whether it is reusable.
        """
        while self._ends or self._unparsed or not self.is_over:
            self.wait()
            yield self.take()
        if self.failure is not None:
            raise self.failure

    def whole_body(self) -> Iterator[bytes]:
        """Yield a body that is read as a whole, and release the connection.

        An error body ends at ``MAX_ERROR_BYTES`` or where the connection breaks, because an error with a truncated
        text is still the same error.
        """
        is_error = self.response is not None and self.response.status >= 300
        received = 0
        try:
            for arrivals in self.arrivals():
                for piece in arrivals.pieces:
                    received += len(piece)
                    yield bytes(piece)
                if is_error and received > MAX_ERROR_BYTES:
                    break
                if received > MAX_WHOLE_BYTES:
                    raise BadResponse(f"the response is longer than {MAX_WHOLE_BYTES >> 20} MiB")
        except TransportError:
            if not is_error:
                raise
        self.release()

    def drain(self) -> None:
        """Read the rest of the body after the last event, for at most ``LINGER_S``, and release the connection."""
        response = self.response
        if self.connection is not None and response is not None and response.ends_by_itself():
            end_ns = clock.now_ns() + int(LINGER_S * 1e9)
            while not self.is_over and (left_ns := end_ns - clock.now_ns()) > 0:
                self.wait(each_read=False, timeout_s=left_ns / 1e9)
                self.take()
        self.release()

    def release(self) -> None:
        """Return the connection to the pool, or close it if the response is incomplete. You can call this again."""
        if self.connection is not None:
            # Without a response, the connection is reusable if it was reserved, but not used.
            reusable = self.response.reusable if self.response is not None else not self.sent_ns
            self._end_use(reusable=reusable)

    def discard(self) -> None:
        """Close the connection in any case, because further bytes could belong to a different response."""
        if self.connection is not None:
            self._end_use(reusable=False)

    def _end_use(self, *, reusable: bool) -> None:
        assert self.connection is not None
        self._stop_timer()
        self.connection.stop_reading()
        self.connection.held = None
        self.pool.release(self.connection, reusable=reusable)
        self.connection = None

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
        self._begin_attempt()
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
        connection.start_reading(self._on_read, self._on_error)
        while not (response.headers_complete or self.is_over):
            self.wait()
        if self.failure is not None and not (response.headers_complete and self._ends):
            raise self.failure
        self.pool.answered.add(connection.origin)
        return response

    def _begin_attempt(self) -> None:
        self._reads_before, self._head_reads = self.reads, 0
        self._stamps_ns, self._clocks_ns, self._ends, self._unparsed = [], [], [], []
        self._given = self.received
        self._last_read_ns = 0
        self.failure = None

    # In the event loop.

    def _on_read(self, stamp: clock.Stamp, clock_ns: int, data: bytes) -> None:
        """Keep one read of the body (the hot path), or process one read of the headers."""
        response = self.response
        assert response is not None
        if not response.headers_complete:
            self.received += len(data)
            self._on_head(response, clock.kernel_ns(stamp), clock_ns, data)
            return
        self._unparsed += stamp, clock_ns, data
        if (
            self._wakes_reader
            or not self._parses_late
            or not data
            or data.endswith(EMPTY_LINE)  # so does the end of a body with chunked framing
        ):
            self._parse(response)
            self._react()
            return
        received = self.received + sum(map(len, self._unparsed[2::3]))
        # While the reader waits for its turn, nothing is parsed: a second of many streams would be parsed at once here.
        if received - self._given > _MOST_HELD_BYTES and self._reader is None:
            self._parse(response)
            self._react()
        elif received >= self.process_at and self._reader is not None:
            self._wake()
        elif self.terminator in data:
            self._start_timer(LINGER_S)
        elif self._timer is None:
            self._start_timer(LATE_S)
            connection = self.connection
            assert connection is not None
            connection.held, connection.rare = self._unparsed, self.terminator

    def _on_head(self, response: ResponseParser, kernel_ns: int, clock_ns: int, data: bytes) -> None:
        self._last_read_ns = clock_ns
        if data:
            self.reads += 1
        if not self._is_wanted(kernel_ns, data):
            return
        try:
            response.feed_or_refuse(data)
        except TransportError as error:
            self.failure = error
        if response.body or response.is_over():
            self._keep_read(kernel_ns - self._offset_ns if kernel_ns else 0, clock_ns, len(response.body))
        else:
            self._head_reads += 1
        self._parses_late = response.headers_complete and response.is_chunked
        _head, empty_line, rest = data.partition(EMPTY_LINE)
        self._at_chunk = self._parses_late and bool(empty_line) and is_whole(rest)
        self._react()

    def _keep_read(self, stamp_ns: int, clock_ns: int, end: int) -> None:
        self._stamps_ns.append(stamp_ns)
        self._clocks_ns.append(clock_ns)
        self._ends.append(end)

    def _parse(self, response: ResponseParser) -> None:
        """Parse the reads of the body that are not parsed yet."""
        unparsed, self._unparsed = self._unparsed, []
        if self.connection is not None:
            self.connection.held = None
        stamps, clocks_ns, reads = unparsed[::3], unparsed[1::3], unparsed[2::3]
        stamps_ns = clock.monotonic_ns(stamps, self._offset_ns)
        count, body = 0, response.body
        if self._at_chunk:
            # The parser does not see these reads: it waits for a chunk before and after them.
            chunks = whole_chunks(reads)
            count, end = len(chunks), len(body) + 1
            body += chunks
            self._stamps_ns += stamps_ns[:count]
            self._clocks_ns += clocks_ns[:count]
            self._ends += range(end, end + count)
            self.reads += count
            self.received += sum(map(len, reads[:count]))
        for stamp_ns, clock_ns, data in zip(stamps_ns[count:], clocks_ns[count:], reads[count:], strict=True):
            if data:
                self.reads += 1
                self.received += len(data)
            is_surplus, failure = response.complete, None
            try:
                response.feed_or_refuse(data)
            except TransportError as error:
                failure = self.failure = error
            if not is_surplus:
                self._keep_read(stamp_ns, clock_ns, len(body))
            if failure is not None:
                break
            self._at_chunk = self._at_chunk and is_whole(data)

    def _react(self) -> None:
        """Resume the reader, or stop reading."""
        if self.is_over:
            self._stop()
        elif self._reader is not None:
            if self._wakes_reader or self.received >= self.process_at:
                self._wake()
            elif self._timer is None:
                self._start_timer(LATE_S)
        elif self.received - self._given > _MOST_HELD_BYTES and self.connection is not None:
            self.connection.stop_reading()
            self._is_paused = True

    def _is_wanted(self, kernel_ns: int, data: bytes) -> bool:
        """Return False if the connection ends before the response begins, or data arrived before the request."""
        connection = self.connection
        assert connection is not None
        is_first = self.reads == self._reads_before + 1
        if not data:
            self.failure = ConnectionLost("the server closed the connection without a response")
        elif kernel_ns and kernel_ns < self.sent_wall_ns and connection.used and is_first and not self.clock_moved():
            self.failure = UnaskedBytes("unexpected bytes arrived before the request was sent")
        else:
            return True
        self._stop()
        return False

    def _on_error(self, error: OSError) -> None:
        message = error.strerror or str(error)
        if "CERTIFICATE_REQUIRED" in message.upper().replace(" ", "_"):  # TLS 1.3 reports it after the handshake
            message += ". Set a client certificate with --llm-client-cert or SSL_CLIENT_CERT"
        self.failure = ConnectionLost(f"the connection was lost: {message}")
        self.failure.__cause__ = error
        self._stop()

    def _stop(self) -> None:
        """Stop reading, because nothing more arrives."""
        assert self.connection is not None
        self.connection.stop_reading()
        self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.switch()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = get_hub().loop.timer(seconds)
        self._timer.start(self._wake)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


class SdkExchange:
    """One request that the SDK sends with its own HTTP stack (``--llm-transport sdk``), for comparison.

    Set ``body`` to the SDK's raw response. The stamps are the monotonic clock when the SDK returns the bytes. The SDK
    manages the connections, so reconnects and connect times cannot be observed.
    """

    connect_started_ns = 0
    connect_ns = 0
    reconnects = 0

    def __init__(self) -> None:
        self.body: Any = None  # httpx2.Response, unread
        self.sent_ns = 0
        self.sent_wall_ns = 0
        self.reads = 0
        self.received = 0  # bytes of the body
        self.retries = 0
        self.trace_headers: tuple[tuple[str, str], ...] = ()
        self.not_before: Callable[[], None] | None = None  # as in ``Exchange``
        self.process_at = 0
        self.terminator = b""
        self.failure: TransportError | None = None
        self.is_over = False
        self.last_read_ns = 0
        self._pieces: Iterator[Any] | None = None  # what remains of the body
        self._arrivals = _NOTHING

    def mark_sent(self) -> None:
        """Record t0 immediately before the SDK sends the request, which is as close as the SDK allows."""
        if self.not_before is not None:
            wait, self.not_before = self.not_before, None
            wait()
        self.sent_ns = clock.now_ns()
        self.sent_wall_ns = self.sent_ns + clock.wall_offset_ns()

    def wait(self, *, each_read: bool = True, timeout_s: float | None = None) -> bool:  # noqa: ARG002
        """Wait for one piece of the body, as in ``Exchange``. The SDK reads it in the greenlet of the caller."""
        if self._arrivals.ends or self.is_over:
            return True
        if self._pieces is None:
            self._pieces = self.pieces()
        with gevent.Timeout(timeout_s, False):  # type: ignore[arg-type]
            try:
                piece = next(self._pieces)
            except StopIteration:
                self.is_over = True
            except TransportError as error:
                self.failure, self.is_over = error, True
            else:
                self.reads += 1
                self.last_read_ns = clock.now_ns()
                self._arrivals = Arrivals([piece], [0], [self.last_read_ns], [1])
        return self.is_over or bool(self._arrivals.ends)

    def take(self) -> Arrivals:
        arrivals, self._arrivals = self._arrivals, _NOTHING
        return arrivals

    def resume_reader(self) -> None:
        """Do nothing: the reader is resumed at each piece."""

    def pieces(self) -> Iterator[Any]:
        """Yield the body in the pieces that the SDK returns."""
        import httpx2

        try:
            for piece in self.body.iter_raw():
                self.received += len(piece)
                yield bytearray(piece)
        except httpx2.RemoteProtocolError as error:
            raise ResponseCut(f"the connection was closed before the response was complete: {error}") from error
        except httpx2.TransportError as error:
            raise ConnectionLost(f"the connection was lost: {error}") from error

    def drain(self) -> None:
        """Read to the end of the body after the last event, so that the SDK can reuse the connection."""
        with contextlib.suppress(Exception), gevent.Timeout(LINGER_S, False):  # type: ignore[arg-type]
            for _piece in self._pieces or ():
                pass
        self.release()

    @property
    def body_reads(self) -> int:
        return self.reads

    def release(self) -> None:
        if self.body is not None:
            self.body.close()

    discard = release

    def clock_moved(self) -> bool:
        return False


CURRENT: ContextVar[Exchange | None] = ContextVar(
    "exchange of the request that this greenlet is about to send", default=None
)
