import pytest

from llm_users.simulator import http_wire
from llm_users.simulator.http_wire import BadRequest, RequestReader

CHUNKED = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("raw", [CHUNKED, b"POST /a?q=1 HTTP/1.1\r\ncontent-length: 5\r\n\r\nabcde"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_bodies_in_any_pieces_and_pipelined(raw, step):
    reader, found = RequestReader(), []
    stream = raw + b"\r\n" + raw
    for at in range(0, len(stream), step):
        reader.feed(stream[at : at + step])
        while (request := reader.next()) is not None:
            found.append(request)
    assert [(r.method, r.path, r.body) for r in found] == [("POST", "/a", b"abcde")] * 2
    assert reader.waiting_bytes == 0


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * http_wire.MAX_HEAD_BYTES, 431),
    ],
)
def test_what_is_not_a_request(raw, status):
    reader = RequestReader()
    reader.feed(raw)
    with pytest.raises(BadRequest) as caught:
        reader.next()
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("head", "keeps", "chunks"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True, True),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", False, True),
        (b"GET / HTTP/1.0\r\n\r\n", False, False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True, False),
    ],
)
def test_keep_alive(head, keeps, chunks):
    reader = RequestReader()
    reader.feed(head)
    request = reader.next()
    assert request is not None
    assert (request.keep_alive, request.can_chunk) == (keeps, chunks)


def test_continue_is_wanted_only_while_the_body_is_missing():
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.next() is None
    assert reader.wants_continue
    reader.feed(b"ab")
    assert reader.next() is not None
    assert not reader.wants_continue
