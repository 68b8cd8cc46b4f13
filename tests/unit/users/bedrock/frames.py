"""Bytes of Bedrock's streams for scripted servers: events, exceptions, whole answers."""

from __future__ import annotations

import base64
import json
from typing import Any

from llm_users.transport.eventstream import encode
from tests.stream_bytes import CHUNKED, LAST_CHUNK, chunk, head
from tests.wire_server import CLOSE, Script, Step, send

KIND = "application/vnd.amazon.eventstream"
REQUEST_ID = "5b0a9f6e-0000-4000-8000-000000000001"
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"


def event(name: str, fields: Any) -> bytes:
    """One event of ConverseStream."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode(headers, fields if isinstance(fields, bytes) else json.dumps(fields).encode())


def part(document: Any) -> bytes:
    """One chunk of InvokeModelWithResponseStream."""
    inner = document if isinstance(document, bytes) else json.dumps(document).encode()
    return event("chunk", {"bytes": base64.b64encode(inner).decode(), "p": "abcdef"})


def exception(name: str, **fields: Any) -> bytes:
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return encode(headers, json.dumps(fields).encode())


def delta(**what: Any) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": 0, "delta": what, "p": "abc"})


START = event("messageStart", {"role": "assistant", "p": "abc"})
STOP = event("messageStop", {"stopReason": "end_turn"})


def metadata(given: int = 2, asked: int = 7, **more: Any) -> bytes:
    usage = {"inputTokens": asked, "outputTokens": given, "totalTokens": asked + given, **more.pop("usage", {})}
    return event("metadata", {"usage": usage, "metrics": {"latencyMs": 321}, **more})


def converse_events(*pieces: str) -> list[bytes]:
    """A plain answer."""
    ends = [event("contentBlockStop", {"contentBlockIndex": 0}), STOP, metadata(len(pieces))]
    return [START, *(delta(text=piece) for piece in pieces), *ends]


def metrics(given: int = 2, asked: int = 7, **more: Any) -> dict[str, Any]:
    counts = {"inputTokenCount": asked, "outputTokenCount": given, "invocationLatency": 321, "firstByteLatency": 123}
    return {"amazon-bedrock-invocationMetrics": {**counts, **more}}


def answer(*events: bytes, more: str = "", framing: str = CHUNKED, last: bytes = LAST_CHUNK) -> Script:
    """These events, each in a write of its own, as the one answer of a connection that stays open."""
    return [*opening(more, framing), *(send(chunk(data)) for data in events), send(last)]


def opening(more: str = "", framing: str = CHUNKED) -> list[Step]:
    return [send(head(framing, kind=KIND, more=f"x-amzn-RequestId: {REQUEST_ID}\r\n{more}"))]


def cut_after(*events: bytes) -> Script:
    """The connection is closed after these events."""
    return [*opening(), *(send(chunk(data)) for data in events), CLOSE]


def refusal(status: str, name: str, message: str = "", **fields: Any) -> Script:
    """What the service says before any stream."""
    body = json.dumps({"message": message, **fields}).encode()
    more = f"x-amzn-RequestId: {REQUEST_ID}\r\nx-amzn-ErrorType: {name}:http://internal.amazon.com/\r\n"
    return [send(head("content-length", len(body), status=status, kind="application/json", more=more) + body)]
