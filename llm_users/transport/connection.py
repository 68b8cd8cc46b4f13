"""One TCP or TLS connection on gevent's loop, read with kernel receive stamps.

Knows bytes only. TLS runs over memory buffers, so encrypted segments are read, and stamped, like plain ones.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
from gevent import get_hub, getcurrent
from gevent.monkey import get_original
from gevent.socket import getaddrinfo

from llm_users.transport import clock
from llm_users.transport.errors import ConnectFailed

READ_BYTES = 65536
_READ, _WRITE = 1, 2  # libev's event bits, as ``loop.io`` takes them


class Origin(NamedTuple):
    """Where a connection leads. ``host`` is a name or an address without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Read(NamedTuple):
    """What one read brought: the kernel's wall-clock stamp (0 = none), the monotonic clock at return, the bytes.

    Empty ``data`` is the end of the stream.
    """

    kernel_ns: int
    clock_ns: int
    data: bytes


class Connection:
    """A plain connection. Used by one greenlet at a time."""

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        self.origin = origin
        self.used = False  # has carried a request before
        self._sock = sock
        self._recvmsg = sock.recvmsg
        self._send = sock.send
        hub = get_hub()
        self._switch_to_hub: Callable[[], Any] = hub.switch
        self._readable = hub.loop.io(sock.fileno(), _READ)
        self._writable = hub.loop.io(sock.fileno(), _WRITE)
        self.stamped = clock.enable_stamps(sock)

    def read(self) -> Read:
        """Wait until something arrives and read it once. Raises OSError when the connection is broken."""
        while True:
            self._wait(self._readable)
            try:
                data, ancillary, _flags, _address = self._recvmsg(READ_BYTES, clock.ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            return Read(clock.kernel_stamp_ns(ancillary), clock.now_ns(), data)

    def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises OSError when the connection is broken."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._send(view) :]
            except (BlockingIOError, InterruptedError):
                self._wait(self._writable)

    def is_idle(self) -> bool:
        """True when the peer has neither closed the connection nor sent anything that nobody asked for."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close at once. Harmless when repeated."""
        self._readable.stop()
        self._writable.stop()
        self._readable.close()
        self._writable.close()
        self._sock.close()

    def _wait(self, watcher: Any) -> None:
        # The cheapest wait gevent allows: the loop switches straight back here. A Waiter per read costs 2 us more.
        watcher.start(getcurrent().switch)
        try:
            self._switch_to_hub()
        finally:
            watcher.stop()


class TlsConnection(Connection):
    """A TLS connection; call ``handshake`` before anything else."""

    def __init__(self, sock: socket.socket, origin: Origin, context: ssl.SSLContext) -> None:
        super().__init__(sock, origin)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=origin.host)

    def handshake(self) -> None:
        """Agree on keys and verify the certificate. Raises ssl.SSLError, or OSError when the peer goes away."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._feed().data:
                    raise ConnectionResetError(errno.ECONNRESET, "closed during the TLS handshake") from None
            else:
                self._flush()
                return

    def read(self) -> Read:
        while True:
            arrival = self._feed()
            data = self._decrypted()
            if data is None:  # a ticket, a key update or a partial record: nothing for us yet
                self._flush()
                continue
            return Read(arrival.kernel_ns, arrival.clock_ns, data)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        self._flush()

    def is_idle(self) -> bool:
        return self._incoming.pending == 0 and self._tls.pending() == 0 and super().is_idle()

    def _feed(self) -> Read:
        arrival = super().read()
        if arrival.data:
            self._incoming.write(arrival.data)
        else:
            self._incoming.write_eof()
        return arrival

    def _flush(self) -> None:
        if self._outgoing.pending:
            super().send(self._outgoing.read())

    def _decrypted(self) -> bytes | None:
        """All plain text that can be had now; b"" at the end of the stream; None when a record is incomplete."""
        parts = []
        try:
            while True:
                part = self._tls.read(READ_BYTES)
                if not part:
                    break
                parts.append(part)
                if not self._incoming.pending and not self._tls.pending():
                    break  # saves the exception that asking once more would cost
        except ssl.SSLWantReadError:
            return b"".join(parts) if parts else None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        return b"".join(parts)


def connect(origin: Origin, context: Callable[[], ssl.SSLContext], timeout_s: float) -> Connection:
    """Resolve, connect and, for https, shake hands. Raises ``ConnectFailed`` with the reason."""
    try:
        with gevent.Timeout(timeout_s, TimeoutError(f"no connection within {timeout_s:g} s")):
            return _connect(origin, context)
    except ssl.SSLCertVerificationError as error:
        raise ConnectFailed(
            f"cannot verify the certificate of {origin}: {error.verify_message}. For a private CA set SSL_CERT_FILE "
            "to its PEM file."
        ) from error
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, ssl.SSLError):
            advice = "Does the server speak TLS on this port? Without TLS the URL begins with http://"
        elif isinstance(error, FileNotFoundError):
            advice = ""  # the reason names the setting
        else:
            advice = "Is the server running and the address right?"
        raise ConnectFailed(f"cannot connect to {origin}: {reason.rstrip('.')}. {advice}".rstrip()) from error


def _connect(origin: Origin, context: Callable[[], ssl.SSLContext]) -> Connection:
    failure: OSError | None = None
    tls = context() if origin.scheme == "https" else None
    for family, kind, protocol, _name, address in getaddrinfo(origin.host, origin.port, 0, socket.SOCK_STREAM):
        try:
            sock = _open_socket(family, kind, protocol, address)
        except OSError as error:
            failure = error
            continue
        if tls is None:
            return Connection(sock, origin)
        connection = TlsConnection(sock, origin, tls)
        try:
            connection.handshake()
        except BaseException:
            connection.close()
            raise
        return connection
    raise failure or OSError(errno.EADDRNOTAVAIL, "the name has no address")


def _open_socket(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    # The unpatched class: our reads and writes go through watchers of their own.
    sock: socket.socket = get_original("socket", "socket")(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(code, _reason(code))
        if code:
            watcher = get_hub().loop.io(sock.fileno(), _WRITE)
            try:
                get_hub().wait(watcher)
            finally:
                watcher.close()
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, _reason(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(code: int) -> str:
    return os.strerror(code)
