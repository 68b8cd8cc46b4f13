"""What a server that speaks the Messages API sends, and the question that it answers."""

from __future__ import annotations

from typing import Any

from llm_users.users.answer import Answer
from tests.stream_bytes import (
    event,
)
from tests.unit.users.rig import Rig, at
from tests.wire_server import Port


def said(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, name=kind)


def started(**usage: Any) -> bytes:
    counts = {"input_tokens": 7, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": {**counts, **usage}}
    return said("message_start", message=message)


def opened(kind: str = "text", place: int = 0, **fields: Any) -> bytes:
    return said("content_block_start", index=place, content_block={"type": kind, **fields})


def delta(kind: str, piece: str, place: int = 0) -> bytes:
    name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}.get(
        kind, "signature"
    )
    return said("content_block_delta", index=place, delta={"type": kind, name: piece})


def text(piece: str) -> bytes:
    return delta("text_delta", piece)


def ended(reason: str | None = "end_turn", **usage: Any) -> bytes:
    return said(
        "message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 2, **usage}
    )


START, CLOSED, STOP, PING = started(), said("content_block_stop", index=0), said("message_stop"), said("ping")
PLAIN = [START, opened(text=""), PING, text("a"), text("b"), CLOSED, ended(), STOP]


def ask(rig: Rig, url: str, prompt: str | None = "hi", **more: Any) -> Answer:
    answer: Answer = rig.call(at(url, lambda user: user.message(prompt, **more)))
    return answer


def only(port: Port) -> Any:
    (request,) = port.requests()
    return request
