"""The decoder of server-sent events: whatever the split, the same events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_users.transport import sse
from llm_users.transport.sse import EventTooLong, NamedEvent, SseDecoder

STREAMS = {
    "plain": (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
    "carriage returns and newlines": (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),
    "carriage returns": (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
    "mixed": (b"data: one\r\n\ndata: two\n\r\n", [b"one", b"two"]),
    "byte order mark": (b"\xef\xbb\xbfdata: one\n\n", [b"one"]),
    "only the first mark is one": (b"\xef\xbb\xbf\xef\xbb\xbfdata: one\n\ndata: two\n\n", [b"two"]),
    "comments": (b": hi\n\ndata: one\n: in between\n\n:\n\n", [b"one"]),
    "several lines": (b"data: one\ndata: two\n\n", [b"one\ntwo"]),
    "other fields": (b"id: 1\nretry: 5\nnonsense\ndata: one\n\n", [b"one"]),
    "no space": (b"data:one\n\ndata:  two\n\n", [b"one", b" two"]),
    "empty data": (b"data:\n\ndata: \n\ndata\n\n", [b"", b"", b""]),
    "no data at all": (b"event: x\n\ndata: one\n\n", [b"one"]),
    "colons and text": ("data: {\"a\": \"ü: 日本\"}\n\n".encode(), ['{"a": "ü: 日本"}'.encode()]),
    "unfinished": (b"data: one\n\ndata: two", [b"one", b"two"]),
    "unfinished after its line": (b"data: one\n\ndata: two\r", [b"one", b"two"]),
    "line separators that are none": ("data: a\u2028b\x0bc\n\n".encode(), ["a\u2028b\x0bc".encode()]),
    "nothing": (b"", []),
    "error field": (b"data: one\n\nerror: {\"a\": 1}\n\ndata: two\n\n", [b"one", b'{"a": 1}', b"two"]),
    "error field without a blank line before": (b"data: one\nerror: two\n\n", [b"one", b"two"]),
    "bare JSON": (b'data: one\n\n{"a": 1}\ndata: two\n\n', [b"one", b'{"a": 1}', b"two"]),
    "bare JSON without a line's end": (b'data: one\n\n{"a": 1}', [b"one", b'{"a": 1}']),
    "bare JSON on several lines": (b'data: 1\n\n{\n "a": {\n }\n}\ndata: 2\n\n', [b"1", b'{\n "a": {\n }\n}', b"2"]),
    "bare JSON that is cut": (b'data: one\n\n{\n "a":', [b"one", b'{\n "a":']),
    "bare JSON after a comment": (b': c\n\n{"a": 1}\n', [b'{"a": 1}']),
    "bare end": (b"data: one\n\n[DONE]\n\n", [b"one", b"[DONE]"]),
    "bare page": (b"data: one\n\n<html>\n<p>x\n</html>\n[1]\n<b>\n", [b"one", b"<html>\n<p>x\n</html>"]),
    "white space first": (b" \r\n\t\ndata: one\n\n", [b"one"]),
}  # fmt: skip


def decoded(pieces: list[bytes]) -> list[bytes]:
    decoder = SseDecoder()
    events = [event for piece in pieces for event in decoder.feed(bytearray(piece))]
    return events + decoder.finish()


@pytest.mark.parametrize("name", STREAMS)
def test_every_split_of_a_stream_gives_the_same_events(name: str) -> None:
    stream, events = STREAMS[name]
    assert decoded([stream]) == events
    assert decoded([stream[i : i + 1] for i in range(len(stream))]) == events
    for first in range(len(stream)):
        for second in range(first, len(stream)):
            assert decoded([stream[:first], stream[first:second], stream[second:]]) == events, (first, second)


@pytest.mark.parametrize(
    "document", [b'{"a": 1}', b"[{\n}]\n\n", b'"text"', b"<html>\n\ndata: x\n\n</html>", b"{\ndata: x\n\n"]
)
@pytest.mark.parametrize("before", [b"", b"\r\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_document_in_the_place_of_a_stream_is_kept_as_it_is(before: bytes, document: bytes) -> None:
    whole = before + document
    for size in (1, 2, 7, len(whole)):
        decoder = SseDecoder()
        for start in range(0, len(whole), size):
            assert decoder.feed(bytearray(whole[start : start + size])) == []
        assert decoder.finish() == []
        assert (decoder.is_document, decoder.document) == (True, document)


LINES = st.lists(
    st.sampled_from(
        [b"data: x", b"data: ", b"data:y", b"", b": c", b"event: e", b"data", b"id: 1", "data: é😀".encode()]
    ),
    max_size=12,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@settings(max_examples=300, deadline=None)
@given(
    lines=LINES,
    ends=st.lists(ENDS, min_size=12, max_size=12),
    cuts=st.lists(st.integers(0, 120), max_size=8),
    mark=st.booleans(),
)
def test_any_split_gives_the_events_of_the_whole(
    lines: list[bytes], ends: list[bytes], cuts: list[int], mark: bool
) -> None:
    stream = b"\xef\xbb\xbf" * mark + b"".join(line + end for line, end in zip(lines, ends, strict=False))
    whole = decoded([stream])
    places = sorted({min(cut, len(stream)) for cut in cuts})
    edges = [0, *places, len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    split = decoded(pieces)
    assert split == whole
    assert [getattr(event, "name", "") for event in split] == [getattr(event, "name", "") for event in whole]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_are_survived_and_decoded_alike(pieces: list[bytes]) -> None:
    assert decoded(pieces) == decoded([b"".join(pieces)])


@given(
    st.lists(st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=9), max_size=9)
)
def test_one_event_per_piece_is_decoded_like_all_at_once(texts: list[str]) -> None:
    pieces = [b"data: " + text.encode() + b"\n\n" for text in texts]
    assert decoded(pieces) == decoded([b"".join(pieces)]) == [text.encode() for text in texts]


def test_events_have_their_names() -> None:
    plain, named, after = decoded([b"data: a\n\n", b"event: error\ndata: b\n\n", b"data: c\n\n"])
    assert (plain, named, after) == (b"a", b"b", b"c")
    assert isinstance(named, NamedEvent)
    assert named.name == "error"
    assert not isinstance(after, NamedEvent)


@pytest.mark.parametrize("line", [b"data: " + b"x" * 50, b"data: x\n" * 30, b"y" * 70])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_giant_event_is_refused(monkeypatch: pytest.MonkeyPatch, line: bytes, size: int) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 20)
    decoder = SseDecoder()
    decoder.feed(b"data: fine\n\n")
    pieces = [line[start : start + size] for start in range(0, len(line), size)]
    with pytest.raises(EventTooLong):
        list(map(decoder.feed, pieces))


def test_a_long_line_in_many_pieces_is_not_looked_at_again_and_again() -> None:
    decoder = SseDecoder()
    decoder.feed(b"data: ")
    for _ in range(4000):  # 4 MB; looking at all of it each time would take minutes
        decoder.feed(b"x" * 1000)
    (event,) = decoder.feed(b"\n\n")
    assert len(event) == 4_000_000
