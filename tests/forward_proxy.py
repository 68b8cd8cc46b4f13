"""A forward proxy in a process of its own: CONNECT tunnels, requests with a whole URL, a login, TLS to itself.

``ForwardProxy`` is the tests' side. Names that exist nowhere lead to this machine, so that only the proxy can know
them. Run as a program this file is the proxy; it must import nothing of the project.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_BOUND_S = 20.0


class ForwardProxy:
    """A running proxy. A context manager."""

    def __init__(self, *, login: str | None = None, tls: Path | None = None, refuse: str | None = None) -> None:
        """``login``: USER:PASSWORD that it insists on; ``refuse``: the status line of every answer to CONNECT."""
        order = {"login": login, "tls": str(tls) if tls else None, "refuse": refuse}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def heads(self) -> list[str]:
        """The heads of the requests that came, in order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"log\n")
        self._process.stdin.flush()
        return list(json.loads(self._process.stdout.readline()))

    def __enter__(self) -> ForwardProxy:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=5)


# The proxy's side.


class _Service:
    def __init__(self, order: dict[str, Any]) -> None:
        self._login = base64.b64encode(order["login"].encode()).decode() if order["login"] else None
        self._refuse = order["refuse"]
        self._context: ssl.SSLContext | None = None
        if order["tls"]:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(order["tls"])
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.heads: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(_BOUND_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            self._talk(sock)
        except (OSError, ValueError):
            pass
        finally:
            sock.close()

    def _talk(self, sock: socket.socket) -> None:
        got = b""
        while b"\r\n\r\n" not in got:
            more = sock.recv(65536)
            if not more:
                return
            got += more
        head, _, rest = got.partition(b"\r\n\r\n")
        self.heads.append(head.decode("latin-1"))
        if self._login is not None and f"Proxy-Authorization: Basic {self._login}".encode() not in head:
            sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        method, target, _ = head.split(b" ", 2)
        if method == b"CONNECT":
            if self._refuse:
                sock.sendall(f"HTTP/1.1 {self._refuse}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            server = self._reach(target.decode())
            sock.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            server.sendall(rest)
        else:
            authority, _, path = target.partition(b"://")[2].partition(b"/")
            server = self._reach(authority.decode())
            first, _, lines = head.partition(b"\r\n")
            kept = [line for line in lines.split(b"\r\n") if not line.lower().startswith(b"proxy-")]
            first = first.replace(target, b"/" + path)
            server.sendall(b"\r\n".join([first, *kept]) + b"\r\n\r\n" + rest)
        # One direction in a thread, one here. A second plain request on the connection passes as it is: good enough.
        threading.Thread(target=_copy, args=(sock, server), daemon=True).start()
        _copy(server, sock)

    @staticmethod
    def _reach(authority: str) -> socket.socket:
        port = int(authority.rpartition(":")[2])
        server = socket.create_connection(("127.0.0.1", port), timeout=_BOUND_S)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except (OSError, ValueError):  # one end is gone: so is the other
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _main() -> None:
    service = _Service(json.loads(sys.argv[1]))
    print(service.listener.getsockname()[1], flush=True)
    for _line in sys.stdin:
        print(json.dumps(service.heads), flush=True)
    os._exit(0)


if __name__ == "__main__":
    _main()
