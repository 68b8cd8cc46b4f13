"""A network between a worker and its master that can stall and can be cut, and a stranger who talks to a master."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
import zmq
from locust import __version__ as locust_version


class Link:
    """A TCP relay to a port of this machine; it can stall, cut and refuse connections."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._refuses = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self, seconds: float) -> None:
        """Nothing passes for so long; the connections stay open and what was sent comes afterwards."""
        self.hold()
        time.sleep(seconds)
        self.restore()

    def cut(self, seconds: float) -> None:
        """Reset all connections, and accept none for so long."""
        self.refuse()
        time.sleep(seconds)
        self.restore()

    def hold(self) -> None:
        self._flows.clear()

    def refuse(self) -> None:
        self._refuses = True
        self.reset()

    def restore(self) -> None:
        """Everything passes again."""
        self._refuses = False
        self._flows.set()

    def reset(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for one in sockets:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
            one.close()

    def close(self) -> None:
        self._refuses = True
        self._flows.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._sockets += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Stranger:
    """Speaks Locust's protocol to a master, under a name of its choice."""

    def __init__(self, port: int, name: str) -> None:
        self._name = name
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, name.encode())
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    def connect(self) -> None:
        self.say("client_ready", locust_version)

    def say(self, kind: str, data: Any) -> None:
        self._socket.send(msgpack.dumps((kind, data, self._name)))

    def hear(self, kind: str, timeout_s: float = 10) -> Any:
        """The data of the next message of this kind; None when none comes."""
        return self._await(lambda heard: heard == kind, timeout_s)

    def _await(self, wanted: Callable[[str], bool], timeout_s: float) -> Any:
        limit = time.monotonic() + timeout_s
        while self._socket.poll(max(0, int(1000 * (limit - time.monotonic())))):
            kind, data, _ = msgpack.loads(self._socket.recv(), raw=False, strict_map_key=False)
            if wanted(kind):
                return data
        return None

    def close(self) -> None:
        self._socket.close()
        self._context.term()
