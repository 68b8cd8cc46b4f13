"""Open, keep and reuse connections: one pool of keep-alive connections per process, which all SDK adapters share.

To open a connection, the module resolves the name, connects to the first address that answers, opens a proxy tunnel
and starts TLS. Every failure is a ``ConnectFailed`` whose message has the peer, the reason and the remedy. The module
does not handle requests.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, zip_longest
from typing import Any

import gevent
from gevent import get_hub
from gevent.monkey import get_original
from gevent.queue import Empty, Queue
from gevent.socket import getaddrinfo

from llm_users.transport.clock import now_ns
from llm_users.transport.connection import Connection, HandshakeCut, Origin, PlainConnection, TlsConnection
from llm_users.transport.errors import ClientLimitReached, ConnectFailed
from llm_users.transport.proxies import Proxies, Proxy
from llm_users.transport.tls import TlsSettings, tls_context

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

CONNECT_TIMEOUT_S = 10.0
_VERIFYING = TlsSettings()

_TLS_PROBE_S = 1.0
"""Timeout of the attempt to use TLS. A server without TLS may wait for the rest of the handshake."""

STAGGER_S = 0.25
"""Delay before the next address is tried in parallel with the earlier ones (RFC 8305, section 8)."""

MAX_TUNNEL_BYTES = 65536
"""Limit on the headers of a proxy's response to CONNECT; a longer response is an error."""

_WRITE = 2  # libev's event bit, as ``loop.io`` takes it

Context = Callable[[], ssl.SSLContext]
Address = tuple[int, int, int, Any]  # family, kind, protocol, address as ``connect`` takes it


