"""Reads that are recognized as chunks without the parser: llhttp, which parses the same bytes, says what is right."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_users.transport.errors import TransportError
from llm_users.transport.exchange import MOST_CHUNK_BYTES, ResponseParser, is_whole, whole_chunks

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTENTS = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from(
        [b"\r\n", b"5\r\nhello\r\n", b"data: {}\r\n\r\n", b"0\r\n\r\n", b"x" * 17, b"x" * MOST_CHUNK_BYTES]
    ),
)
SIZES = st.sampled_from(["{:x}", "{:X}", "0{:x}", "{:x};name=value", "{:x} "])


def parsed(reads: list[bytes]) -> tuple[list[bytes], list[int], bool, str]:
    """Return llhttp's pieces, their number after each read, whether the body is over, and the error."""
    response, ends, failure = ResponseParser(), [], ""
    response.feed_or_refuse(HEAD)
    for read in filter(None, reads):
        try:
            response.feed_or_refuse(read)
        except TransportError as error:
            failure = str(error)
            break
        ends.append(len(response.body))
    return [bytes(piece) for piece in response.body], ends, response.is_over(), failure


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(CONTENTS, SIZES), min_size=1, max_size=12), st.booleans(), st.data())
def test_the_parser_sees_no_difference(chunks: list[tuple[bytes, str]], last: bool, data: st.DataObject) -> None:
    """The parser skips the recognized reads, and the result is the same as if it had parsed all of them."""
    framed = [size.format(len(content)).encode() + b"\r\n" + content + b"\r\n" for content, size in chunks]
    stream = b"".join(framed) + (b"0\r\n\r\n" if last else b"")
    borders = [len(b"".join(framed[:number])) for number in range(len(framed) + 1)]
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=3)) if data.draw(st.booleans()) else []
    kept = [border for border in borders if data.draw(st.integers(0, 9))]
    reads = [stream[start:end] for start, end in pairwise(sorted({0, *kept, *cuts, len(stream)}))]

    found = whole_chunks(reads)
    pieces, ends, is_over, failure = parsed(reads[len(found) :])
    expected, expected_ends, *rest = parsed(reads)
    assert found + pieces == expected
    assert [*range(1, len(found) + 1), *(len(found) + end for end in ends)] == expected_ends
    assert [is_over, failure] == rest


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(CONTENTS, SIZES), max_size=4), st.integers(0, 60), st.booleans())
def test_a_whole_read_leaves_the_parser_at_a_chunk(chunks: list[tuple[bytes, str]], cut: int, last: bool) -> None:
    """After it, a chunk is one piece; after any other read, the parser would see the chunk as something else."""
    read = b"".join(size.format(len(content)).encode() + b"\r\n" + content + b"\r\n" for content, size in chunks)
    read = read[: max(0, len(read) - cut)] if cut < 50 else read + (b"0\r\n\r\n" if last else b"")
    if is_whole(read):
        before, _, is_over, failure = parsed([read])
        after, *_ = parsed([read, b"3\r\nabc\r\n"])
        assert (after, is_over, failure) == ([*before, b"abc"], False, "")


def test_what_servers_send_is_recognized() -> None:
    """Otherwise, the tests above would compare a way with itself."""
    contents = [b"data: %d\n\n" % number for number in range(50)]
    reads = [b"%x\r\n%b\r\n" % (len(content), content) for content in contents]
    assert whole_chunks(reads) == contents
    assert whole_chunks([*reads, b"0\r\n\r\n"]) == contents
    assert whole_chunks([*reads[:7], reads[7] + reads[8], *reads[9:]]) == contents[:7]
    assert whole_chunks([*reads, b"0\r\n\r\n", b""]) == contents
    assert is_whole(b"".join(reads))
    assert is_whole(b"")
    assert not is_whole(reads[0][:-1])
    assert not is_whole(reads[0] + b"0\r\n\r\n")
