"""A server that does exactly what a script says, in a process of its own: bytes, pauses, closes, resets.

``Wire`` is the tests' side. A script is a list of steps; script i serves the i-th request that comes to the port, the
last one all further requests. What was received, and when each piece left, is kept on the machine's monotonic clock.
Run as a program this file is the server; it must import nothing of the project.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Step = list[Any]
Script = list[Step]

_BOUND_S = 20.0  # no connection outlives this


def send(data: bytes) -> Step:
    """One write."""
    return ["send", base64.b64encode(data).decode()]


def bytewise(data: bytes) -> Step:
    """Every byte in a write of its own."""
    return ["bytewise", base64.b64encode(data).decode()]


def pause(seconds: float) -> Step:
    return ["pause", seconds]


CLOSE: Step = ["close"]
RESET: Step = ["reset"]
HOLD: Step = ["hold"]
"""Wait until the client closes the connection."""


@dataclass
class Request:
    """What came to a port, and what was done about it."""

    connection: int
    head: str
    body: bytes
    received_ns: int
    sent_ns: list[int] = field(default_factory=list)
    """When each write of the script began."""
    client_closed_ns: int = 0

    @property
    def target(self) -> str:
        return self.head.split(" ", 2)[1]

    @property
    def headers(self) -> dict[str, str]:
        pairs = (line.split(":", 1) for line in self.head.split("\r\n")[1:] if line)
        return {name.strip().lower(): value.strip() for name, value in pairs}

    def json(self) -> Any:
        return json.loads(self.body)


class Port:
    """One listening port with its scripts."""

    def __init__(self, wire: Wire, port: int, *, tls: bool, host: str) -> None:
        self._wire = wire
        self.port = port
        shown = f"[{host}]" if ":" in host else host
        self.root = f"{'https' if tls else 'http'}://{shown}:{port}"
        self.url = f"{self.root}/v1"

    def requests(self) -> list[Request]:
        return [Request(**raw, body=base64.b64decode(body)) for raw, body in self._log()["requests"]]

    def left_by_client(self) -> Request:
        """The first request, once the client has closed its connection (``HOLD``)."""
        end_s = time.monotonic() + 5
        while not (request := self.requests()[0]).client_closed_ns:
            assert time.monotonic() < end_s, "the client never closed the connection"
            time.sleep(0.01)
        return request

    @property
    def connections(self) -> int:
        return int(self._log()["connections"])

    def _log(self) -> Any:
        return self._wire.order({"do": "log", "port": self.port})


class Wire:
    """The server's process. A context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def serve(
        self, *scripts: Script, tls: Path | None = None, host: str = "127.0.0.1", handshake_s: float = 0.0
    ) -> Port:
        """A new port. ``tls``: a PEM file with key and certificate. ``handshake_s``: pause before each handshake."""
        order = {
            "do": "serve", "scripts": scripts, "tls": str(tls) if tls else None, "host": host,
            "handshake_s": handshake_s,
        }  # fmt: skip
        return Port(self, self.order(order)["port"], tls=tls is not None, host=host)

    def order(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=5)


# The server's side.


class _Service:
    def __init__(self, scripts: list[Script], host: str, tls: str | None, handshake_s: float) -> None:
        self._handshake_s = handshake_s
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family, backlog=512)
        self.port = self.listener.getsockname()[1]
        self._scripts = scripts
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(tls)
        self._lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.bodies: list[str] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            self.connections += 1
            threading.Thread(target=self._talk, args=(sock, self.connections), daemon=True).start()

    def _talk(self, sock: socket.socket, number: int) -> None:
        try:
            sock.settimeout(_BOUND_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                time.sleep(self._handshake_s)
                sock = self._context.wrap_socket(sock, server_side=True)
            rest = b""
            while True:
                rest, note = self._receive(sock, number, rest)
                if note is None or not self._play(sock, note):
                    return
        except (OSError, ValueError):
            pass
        finally:
            sock.close()

    def _receive(self, sock: socket.socket, number: int, got: bytes) -> tuple[bytes, dict[str, Any] | None]:
        while b"\r\n\r\n" not in got:
            more = sock.recv(65536)
            if not more:
                return b"", None
            got += more
        received_ns = time.monotonic_ns()
        head, _, got = got.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(got) < length:
            more = sock.recv(65536)
            if not more:
                return b"", None
            got += more
        note = {
            "connection": number,
            "head": head.decode("latin-1"),
            "received_ns": received_ns,
            "sent_ns": [],
            "client_closed_ns": 0,
        }
        with self._lock:
            note_script = self._scripts[min(len(self.requests), len(self._scripts) - 1)]
            self.requests.append(note)
            self.bodies.append(base64.b64encode(got[:length]).decode())
        return got[length:], {"note": note, "script": note_script}

    def _play(self, sock: socket.socket, what: dict[str, Any]) -> bool:
        """Do one script. False when the connection is over."""
        note = what["note"]
        for step in what["script"]:
            if step[0] == "send":
                note["sent_ns"].append(time.monotonic_ns())
                sock.sendall(base64.b64decode(step[1]))
            elif step[0] == "bytewise":
                for byte in base64.b64decode(step[1]):
                    sock.sendall(bytes([byte]))
            elif step[0] == "pause":
                time.sleep(step[1])
            elif step[0] == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            elif step[0] == "hold":
                closing = select.poll()  # select() knows no descriptor from 1024 on, and a session has more
                closing.register(sock, select.POLLIN)
                closing.poll(_BOUND_S * 1000)
                note["client_closed_ns"] = time.monotonic_ns()
                return False
            else:
                return False
        return True


def _main() -> None:
    services: dict[int, _Service] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "serve":
            service = _Service(order["scripts"], order["host"], order["tls"], order["handshake_s"])
            services[service.port] = service
            answer: Any = {"port": service.port}
        else:
            service = services[order["port"]]
            pairs = list(zip(service.requests, service.bodies, strict=False))
            answer = {"requests": pairs, "connections": service.connections}
        print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    _main()