class Pool:
    """Idle connections by origin, most recently used first. There is no limit on the number of connections."""

    def __init__(
        self,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        *,
        keep_alive: bool = True,
        tls: TlsSettings = _VERIFYING,
        proxies: Proxies | None = None,
    ) -> None:
        """``proxies``: None to use the proxies from the environment."""
        self.connect_timeout_s = connect_timeout_s
        self.keep_alive = keep_alive
        self.tls = tls
        self.proxies = Proxies() if proxies is None else proxies
        self.opened = 0
        self.answered: set[Origin] = set()
        """The origins that have sent a response."""
        self._use_tls: dict[Origin, bool] = {}
        self._closed = False
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)

    def acquire(self, origin: Origin, *, fresh: bool = False) -> tuple[Connection, int]:
        """Return a connection and the time to open it, in ns (0 if reused). Raises ``ConnectFailed``."""
        idle = self._idle[origin]
        while idle and not fresh:
            connection = idle.pop()
            if connection.is_idle():
                return connection, 0
            connection.close()
        started_ns = now_ns()
        context = partial(tls_context, self.tls)
        connection = connect(origin, context, self.connect_timeout_s, self.proxies.of(origin))
        self.opened += 1
        connection.connect_ns = now_ns() - started_ns
        return connection, connection.connect_ns

    def uses_tls(self, origin: Origin) -> bool:
        """Return whether a server that closes plain connections without an answer accepts TLS on the same port.

        Each origin is tried once per pool, and only if it has never sent a response.
        """
        if origin.scheme != "http" or origin in self.answered or self.proxies.of(origin) is not None:
            return False
        if origin not in self._use_tls:
            self._use_tls[origin] = False  # other requests do not wait for the result
            self._use_tls[origin] = _accepts_tls(
                Origin("https", origin.host, origin.port), partial(tls_context, self.tls)
            )
        return self._use_tls[origin]

    def release(self, connection: Connection, *, reusable: bool) -> None:
        """Keep a connection for the next request, or close it if it cannot carry another one."""
        if reusable and self.keep_alive and not self._closed:
            connection.used = True
            self._idle[connection.origin].append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close all idle connections, and close every connection that is released later."""
        self._closed = True
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()


class _ProxyRefused(OSError):
    """The proxy answered, but did not open a tunnel."""


def connect(origin: Origin, context: Context, timeout_s: float, proxy: Proxy | None = None) -> Connection:
    """Return a connection to the origin, through the proxy if one is given, with TLS for https.

    Raises ``ConnectFailed``.
    """
    where = f"{origin} through the proxy {proxy}" if proxy else str(origin)
    try:
        with gevent.Timeout(timeout_s, TimeoutError(f"no connection within {timeout_s:g} s")):
            return _connect(origin, context, proxy)
    except ssl.SSLCertVerificationError as error:
        raise ConnectFailed(
            f"cannot verify the certificate of {where}: {error.verify_message.rstrip('.')}. "
            f"{_CERT_ADVICE.get(error.verify_code, _OTHER_CERT_ADVICE)}"
        ) from error
    except (OSError, UnicodeError) as error:
        if remedy := remedy_for(error):
            reason = str(getattr(error, "strerror", None) or error).rstrip(".")
            raise ClientLimitReached(
                f"this machine could not open a connection to {where}: {reason}. {remedy}"
            ) from error
        raise ConnectFailed(f"cannot connect to {where}: {_describe(error, origin, proxy)}") from error


def _accepts_tls(origin: Origin, context: Context) -> bool:
    """Return whether the server answers a TLS handshake, also with a certificate that cannot be verified."""
    try:
        connect(origin, context, _TLS_PROBE_S).close()
    except ConnectFailed as failure:
        return isinstance(failure.__cause__, ssl.SSLCertVerificationError)
    return True


# By OpenSSL's X509_V_ERR_ code: not yet valid and expired; another host name and another address.
_CERT_ADVICE = {
    **dict.fromkeys((9, 10), "Renew the certificate on the server, or correct this machine's clock."),
    **dict.fromkeys((62, 64), "Use a host name that the certificate lists."),
}
_OTHER_CERT_ADVICE = "If the server uses a private CA, set SSL_CERT_FILE to the CA's PEM file."


def _describe(error: Exception, origin: Origin, proxy: Proxy | None) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        advice = (
            "The server ended the TLS handshake. If it requires a client certificate, set --llm-client-cert or "
            "SSL_CLIENT_CERT"
        )
    elif isinstance(error, ssl.SSLError) or (origin.scheme == "https" and isinstance(error, HandshakeCut)):
        advice = (
            f"Check that the server uses TLS on this port. Without TLS, the URL begins with http://{origin.authority}"
        )
    elif isinstance(error, (FileNotFoundError, _ProxyRefused)):
        advice = ""  # the reason names the setting
    elif proxy is not None:
        advice = f"Check the proxy, which {proxy.variable} sets; hosts in NO_PROXY are connected without it"
    elif isinstance(error, socket.gaierror):
        advice = "Check the spelling of the host name"
    else:
        advice = "Check that the server is running and that the address is correct"
    return f"{reason.rstrip('.')}. {advice}".rstrip()


def _connect(origin: Origin, context: Context, proxy: Proxy | None) -> Connection:
    tls = context() if "https" in (origin.scheme, proxy.origin.scheme if proxy else "") else None
    first = proxy.origin if proxy else origin
    connection: Connection = PlainConnection(_connect_socket(first.host, first.port), origin)
    try:
        if proxy is not None:
            if proxy.origin.scheme == "https":
                connection = _with_tls(connection, proxy.origin, tls)
                connection.origin = origin
            if origin.scheme == "http":
                connection.dress = lambda request: proxy.absolute(origin, request)
            else:
                _open_tunnel(connection, origin, proxy)
        return _with_tls(connection, origin, tls) if origin.scheme == "https" else connection
    except BaseException:
        connection.close()
        raise


def _with_tls(carrier: Connection, origin: Origin, context: ssl.SSLContext | None) -> TlsConnection:
    assert context is not None
    connection = TlsConnection(carrier, origin, context)
    try:
        connection.handshake()
    except TimeoutError:
        raise HandshakeCut(errno.ETIMEDOUT, "the server did not answer the TLS handshake") from None
    return connection


def _open_tunnel(connection: Connection, origin: Origin, proxy: Proxy) -> None:
    """Open a tunnel through the proxy to the origin. The error message has the status line of a refusal."""
    connection.send(proxy.connect_request(origin))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.read().data
        if not data:
            raise _ProxyRefused("the proxy closed the connection instead of opening a tunnel")
        answer += data
        if len(answer) > MAX_TUNNEL_BYTES:
            raise _ProxyRefused("the proxy's response to CONNECT is not valid")
    status = answer.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")[2]
    if status.startswith("407"):
        raise _ProxyRefused(
            f"the proxy requires authentication ({status}). Set {proxy.variable}=http://USER:PASSWORD@HOST:PORT"
        )
    if not status.startswith("2"):
        raise _ProxyRefused(
            f"the proxy did not open a tunnel ({status}). Allow this host on the proxy, or add it to NO_PROXY"
        )


def _connect_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to the first address of the host that answers."""
    resolved = getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    addresses = _alternating((family, kind, protocol, address) for family, kind, protocol, _name, address in resolved)
    if not addresses:
        raise OSError(errno.EADDRNOTAVAIL, "the host name has no address")
    return _open_socket(*addresses[0]) if len(addresses) == 1 else _Race(addresses).winner()


