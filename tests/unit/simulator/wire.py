"""A plain-socket HTTP client that stamps what it reads, so tests see the bytes and not a library's idea of them."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from llm_users.transport.eventstream import EventStreamDecoder

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""
    # Decoded data of each event; "[DONE]" and comments as text; of an event stream the messages.
    events: list[Any] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)  # when each event's last byte was read

    decoder: EventStreamDecoder = field(default_factory=EventStreamDecoder, repr=False)

    def json(self) -> Any:
        return json.loads(self.body)

    def pieces(self, key: str = "content") -> list[tuple[int, str]]:
        """(stamp, text) of the events with output."""
        found = []
        for stamp_ns, event in zip(self.stamps_ns, self.events, strict=True):
            for choice in event["choices"] if isinstance(event, dict) else []:
                text = choice.get("text") or choice.get("delta", {}).get(key)
                if text:
                    found.append((stamp_ns, text))
        return found

    def text(self, key: str = "content") -> str:
        return "".join(text for _, text in self.pieces(key))

    def usages(self) -> list[Any]:
        return [event["usage"] for event in self.events if isinstance(event, dict) and "usage" in event]


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.stamp_ns = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> None:
        self.sock.sendall(request_bytes(method, path, body, headers))

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        self.send(method, path, body, headers)
        return self.read()

    def chat(self, *, path: str = CHAT, **fields: Any) -> Answer:
        return self.ask("POST", path, body(path=path, **fields))

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self.stamp_ns = time.monotonic_ns()
        self._buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            assert self._more(), f"closed before {mark!r}, after {self._buffer!r}"
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            assert self._more(), "closed inside a body"
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def read(self) -> Answer:
        lines = self._until(b"\r\n\r\n").decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        answer = Answer(int(lines[0].split()[1]), headers)
        pending = b""
        if headers.get("transfer-encoding") == "chunked":
            while count := int(self._until(b"\r\n"), 16):
                pending = self._take(answer, pending + self._exactly(count))
                assert self._exactly(2) == b"\r\n"
            assert self._until(b"\r\n") == b""
        elif "content-length" in headers:
            answer.body = self._exactly(int(headers["content-length"]))
        elif answer.status >= 200:
            while self._buffer or self._more():
                pending, self._buffer = self._take(answer, pending + self._buffer), b""
        assert pending == b""
        answer.decoder.finish()
        return answer

    def _take(self, answer: Answer, data: bytes) -> bytes:
        answer.body += data
        if answer.headers.get("content-type") == "application/vnd.amazon.eventstream":
            messages = answer.decoder.feed(data)
            answer.events += messages
            answer.stamps_ns += [self.stamp_ns] * len(messages)
            return b""
        *events, rest = data.split(b"\n\n")
        for event in events:
            text = event.removeprefix(b"data: ").decode()
            answer.events.append(json.loads(text) if text.startswith("{") else text)
            answer.stamps_ns.append(self.stamp_ns)
        return rest

    def at_end(self) -> bool:
        """True when the server has closed and nothing is left."""
        return self._buffer == b"" and self.sock.recv(1) == b""


def body(
    *, path: str = CHAT, prompt: Any = "why is the sky blue", stream: bool = True, **fields: Any
) -> dict[str, Any]:
    where = {"prompt": prompt} if path == TEXT else {"messages": [{"role": "user", "content": prompt}]}
    return {"model": "simulated", "stream": stream, **where, **fields}


def request_bytes(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Host": "localhost", "Content-Length": str(len(data)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data
