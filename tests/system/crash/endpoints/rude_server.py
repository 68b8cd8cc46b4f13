"""Servers that never come to an end, one port for each way, in a process of its own.

Run as a program: it says its ports as JSON and ends with its standard input. It must import nothing of the project.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
_FILL = b"z" * 65_536
_CHUNK = b"%x\r\n%b\r\n" % (len(_FILL), _FILL)
_DELTA = b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
_FIRST = _OK + b"content-type: text/event-stream\r\n" + _CHUNKED + b"%x\r\n%b\r\n" % (len(_DELTA), _DELTA)

_MANY = b"x" * 60_000


def _endless(event: bytes, times: int = 1) -> tuple[bytes, bytes]:
    events = event * times
    return _FIRST, b"%x\r\n%b\r\n" % (len(events), events)


def _choice(fields: bytes) -> bytes:
    return b'data: {"choices": [{"index": 0, "delta": {' + fields + b"}}]}\n\n"


# Way -> what comes first, and what comes again and again after it.
WAYS: dict[str, tuple[bytes, bytes]] = {
    "error": (b"HTTP/1.1 500 Oops\r\ncontent-type: text/plain\r\n" + _CHUNKED, _CHUNK),
    "json": (_OK + b"content-type: application/json\r\n" + _CHUNKED, _CHUNK),
    "trailers": (_FIRST + b"0\r\n", b"x-filler: " + b"y" * 8000 + b"\r\n"),
    "one trailer": (_FIRST + b"0\r\nx-filler: ", _FILL),
    "interim": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: " + b"y" * 8000 + b"\r\n\r\n"),
    "one header": (_OK + b"x-filler: ", _FILL),
    "header name": (_OK, _FILL),
    "reason": (b"HTTP/1.1 200 ", _FILL),
    "chunk extension": (_FIRST + b"5;", _FILL),
    "comments": (_FIRST, b"%x\r\n%b\r\n" % (3 * 20_000, b":\n\n" * 20_000)),
    "line": (_FIRST, _CHUNK),
    "text": _endless(_choice(b'"content": "' + _MANY + b'"')),
    "reasoning": _endless(_choice(b'"reasoning_content": "' + _MANY + b'"')),
    "tool arguments": _endless(
        _choice(b'"tool_calls": [{"index": 0, "function": {"arguments": "' + _MANY + b'"}}]'),
    ),
    "small chunks": _endless(_choice(b'"content": "a"'), 1000),
    "choices": (_FIRST, b""),
    "tool calls": _endless(_choice(b'"tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}]'), 200),
    "usage": _endless(b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\n', 700),
    "blank lines": (_FIRST, b"%x\r\n%b\r\n" % (65_536, b"\r" * 65_536)),
    "banner": (b"SSH-2.0-OpenSSH_9.6\r\n", b""),
}


class RudeServers:
    """The process. ``urls`` are base URLs by way. A context manager."""

    def __enter__(self) -> RudeServers:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.urls = {way: f"http://127.0.0.1:{port}/v1" for way, port in ports.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def _writes(way: str) -> Iterator[bytes]:
    first, again = WAYS[way]
    yield first
    if way == "choices":
        yield from _new_choices()
    while again:
        yield again


def _new_choices() -> Iterator[bytes]:
    for number in itertools.count(1):
        event = b'data: {"choices": [{"index": %d, "delta": {}}]}\n\n' % number
        yield b"%x\r\n%b\r\n" % (len(event), event)


def _talk(sock: socket.socket, way: str) -> None:
    try:
        sock.settimeout(30)
        if way != "banner":
            sock.recv(65_536)
        for data in _writes(way):
            sock.sendall(data)
        sock.recv(65_536)
    except OSError:
        pass
    finally:
        sock.close()


def _accept(listener: socket.socket, way: str) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_talk, args=(sock, way), daemon=True).start()


def _main() -> None:
    ports = {}
    for way in WAYS:
        listener = socket.create_server(("127.0.0.1", 0))
        ports[way] = listener.getsockname()[1]
        threading.Thread(target=_accept, args=(listener, way), daemon=True).start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _main()
