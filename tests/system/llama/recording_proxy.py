"""A TCP proxy that passes bytes on unchanged, the end of a connection included, and keeps what the server said.

It lives in the test's process, so neither client nor server shares an interpreter with it; a hop over loopback costs
about 0.1 ms, where the model needs several for a token.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """What the server itself said about one answer, in its last event."""

    usage: dict[str, Any]
    timings: dict[str, Any]


class RecordingProxy:
    """Listens on a free port of 127.0.0.1 until ``stop``; ``said()`` afterwards or in between."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._answers: list[bytearray] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._listener.close()

    def said(self) -> dict[str, Said]:
        """By response id."""
        found = {}
        for answers in list(self._answers):
            for body in _bodies(bytes(answers)):
                for line in body.splitlines():
                    if line.startswith(b"data: {"):
                        event = json.loads(line[6:])
                        if "timings" in event:
                            found[event["id"]] = Said(event["usage"], event["timings"])
        return found

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream_port))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answers = bytearray()
                self._answers.append(answers)
                threading.Thread(target=_pump, args=(client, server, None), daemon=True).start()
                threading.Thread(target=_pump, args=(server, client, answers), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, keep: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
            if keep is not None:
                keep += piece
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Recorded(io.BytesIO):
    """Recorded bytes in the place of a socket; HTTPResponse closes what it has read, and more may follow."""

    def makefile(self, _mode: str) -> _Recorded:
        return self

    def close(self) -> None:
        pass


def _bodies(recorded: bytes) -> list[bytes]:
    """The bodies of the HTTP responses that came over one connection."""
    bodies = []
    stream = _Recorded(recorded)
    while stream.tell() < len(recorded):
        response = HTTPResponse(stream)  # type: ignore[arg-type]
        response.begin()
        bodies.append(response.read())
    return bodies
