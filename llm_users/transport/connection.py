"""One TCP or TLS connection on gevent's event loop, which is read with kernel receive stamps.

The module handles bytes only. TLS runs over memory buffers, so encrypted segments are read and stamped like plain
ones.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import gevent
from gevent import get_hub, getcurrent

from llm_users.transport.clock import ANCILLARY_BYTES, Stamp, enable_stamps, kernel_ns, now_ns, stamp_of

READ_BYTES = 65536
_SMALL_BYTES = 1024
_HELD_ITEMS = 3 * 64
_BUFFERS = [bytearray(READ_BYTES)]
"""Where the event loop reads, for all connections: only what was read is copied. A new buffer of this size for each
read, which is cut afterwards, leaves the heap in pieces and costs 6 % of the CPU time per token."""
_VIEW = memoryview(_BUFFERS[0])
_PLAIN_TEXT = memoryview(bytearray(READ_BYTES))
"""The same for what TLS decrypts."""
EMPTY_LINE = b"\r\n\r\n"
DEFAULT_PORTS = {"http": 80, "https": 443}
_READ, _WRITE = 1, 2  # libev's event bits, as ``loop.io`` takes them


class Origin(NamedTuple):
    """The server of a connection. ``host`` is a name or an address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The host and port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def origin_of(url: str) -> Origin:
    """Return the scheme, host and port of a URL. A URL without a port has the default port of its scheme."""
    parts = urlsplit(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 443))


class Read(NamedTuple):
    """The result of one read: the kernel's wall-clock stamp (0 = none), the monotonic clock at return, the bytes.

    Empty ``data`` means the end of the stream.
    """

    kernel_ns: int
    clock_ns: int
    data: bytes


Take = Callable[[Stamp, int, bytes], None]
"""Called in the event loop for each read: the kernel's stamp, the monotonic clock at return, and the bytes; no bytes
mean the end of the stream. It must not block."""

Fail = Callable[[OSError], None]
"""Called in the event loop if the connection is broken. No other call follows."""


def _ignore(*_arguments: Any) -> None:
    """Take no read and no error, while a connection is not read."""


class Connection(ABC):
    """A connection that sends requests and reads responses. Only one greenlet at a time can use it.

    There are two ways to read: ``read`` waits for one read, and ``start_reading`` makes the event loop read until
    ``stop_reading``, which needs no switch to a greenlet per read.
    """

    # Slots, because a process can have 10,000 connections: without them, each takes 0.8 kB more.
    __slots__ = ("_fail", "_take", "connect_ns", "dress", "held", "origin", "rare", "stamped", "used")

    def __init__(self, origin: Origin, *, stamped: bool) -> None:
        self.dress: Callable[[bytes], bytes] | None = None
        """Converts a request before it is sent on this connection; None if it is sent unchanged."""
        self.held: list[Any] | None = None
        """A list with at least one read, to which a connection may append small reads instead of calling ``take``.

        Each read is three items, the arguments of ``take``, because the garbage collector would look at each tuple.
        The connection must call ``take`` for a read that contains ``rare`` or ends with an empty line, for the end of
        the stream, and for every 64th read.
        """
        self.rare = b""
        self._take: Take = _ignore
        self._fail: Fail = _ignore
        self.origin = origin
        self.stamped = stamped
        self.used = False  # has carried an earlier request
        self.connect_ns = 0
        """The time in ns to open the connection, including name resolution and TLS."""

    @abstractmethod
    def read(self) -> Read:
        """Wait until data arrives and read it once. Raises OSError if the connection is broken."""

    @abstractmethod
    def start_reading(self, take: Take, fail: Fail) -> None:
        """Call ``take`` in the event loop whenever data arrives, and at the end of the stream."""

    @abstractmethod
    def stop_reading(self) -> None:
        """Stop what ``start_reading`` started. You can call this more than once."""

    def _deliver(self, stamp: Stamp, clock_ns: int, data: bytes) -> None:
        """Keep a small read, or call ``take``."""
        held = self.held
        if (
            held is not None
            and 0 < len(data) < _SMALL_BYTES
            and len(held) % _HELD_ITEMS
            and self.rare not in data
            and not data.endswith(EMPTY_LINE)
        ):
            held += stamp, clock_ns, data
        else:
            self._take(stamp, clock_ns, data)

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises OSError if the connection is broken."""

    @abstractmethod
    def is_idle(self) -> bool:
        """Return True if the peer has neither closed the connection nor sent unexpected data."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection immediately. You can call this more than once."""


