"""One pool of keep-alive connections per process, shared by every SDK adapter.

Knows connections, not requests. It never limits: as many connections as there are requests in flight.
"""

from __future__ import annotations

import os
import ssl
from collections import defaultdict
from functools import cache
from pathlib import Path

from llm_users.transport.clock import now_ns
from llm_users.transport.connection import Connection, Origin, connect

CONNECT_TIMEOUT_S = 10.0
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where a custom CA is looked for, in this order; SSL_CERT_DIR names a folder of certificates."""


@cache
def tls_context() -> ssl.SSLContext:
    """The process's TLS settings: verification on, system CAs or those named by the environment."""
    for variable in CA_VARIABLES:
        path = os.environ.get(variable)
        if path:
            if not Path(path).exists():
                raise FileNotFoundError(f"{variable} names {path}, which does not exist. Correct or unset it.")
            is_folder = Path(path).is_dir()
            context = ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
            break
    else:
        context = ssl.create_default_context()
        if not context.get_ca_certs() and not os.environ.get("SSL_CERT_DIR"):
            # A slim container or a python.org build on macOS has no CA of its own.
            import certifi

            context.load_verify_locations(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


class Pool:
    """Idle connections by origin, most recently used first."""

    def __init__(self, connect_timeout_s: float = CONNECT_TIMEOUT_S, *, keep_alive: bool = True) -> None:
        self.connect_timeout_s = connect_timeout_s
        self.keep_alive = keep_alive
        self.opened = 0
        self._closed = False
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)

    def acquire(self, origin: Origin, *, fresh: bool = False) -> tuple[Connection, int]:
        """A connection and what it cost to make, in ns (0 when reused). Raises ``ConnectFailed``."""
        idle = self._idle[origin]
        while idle and not fresh:
            connection = idle.pop()
            if connection.is_idle():
                return connection, 0
            connection.close()
        started_ns = now_ns()
        connection = connect(origin, tls_context, self.connect_timeout_s)
        self.opened += 1
        return connection, now_ns() - started_ns

    def release(self, connection: Connection, *, reusable: bool) -> None:
        """Take a connection back after its response; one that cannot carry another request is closed."""
        if reusable and self.keep_alive and not self._closed:
            connection.used = True
            self._idle[connection.origin].append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close every idle connection, and from now on each one that is given back."""
        self._closed = True
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
