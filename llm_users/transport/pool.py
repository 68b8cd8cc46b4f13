"""One pool of keep-alive connections per process, which all SDK adapters share.

The pool handles connections, not requests. It has no limit: there are as many connections as requests in flight.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial

from llm_users.transport.clock import now_ns
from llm_users.transport.connect import connect
from llm_users.transport.connection import Connection, Origin
from llm_users.transport.proxies import Proxies
from llm_users.transport.tls import TlsSettings, tls_context

CONNECT_TIMEOUT_S = 10.0
_VERIFYING = TlsSettings()


class Pool:
    """Idle connections by origin, most recently used first."""

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
        self.proxies = Proxies.from_environment() if proxies is None else proxies
        self.opened = 0
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
