"""Bytes of streams and responses for scripted servers: events, HTTP framings, whole answers."""

from __future__ import annotations

import json
from typing import Any

from tests.wire_server import CLOSE, Script, bytewise, pause, send

DONE = b"data: [DONE]\n\n"
CHUNKED, LENGTH, UNTIL_CLOSE = "chunked", "content-length", "close-delimited"
FRAMINGS = (CHUNKED, LENGTH, UNTIL_CLOSE)


def event(data: Any, *, name: str = "", end: bytes = b"\n") -> bytes:
    """One server-sent event; ``data`` is JSON unless it is bytes."""
    text = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    first = b"event: " + name.encode() + end if name else b""
    return first + b"data: " + text + end + end


def delta(finish: str | None = None, **fields: Any) -> bytes:
    """A chunk of a chat stream."""
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return event({"id": "chat-1", "object": "chat.completion.chunk", "choices": [choice]})


def usage(output: int, prompt: int = 7, **more: Any) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, **more}
    return event({"id": "chat-1", "object": "chat.completion.chunk", "choices": [], "usage": counts})


def chat_events(*pieces: str, finish: str = "stop") -> list[bytes]:
    """Events of a plain chat answer: role, pieces, finish, usage, [DONE]."""
    return [
        delta(role="assistant", content=""),
        *(delta(content=piece) for piece in pieces),
        delta(finish),
        usage(len(pieces)),
        DONE,
    ]


def head(
    framing: str, length: int = 0, *, status: str = "200 OK", kind: str = "text/event-stream", more: str = ""
) -> bytes:
    frame = {
        CHUNKED: "Transfer-Encoding: chunked\r\n",
        LENGTH: f"Content-Length: {length}\r\n",
        UNTIL_CLOSE: "Connection: close\r\n",
    }[framing]
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}{frame}\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def framed(parts: list[bytes], framing: str = CHUNKED, *, more: str = "") -> list[bytes]:
    """Head and parts as they go over the wire, one entry per write."""
    writes = [head(framing, sum(map(len, parts)), more=more)]
    writes += [chunk(part) if framing == CHUNKED else part for part in parts]
    if framing == CHUNKED:
        writes.append(LAST_CHUNK)
    return writes


def stream(parts: list[bytes], framing: str = CHUNKED, *, gap_s: float = 0.0, more: str = "") -> Script:
    """The script of a whole answer, with a pause before each part but the head."""
    script: Script = []
    for place, write in enumerate(framed(parts, framing, more=more)):
        if gap_s and place:
            script.append(pause(gap_s))
        script.append(send(write))
    if framing == UNTIL_CLOSE:
        script.append(CLOSE)
    return script


def at_once(parts: list[bytes], framing: str = CHUNKED) -> Script:
    """A whole answer in one write."""
    script = [send(b"".join(framed(parts, framing)))]
    return [*script, CLOSE] if framing == UNTIL_CLOSE else script


def reply(status: str, body: bytes | str | Any = b"", *, kind: str = "application/json", more: str = "") -> Script:
    """A complete response with a body of known length."""
    if not isinstance(body, bytes):
        body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return [send(head(LENGTH, len(body), status=status, kind=kind, more=more) + body)]


def split_everywhere(body: bytes, framing: str) -> Script:
    """A stream whose every byte comes in a read of its own, or as nearly as the framing lets it."""
    if framing == CHUNKED:  # every byte a chunk of HTTP's framing too
        writes = framed([bytes([byte]) for byte in body])
        return [send(writes[0]), *(send(b"".join(writes[i : i + 7])) for i in range(1, len(writes), 7))]
    half = len(body) // 2
    return [send(head(framing)), bytewise(body[:half]), pause(0.01), bytewise(body[half:]), CLOSE]
