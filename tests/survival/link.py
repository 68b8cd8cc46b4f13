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
    """A TCP relay to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open = threading.Event()
        self._open.set()
        self._accepts = True
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self, seconds: float) -> None:
        """Nothing arrives for so long, in either direction; then everything does."""
        self._open.clear()
        time.sleep(seconds)
        self._open.set()

    def cut(self, seconds: float) -> None:
        """The connections are reset, and for so long none is taken; what was on its way is lost."""
        self._accepts = False
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        time.sleep(seconds)
        self._accepts = True

    def close(self) -> None:
        self._accepts = False
        self._open.set()
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if not self._accepts:
                    here.close()
                    continue
                try:
                    there = socket.create_connection(("127.0.0.1", self._to))
                except OSError:  # the master does not listen yet; a worker tries again
                    here.close()
                    continue
                self._sockets += [here, there]
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
        for each in (source, target):
            each.close()


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
