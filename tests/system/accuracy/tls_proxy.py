"""A TLS proxy in front of a plain server, in its own process. It forwards bytes as soon as they arrive.

Run as a program: port of the server, PEM file with key and certificate, log file. It prints its own port. On SIGTERM it
writes one JSON object per response: the ids in its first bytes, when the proxy had read the request, and when it handed
each read from the server to TLS, in nanoseconds of CLOCK_MONOTONIC.

It is one thread that waits with epoll and forwards each read before the next one. An event loop such as uvloop collects
the writes of one round, which delays tokens by up to 2 ms with 256 streams. It imports nothing of the project.
"""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_AT_A_TIME = 65536
_RETRY = ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError
_IDS = re.compile(rb'(?:x-amzn-requestid: |"id": ?")([^"\r]+)', re.IGNORECASE)
_READS_WITH_IDS = 3  # the header, perhaps an event without output, and the first token


class Connection:
    """A client's TLS socket, the plain socket to the server, and the log of their requests."""

    def __init__(self, client: ssl.SSLSocket, upstream: int) -> None:
        self.client = client
        self.server = socket.create_connection(("127.0.0.1", upstream))
        self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.setblocking(False)
        self.log: list[tuple[int, list[int], list[str]]] = []
        self._received_ns = 0
        self._sent_ns: list[int] = []
        self._ids: list[str] = []

    def read_client(self) -> bool:
        """Forward a request. Return whether the client is still connected."""
        try:
            while data := self.client.recv(_AT_A_TIME):
                if self._sent_ns:
                    self.end_response()
                self._received_ns = time.monotonic_ns()
                _send(self.server, data)
        except _RETRY:
            return True
        return False

    def read_server(self) -> bool:
        """Forward a part of a response. Return whether the server is still connected."""
        data = self.server.recv(_AT_A_TIME)
        if not data:
            return False
        if len(self._sent_ns) < _READS_WITH_IDS:
            self._ids += map(bytes.decode, _IDS.findall(data))
        self._sent_ns.append(time.monotonic_ns())
        _send(self.client, data)
        return True

    def end_response(self) -> None:
        """Log the response. The next one begins."""
        self.log.append((self._received_ns, self._sent_ns, self._ids))
        self._sent_ns, self._ids = [], []


class Proxy:
    """The listener and all connections."""

    def __init__(self, upstream: int, pem: str) -> None:
        self._upstream = upstream
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._shaking_hands: dict[int, ssl.SSLSocket] = {}
        self._of_client: dict[int, Connection] = {}  # by descriptor
        self._of_server: dict[int, Connection] = {}
        self._all: list[Connection] = []

    def serve(self) -> None:
        """Forward until the process ends."""
        while True:
            for descriptor, _ in self._epoll.poll():
                if (connection := self._of_server.get(descriptor)) is not None:
                    self._check(connection, connection.read_server)
                elif (connection := self._of_client.get(descriptor)) is not None:
                    self._check(connection, connection.read_client)
                elif (client := self._shaking_hands.get(descriptor)) is not None:
                    self._shake_hands(client)
                elif descriptor == self._listener.fileno():
                    self._accept()

    def write_log(self, path: Path) -> None:
        """Write the log of all responses."""
        with path.open("w") as file:
            for connection in self._all:
                connection.end_response()
                for received_ns, sent_ns, ids in connection.log:
                    print(json.dumps({"received_ns": received_ns, "sent_ns": sent_ns, "ids": ids}), file=file)

    def _accept(self) -> None:
        plain, _ = self._listener.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setblocking(False)
        client = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._shaking_hands[client.fileno()] = client
        self._epoll.register(client, select.EPOLLIN)

    def _shake_hands(self, client: ssl.SSLSocket) -> None:
        try:
            client.do_handshake()
        except _RETRY:
            return
        except OSError:
            del self._shaking_hands[client.fileno()]
            client.close()
            return
        del self._shaking_hands[client.fileno()]
        connection = Connection(client, self._upstream)
        self._all.append(connection)
        self._of_client[client.fileno()] = self._of_server[connection.server.fileno()] = connection
        self._epoll.register(connection.server, select.EPOLLIN)
        self._check(connection, connection.read_client)  # the request may have come with the end of the handshake

    def _check(self, connection: Connection, read: Callable[[], bool]) -> None:
        with suppress(OSError):
            if read():
                return
        del self._of_client[connection.client.fileno()], self._of_server[connection.server.fileno()]
        connection.client.close()
        connection.server.close()


def _send(target: socket.socket, data: bytes) -> None:
    while data:
        try:
            data = data[target.send(data) :]
        except _RETRY:
            select.select([], [target], [])


def _main(upstream: str, pem: str, log: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    proxy = Proxy(int(upstream), pem)
    print(proxy.port, flush=True)
    try:
        proxy.serve()
    finally:
        proxy.write_log(Path(log))


if __name__ == "__main__":
    _main(*sys.argv[1:])
