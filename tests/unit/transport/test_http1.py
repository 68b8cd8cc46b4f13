"""Requests as bytes and responses from bytes, whatever the split."""

from __future__ import annotations

import pytest

from llm_users.transport.connection import Origin
from llm_users.transport.errors import BadResponse, ResponseCut
from llm_users.transport.exchange import ResponseParser, request_bytes
from tests.stream_bytes import CHUNKED, LAST_CHUNK, LENGTH, UNTIL_CLOSE, chunk, head

HERE = Origin("http", "127.0.0.1", 8000)
BODY = b"data: one\n\ndata: two\n\n"


def parsed(pieces: list[bytes]) -> tuple[ResponseParser, bytes]:
    response = ResponseParser()
    for piece in pieces:
        response.feed_or_refuse(piece)
    return response, b"".join(map(bytes, response.body))


RESPONSES = {
    CHUNKED: head(CHUNKED) + chunk(BODY[:5]) + chunk(BODY[5:]) + LAST_CHUNK,
    "chunked with extension and trailer": head(CHUNKED)
    + b"B;x=y\r\n" + BODY[:11] + b"\r\n" + chunk(BODY[11:]) + b"0\r\nX-Trailer: t\r\n\r\n",
    LENGTH: head(LENGTH, len(BODY)) + BODY,
    "interim 100": b"HTTP/1.1 100 Continue\r\n\r\n" + head(CHUNKED) + chunk(BODY) + LAST_CHUNK,
    "interim 103 twice": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + head(LENGTH, len(BODY)) + BODY,
}  # fmt: skip


@pytest.mark.parametrize("name", RESPONSES)
def test_every_split_of_a_response_is_parsed_alike(name: str) -> None:
    wire = RESPONSES[name]
    splits = [[wire], [wire[i : i + 1] for i in range(len(wire))]]
    splits += [[wire[:i], wire[i:]] for i in range(1, len(wire))]
    for pieces in splits:
        response, body = parsed(pieces)
        assert (response.status, response.reason, body) == (200, "OK", BODY)
        assert response.is_over()
        assert response.reusable
        assert response.headers[0] == (b"Content-Type", b"text/event-stream")
        assert len(response.headers) == 2


def test_an_interim_response_alone_is_not_the_response() -> None:
    response, _ = parsed([b"HTTP/1.1 100 Continue\r\n\r\n"])
    assert not response.headers_complete
    assert not response.is_over()


def test_a_body_until_the_close_ends_with_the_connection() -> None:
    response, body = parsed([head(UNTIL_CLOSE), BODY])
    assert (response.is_over(), body) == (False, BODY)
    assert not response.ends_by_itself()
    response.feed_or_refuse(b"")
    assert response.is_over()
    assert not response.reusable


@pytest.mark.parametrize(
    "wire", [head(LENGTH, 100) + b"abc", head(CHUNKED) + b"5\r\nab", head(CHUNKED) + chunk(b"ab"), head(CHUNKED)]
)
def test_a_body_that_ends_too_early_is_cut(wire: bytes) -> None:
    response, _ = parsed([wire])
    with pytest.raises(ResponseCut):
        response.feed_or_refuse(b"")


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"junk", b"\x00"])
def test_what_follows_a_complete_response_is_not_part_of_it(extra: bytes) -> None:
    response, body = parsed([RESPONSES[LENGTH] + extra])
    assert (body, response.status, len(response.headers)) == (BODY, 200, 2)
    assert response.is_over()
    assert not response.reusable


@pytest.mark.parametrize(
    "garbage", [b"garbage\r\n\r\n", b"\x16\x03\x01\x02", b"HTTP/1.1 abc\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(BadResponse, match="not HTTP"):
        parsed([garbage])


def test_endless_headers_are_refused() -> None:
    with pytest.raises(BadResponse, match="headers are longer"):
        parsed([b"HTTP/1.1 200 OK\r\n", *[b"X-Filler: " + b"x" * 1000 + b"\r\n"] * 300])


def test_endless_interim_responses_are_refused() -> None:
    with pytest.raises(BadResponse, match="headers are longer"):
        parsed([b"HTTP/1.1 100 Continue\r\nX-Filler: " + b"x" * 1000 + b"\r\n\r\n"] * 300)


def test_an_empty_header_and_odd_bytes_are_kept_apart() -> None:
    response, _ = parsed([b"HTTP/1.1 200 OK\r\nX-Empty:\r\nX-Name: \xe9\r\nContent-Length: 0\r\n\r\n"])
    assert response.headers == [(b"X-Empty", b""), (b"X-Name", b"\xe9"), (b"Content-Length", b"0")]


def test_a_request_refuses_compression_and_counts_its_body() -> None:
    headers = [(b"Host", b"example.org"), (b"Accept-Encoding", b"gzip"), (b"Connection", b"close"), (b"X-A", b"b")]
    wire = request_bytes("POST", b"/v1/x", HERE, headers, b"body")
    lines = wire.split(b"\r\n")
    assert lines[:2] == [b"POST /v1/x HTTP/1.1", b"Host: example.org"]
    assert b"Accept-Encoding: identity" in lines
    assert b"Connection: keep-alive" in lines
    assert b"Content-Length: 4" in lines
    assert b"gzip" not in wire
    assert wire.endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (HERE, b"127.0.0.1:8000"),
        (Origin("http", "::1", 8000), b"[::1]:8000"),
        (Origin("https", "example.org", 443), b"example.org"),
        (Origin("https", "example.org", 80), b"example.org:80"),
    ],
)
def test_the_host_header_names_the_origin(origin: Origin, host: bytes) -> None:
    assert b"\r\nHost: " + host + b"\r\n" in request_bytes("GET", b"/", origin, [], b"")