class PlainConnection(Connection):
    """Unencrypted bytes over a connected socket."""

    __slots__ = ("_readable", "_recvmsg", "_recvmsg_into", "_send", "_sock", "_switch_to_hub")

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        super().__init__(origin, stamped=enable_stamps(sock))
        self._sock = sock
        self._recvmsg = sock.recvmsg
        self._recvmsg_into = sock.recvmsg_into
        self._send = sock.send
        hub = get_hub()
        self._switch_to_hub: Callable[[], Any] = hub.switch
        self._readable = hub.loop.io(sock.fileno(), _READ)

    def read(self) -> Read:
        while True:
            self._wait(self._readable)
            try:
                data, ancillary, _flags, _address = self._recvmsg(READ_BYTES, ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            return Read(kernel_ns(stamp_of(ancillary)), now_ns(), data)

    def start_reading(self, take: Take, fail: Fail) -> None:
        self._take, self._fail = take, fail
        self._readable.start(self._on_readable)

    def stop_reading(self) -> None:
        self._readable.stop()
        self._take = self._fail = _ignore  # an idle connection does not keep its last request in memory

    def _on_readable(self) -> None:
        """Read once. This is the hot path: the event loop calls it for every token."""
        try:
            length, ancillary, _flags, _address = self._recvmsg_into(_BUFFERS, ANCILLARY_BYTES)
            clock_ns = now_ns()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._readable.stop()
            self._fail(error)
            return
        data = _VIEW[:length].tobytes()
        stamp = ancillary[0][2] if ancillary else b""  # see ``stamp_of``
        held = self.held
        if (  # as in ``_deliver``; the call would cost 3 % of the CPU time per token
            held is not None
            and 0 < len(data) < _SMALL_BYTES
            and len(held) % _HELD_ITEMS
            and self.rare not in data
            and not data.endswith(EMPTY_LINE)
        ):
            held += stamp, clock_ns, data
            return
        if not data:
            self._readable.stop()  # otherwise the loop would report the end of the stream again and again
        self._take(stamp, clock_ns, data)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._send(view) :]
            except (BlockingIOError, InterruptedError):
                writable = get_hub().loop.io(self._sock.fileno(), _WRITE)
                try:
                    self._wait(writable)
                finally:
                    writable.close()

    def is_idle(self) -> bool:
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._readable.stop()
        self._readable.close()
        self._sock.close()

    def _wait(self, watcher: Any) -> None:
        # This is the cheapest wait in gevent: the loop switches directly back here. A Waiter per read costs 2 us more.
        watcher.start(getcurrent().switch)
        try:
            self._switch_to_hub()
        finally:
            watcher.stop()


class HandshakeCut(ConnectionResetError):
    """The peer closed the connection during the TLS handshake, as servers without TLS do."""


class TlsConnection(Connection):
    """TLS over another connection, which may use TLS itself. Call ``handshake`` first."""

    __slots__ = ("_carrier", "_incoming", "_outgoing", "_tls")

    def __init__(self, carrier: Connection, origin: Origin, context: ssl.SSLContext) -> None:
        super().__init__(origin, stamped=carrier.stamped)
        self._carrier = carrier
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=origin.host)

    def handshake(self) -> None:
        """Agree on keys and verify the certificate. Raises ssl.SSLError, or OSError if the connection is closed."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._feed().data:
                    raise HandshakeCut(errno.ECONNRESET, "closed during the TLS handshake") from None
            else:
                self._flush()
                return

    def read(self) -> Read:
        while True:
            arrival = self._feed()
            data = self._decrypted()
            if data is None:  # a ticket, a key update or a partial record: no plain text yet
                self._flush()
                continue
            return Read(arrival.kernel_ns, arrival.clock_ns, data)

    def start_reading(self, take: Take, fail: Fail) -> None:
        self._take, self._fail = take, fail
        self._carrier.start_reading(self._on_encrypted, fail)

    def stop_reading(self) -> None:
        self._carrier.stop_reading()
        self._take = self._fail = _ignore

    def _on_encrypted(self, stamp: Stamp, clock_ns: int, encrypted: bytes) -> None:
        try:
            self._add_encrypted(encrypted)
            data = self._decrypted()
        except OSError as error:  # ssl.SSLError too
            self._carrier.stop_reading()
            self._fail(error)
            return
        if self._outgoing.pending:  # the answer to a key update, or an alert; it may have to wait for the socket
            gevent.spawn(self._try_flush)
        if data is None:
            return
        if not data:
            self._carrier.stop_reading()
        self._deliver(stamp, clock_ns, data)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        self._flush()

    def is_idle(self) -> bool:
        return self._incoming.pending == 0 and self._tls.pending() == 0 and self._carrier.is_idle()

    def close(self) -> None:
        self._carrier.close()

    def _feed(self) -> Read:
        arrival = self._carrier.read()
        self._add_encrypted(arrival.data)
        return arrival

    def _add_encrypted(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._carrier.send(self._outgoing.read())

    def _try_flush(self) -> None:
        with contextlib.suppress(OSError):  # the next read reports a broken connection
            self._flush()

    def _decrypted(self) -> bytes | None:
        """Return all plain text available now; b"" at the end of the stream; None while a record is incomplete."""
        parts: list[bytes] = []
        incoming, read = self._incoming, self._tls.read
        try:
            # With a buffer, ``read`` returns a length; typeshed says bytes. One record has at most 16 KiB.
            while length := cast(int, read(READ_BYTES, _PLAIN_TEXT)):
                part = _PLAIN_TEXT[:length].tobytes()
                if not incoming.pending and not parts:
                    return part  # avoids the cost of the exception that another read would raise
                parts.append(part)
                if not incoming.pending:
                    break
        except ssl.SSLWantReadError:
            return b"".join(parts) if parts else None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        return b"".join(parts)
