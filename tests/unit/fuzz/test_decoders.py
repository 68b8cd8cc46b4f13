"""Decoders under bytes that nobody meant: the documented errors only, the same for any split, in bounded memory."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise
from typing import Any
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_users.transport import eventstream, sse
from llm_users.transport.errors import BadResponse, ResponseCut
from llm_users.transport.eventstream import BadEventStream, EventStreamDecoder, encode
from llm_users.transport.exchange import MAX_HEADER_BYTES, ResponseParser
from llm_users.transport.sse import EventTooLong, SseDecoder
from tests.unit.fuzz.budget import fuzzed

CUTS = st.lists(st.integers(0, 400), max_size=10)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# Server-sent events.

SSE_PARTS = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"data",
        b"event: error",
        b"error: ",
        b"{",
        b"}",
        b"<html>",
        b"</html>",
        b"[",
        b"event:",
        b"id: 7",
        b": c",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b" ",
        b"{}",
        b"[DONE]",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\x00",
        "é😀\u2028".encode(),
        b"x" * 50,
    ]
) | st.binary(max_size=6)


@fuzzed(500)
@given(st.lists(SSE_PARTS, max_size=30), CUTS)
@example([b"data", b"\r", b"\n", b"\r"], [5])
def test_events_do_not_depend_on_the_split(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    assert events_of(pieces_of(stream, cuts)) == events_of([stream])


def events_of(pieces: list[bytes]) -> list[tuple[bytes, str]]:
    decoder = SseDecoder()
    events = [event for piece in pieces for event in decoder.feed(bytearray(piece))] + decoder.finish()
    document = [(decoder.document, "document")] if decoder.is_document else []
    return [(bytes(event), getattr(event, "name", type(event).__name__)) for event in events] + document


@pytest.mark.parametrize(
    "again",
    [
        b"data: x\n",
        b"data:\n",
        b"data\n",
        b"x",
        b"data: " + b"y" * 1000 + b"\n",
        b"event: " + b"z" * 99 + b"\n",
        b":\n\n",
        b"error: x\n",
        b"data: x\n\n{\n",
        b"{\n",
        b" \n",
        b"<html>\n",
    ],
)
@pytest.mark.parametrize("size", [1 << 10, 1 << 14])
def test_no_event_takes_more_memory_than_it_may(again: bytes, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1 << 18)
    decoder = SseDecoder()
    piece = again * (size // len(again))
    tracemalloc.start()
    try:
        for _ in range((1 << 20) // len(piece)):
            decoder.feed(piece)
    except EventTooLong:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


# AWS's event streams.

MESSAGES = st.binary(max_size=40).map(lambda payload: encode({":event-type": "chunk"}, payload))


def _prelude(lengths: tuple[int, int]) -> bytes:
    head = struct.pack(">II", *lengths)
    return head + struct.pack(">I", crc32(head))


PRELUDES = st.tuples(st.integers(0, 80) | st.integers(0, 2**32 - 1), st.integers(0, 80)).map(_prelude)


@fuzzed(500)
@given(st.lists(MESSAGES | PRELUDES | st.binary(max_size=20), max_size=6), CUTS)
def test_messages_do_not_depend_on_the_split(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    assert messages_of(pieces_of(stream, cuts)) == messages_of([stream])


def messages_of(pieces: list[bytes]) -> tuple[list[Any], str]:
    decoder = EventStreamDecoder()
    found: list[Any] = []
    try:
        for piece in pieces:
            found += decoder.feed(bytearray(piece))
        found += decoder.finish()
    except BadEventStream as error:
        return found, str(error)
    return found, ""


@fuzzed(200)
@given(st.lists(MESSAGES, min_size=1, max_size=4), st.data())
def test_a_changed_byte_is_never_taken_for_right(parts: list[bytes], data: st.DataObject) -> None:
    stream = bytearray(b"".join(parts))
    place, change = data.draw(st.integers(0, len(stream) - 1)), data.draw(st.integers(1, 255))
    stream[place] ^= change
    before = 0
    while sum(map(len, parts[: before + 1])) <= place:
        before += 1
    found, problem = messages_of([bytes(stream)])
    assert problem
    assert found == messages_of([b"".join(parts[:before])])[0]


@fuzzed(100)
@given(st.binary(min_size=0, max_size=400))
def test_headers_of_any_bytes_are_read_or_refused(block: bytes) -> None:
    head = struct.pack(">II", 16 + len(block), len(block))
    body = head + struct.pack(">I", crc32(head)) + block
    found, problem = messages_of([body + struct.pack(">I", crc32(body))])
    assert len(found) == (not problem)
    assert len(eventstream._blocks) <= eventstream._MAX_CACHED_BLOCKS


# HTTP.

HTTP_PARTS = st.sampled_from(
    [
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"HTTP/2 ",
        b"200 OK\r\n",
        b"100 Continue\r\n\r\n",
        b"103 Hints\r\n",
        b"204 None\r\n",
        b"304 Not\r\n",
        b"500 \xe9\r\n",
        b"999 ?\r\n",
        b"000\r\n",
        b"content-length: 3\r\n",
        b"content-length: 0\r\n",
        b"content-length: -1\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"transfer-encoding: chunked\r\n",
        b"transfer-encoding: gzip\r\n",
        b"connection: close\r\n",
        b"connection: upgrade\r\n",
        b"upgrade: x\r\n",
        b"x-\xe9: \xff\r\n",
        b"x: a\r\n b\r\n",
        b": \r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"ffffffffffffffff\r\n",
        b'1;x="\r"\r\nz\r\n',
        b"abc",
        b"\x00",
    ]
) | st.binary(max_size=4)


@fuzzed(800)
@given(st.lists(HTTP_PARTS, max_size=14), CUTS)
@example([b"HTTP/1.1 ", b"200 OK\r\n", b"content-length: 3\r\n", b"\r\n", b"abc", b"abc"], [46])
def test_a_response_does_not_depend_on_the_split(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join([b"HTTP/1.1 200 OK\r\n", *parts] if len(parts) % 2 else parts)
    assert response_of(pieces_of(stream, cuts)) == response_of([stream])


def response_of(pieces: list[bytes]) -> tuple[Any, ...]:
    response = ResponseParser()
    problem = ""
    try:
        for piece in filter(None, pieces):
            response.feed_or_refuse(piece)
            if response.is_over():
                break  # nobody reads on after that
        else:
            response.feed_or_refuse(b"")
    except (BadResponse, ResponseCut) as error:
        problem = type(error).__name__
    if not response.headers_complete:
        return (problem,)
    body = b"".join(map(bytes, response.body))
    return problem, response.status, response.headers, response.reason, response.is_over(), body


@pytest.mark.parametrize(
    "again",
    [b"x-filler: y\r\n", b"y" * 100, b"HTTP/1.1 100 Continue\r\n\r\n", b"x:\r\n", b" \r\n"],
)
@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nx: y"])
def test_no_header_takes_more_memory_than_it_may(first: bytes, again: bytes) -> None:
    if b"\r\n\r\n" in again and first:
        pytest.skip("these headers end")
    response = ResponseParser()
    response.feed_or_refuse(first)
    piece = again * 500
    pieces = [piece] * (MAX_HEADER_BYTES // len(piece) + 1)
    with pytest.raises(BadResponse):
        list(map(response.feed_or_refuse, pieces))


@pytest.mark.parametrize("again", [b"x-filler: yyyyyyyyyyyy\r\n", b"y" * 100])
def test_trailers_are_not_kept(again: bytes) -> None:
    response = ResponseParser()
    response.feed_or_refuse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ")
    tracemalloc.start()
    for _ in range(1000):
        response.feed_or_refuse(again * 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert len(response.headers) == 1