def _alternating(addresses: Iterable[Address]) -> list[Address]:
    """Return the addresses with alternating families, starting with the first one's family (RFC 8305, section 4)."""
    by_family: dict[int, list[Address]] = {}
    for address in addresses:
        by_family.setdefault(address[0], []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*by_family.values())) if address is not None]


class _Race:
    """Connect to several addresses. An attempt starts when the one before it failed or has taken ``STAGGER_S``."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._waiting = deque(addresses)
        self._results: Queue[socket.socket | OSError] = Queue()
        self._over = False

    def winner(self) -> socket.socket:
        """Return the first socket that is connected.

        If all attempts fail, raise the first failure of the endpoint, or else the first failure of this machine.
        """
        attempts: list[Any] = []
        failures: list[OSError] = []
        try:
            while self._waiting or len(failures) < len(attempts):
                if self._waiting:
                    attempts.append(gevent.spawn(self._attempt, self._waiting.popleft()))
                try:
                    result = self._results.get(timeout=STAGGER_S if self._waiting else None)
                except Empty:
                    continue
                if isinstance(result, OSError):
                    failures.append(result)
                else:
                    return result
            raise min(failures, key=lambda failure: bool(remedy_for(failure)))
        finally:
            self._over = True
            gevent.killall(attempts, block=False)
            while not self._results.empty():
                self._close(self._results.get_nowait())

    def _attempt(self, address: Address) -> None:
        try:
            result: socket.socket | OSError = _open_socket(*address)
        except OSError as error:
            result = error
        if self._over:
            self._close(result)
        else:
            self._results.put(result)

    @staticmethod
    def _close(result: socket.socket | OSError) -> None:
        if not isinstance(result, OSError):
            result.close()


def _open_socket(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    # The unpatched class, because Connection reads and writes with its own watchers.
    sock: socket.socket = get_original("socket", "socket")(family, kind, protocol)
    try:
        # The system assigns the lowest free descriptor, so this one is among the last of the process.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else -1
        if 0 <= limit - _RESERVED <= sock.fileno():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        if code == errno.EADDRNOTAVAIL and _is_reachable(family, address):
            raise _NoPortLeft(code, "all local ports for this address are in use")
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(code, os.strerror(code))
        if code:
            watcher = get_hub().loop.io(sock.fileno(), _WRITE)
            try:
                get_hub().wait(watcher)
            finally:
                watcher.close()
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


# Limits of this machine: file descriptors, local ports and memory. They do not depend on the endpoint.

_DESCRIPTORS = (
    "Raise the hard limit on open files before the start (as root: ulimit -n 65536; for a container: --ulimit "
    "nofile=65536), or use more workers or fewer users."
)
_PORTS = (
    "Widen net.ipv4.ip_local_port_range, remove --llm-new-connections so that connections are reused, or send the load "
    "from more machines or addresses."
)
_REMEDIES = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: "Raise the limit on open files of the whole machine (sysctl fs.file-max), or use more machines.",
    errno.ENOBUFS: "Free memory on this machine, raise net.core.wmem_max and net.ipv4.tcp_mem, or use fewer users.",
    errno.ENOMEM: "Free memory on this machine, or use fewer users.",
}

_RESERVED = 24
"""File descriptors that connections must not use: the process needs them to write rows and read system counters."""


class _NoPortLeft(OSError):
    """Every local port that could connect to this address is in use."""


def _is_reachable(family: int, address: Any) -> bool:
    """Return True if this machine has a source address for ``address``.

    The system reports a missing source address and a missing free port with the same error.
    """
    probe = get_original("socket", "socket")(family, socket.SOCK_DGRAM)  # sends nothing; UDP has its own ports
    try:
        return bool(probe.connect_ex(address) == 0)
    finally:
        probe.close()


def remedy_for(error: BaseException | None) -> str:
    """Return advice for an error that a limit of this machine caused; "" for any other error."""
    if isinstance(error, _NoPortLeft):
        return _PORTS
    if isinstance(error, socket.gaierror):  # the resolver does not report that it could not open its files
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as limit:
            error = limit
        else:
            return ""
    return _REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""
