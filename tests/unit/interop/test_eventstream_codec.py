"""Our event-stream codec and AWS's own for JavaScript: the same bytes, the same messages, the same refusals."""

from __future__ import annotations

import random
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import pytest

from llm_users.transport.eventstream import (
    BadEventStream,
    Byte,
    EventStreamDecoder,
    HeaderValue,
    Int,
    Long,
    Message,
    Short,
    Timestamp,
    encode,
)

FRAMES = 3000
# A timestamp is a Date there, which ends 8.64e15 ms around 1970.
_DATE_MS = 8_640_000_000_000_000
_LETTERS = "aZ0:-_. äß日本\u2028\ufeff\U0001f600\x00\n"
_TYPES: dict[type, str] = {
    bool: "boolean",
    Byte: "byte",
    Short: "short",
    Int: "integer",
    Long: "long",
    bytes: "binary",
    str: "string",
    Timestamp: "timestamp",
    uuid.UUID: "uuid",
}


def some_text(rng: random.Random, least: int, most: int) -> str:
    return "".join(rng.choices(_LETTERS, k=rng.randint(least, most)))


def some_value(rng: random.Random) -> HeaderValue:
    kind = rng.choice(list(_TYPES))
    if kind is bool:
        return rng.random() < 0.5
    if kind is bytes:
        return rng.randbytes(rng.choice([0, 1, 30, 2000]))
    if kind is str:
        return some_text(rng, 0, rng.choice([0, 5, 60, 3000]))
    if kind is uuid.UUID:
        return uuid.UUID(bytes=rng.randbytes(16))
    if kind is Timestamp:
        return Timestamp(rng.choice([0, -1, _DATE_MS, -_DATE_MS, rng.randint(-_DATE_MS, _DATE_MS)]))
    bits = {Byte: 7, Short: 15, Int: 31, Long: 63}[kind]
    low, high = -(2**bits), 2**bits - 1
    number: HeaderValue = kind(rng.choice([0, -1, low, high, rng.randint(low, high)]))
    return number


def as_text(value: HeaderValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return str(int(value)) if isinstance(value, int) else str(value)


def described(headers: dict[str, HeaderValue]) -> list[list[str]]:
    return [[name, _TYPES[type(value)], as_text(value)] for name, value in headers.items()]


def random_messages(seed: int, count: int) -> list[tuple[dict[str, HeaderValue], bytes]]:
    rng = random.Random(seed)
    messages = []
    for number in range(count):
        # The number keeps the names apart, the letter in front keeps JavaScript from sorting them.
        names = [f"n{some_text(rng, 0, 12)}{i}" for i in range(rng.choice([0, 1, 3, 9]))]
        payload = rng.randbytes(rng.choice([0, 1, 200, 5000 if number % 50 else 100_000]))
        messages.append(({name: some_value(rng) for name in names}, payload))
    return messages


def decoded(frame: bytes) -> Message:
    decoder = EventStreamDecoder()
    (message,) = decoder.feed(frame)
    decoder.finish()
    return message


def test_both_sides_agree_on_random_frames(javascript: Callable[[str, Any], Any]) -> None:
    messages = random_messages(7, FRAMES)
    frames = [encode(headers, payload) for headers, payload in messages]
    asked = [
        {"headers": described(headers), "payload": b64encode(payload).decode(), "frame": b64encode(frame).decode()}
        for (headers, payload), frame in zip(messages, frames, strict=True)
    ]
    used = set()
    for (headers, payload), frame, theirs in zip(messages, frames, javascript("codec.mjs", asked), strict=True):
        # Theirs decodes what ours encoded.
        assert "error" not in theirs, theirs["error"]
        assert theirs["headers"] == described(headers)
        assert b64decode(theirs["payload"]) == payload
        # Ours decodes what theirs encoded; the bytes are the same, too.
        made = b64decode(theirs["frame"])
        message = decoded(made)
        assert described(dict(message.headers)) == described(headers)
        assert message.payload == payload
        assert made == frame
        used |= {kind for _, kind, _ in theirs["headers"]}
    assert used == set(_TYPES.values())


def test_both_sides_refuse_damaged_frames(javascript: Callable[[str, Any], Any]) -> None:
    rng = random.Random(8)
    damaged = []
    for headers, payload in random_messages(9, 300):
        frame = bytearray(encode(headers, payload))
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(frame))
    theirs = javascript("codec.mjs", [{"frame": b64encode(frame).decode()} for frame in damaged])
    assert all("error" in answer for answer in theirs)
    for frame in damaged:
        with pytest.raises(BadEventStream):
            decoded(frame)
