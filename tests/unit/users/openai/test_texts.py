"""Pieces of text that are decoded together give the same answer as one by one."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_users.transport.exchange import Arrivals
from llm_users.transport.sse import SseDecoder
from llm_users.users.bad_events import StreamFailure
from llm_users.users.openai.events import OpenAIEvents
from tests.stream_bytes import DONE, delta, event, usage

TEXTS = st.text(min_size=1, max_size=5)
UNUSUAL = st.sampled_from(
    [
        delta(role="assistant", content=""),
        delta(content=None),
        delta(reasoning_content="hm"),
        delta(content="x", tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{}"}}]),
        delta("stop"),
        delta("length", content="y"),
        usage(3),
        DONE,
        b": ping\n\n",
        b"event: message\n" + delta(content="named"),
        b'data: {"choices":\ndata: [{"index":0,"delta":{"content":"two lines"}}]}\n\n',
        b'data: {"choices": [\n\n',
        b'data: {"index":0}]}\n\n',
        event({"choices": [{"index": 1, "delta": {"content": "other choice"}}]}),
        event({"error": {"message": "no", "code": "bad"}}),
        event({"choices": [{"index": 0, "text": "legacy"}]}),
        event(
            {"id": "chat-2", "choices": [{"index": 0, "delta": {"content": "z"}, "usage": {"completion_tokens": 4}}]}
        ),
        delta(content="carriage").replace(b"\n\n", b"\r\n\r\n"),
        event({"choices": [{"index": 0, "delta": {"content": 7}}]}),
    ]
)
EVENTS = st.lists(st.one_of(TEXTS.map(lambda text: delta(content=text)), UNUSUAL), max_size=30)


def read_by_read(arrivals: Arrivals, decoder: SseDecoder, events: OpenAIEvents, first: int = 0) -> None:
    """Process pieces with ``take``, as ``Request._process`` does, from this piece on."""
    start = 0
    for stamp_ns, clock_ns, end in arrivals.reads():
        for piece in arrivals.pieces[max(start, first) : end]:
            for data in decoder.feed(piece):
                events.take(data, stamp_ns, clock_ns)
        start = end


def outcome(parts: list[Arrivals], *, together: bool) -> tuple[Any, ...]:
    decoder, events, failure = SseDecoder(), OpenAIEvents(), None
    try:
        for arrivals in parts:
            found = decoder.whole_events(arrivals.pieces) if together else []
            first = events.take_texts(found, *arrivals.stamps_of_pieces()) if found else 0
            read_by_read(arrivals, decoder, events, first)
    except Exception as error:
        failure = type(error), str(error)
    chunks = events.chunks
    return (
        chunks.stamps_ns, chunks.clocks_ns, chunks.texts, chunks.text_at, chunks.reasoning_at, chunks.choice_at,
        chunks.first_answer, events.finish_reason, events.done, events.response_id, events.usage, failure,
    )  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(EVENTS, st.data())
def test_together_is_as_one_by_one(events: list[bytes], data: st.DataObject) -> None:
    """The bytes are split into pieces, pieces into reads, and reads into parts, all at random positions."""
    stream = b"".join([delta(role="assistant"), delta(content="first"), *events])
    whole = [len(stream) - len(b"".join(events[number:])) for number in range(len(events) + 1)]
    cuts = data.draw(st.lists(st.one_of(st.sampled_from(whole), st.integers(0, len(stream))), max_size=60))
    borders = sorted({0, *cuts, *whole[:: data.draw(st.integers(1, 3))], len(stream)})
    pieces = [bytearray(stream[start:end]) for start, end in pairwise(borders)]
    parts, place, moment = [], 0, 0
    while place < len(pieces):
        part = pieces[place : place + data.draw(st.integers(1, 40))]
        place += len(part)
        ends = sorted({*data.draw(st.lists(st.integers(1, len(part)), max_size=40)), len(part)})
        if data.draw(st.booleans()):
            ends = list(range(1, len(part) + 1))
        stamps_ns = list(range(moment, moment + len(ends)))
        moment += len(ends)
        parts.append(Arrivals(part, stamps_ns, [stamp_ns + 1000 for stamp_ns in stamps_ns], ends))
    assert outcome(parts, together=True) == outcome(parts, together=False)


def test_a_plain_part_is_decoded_together() -> None:
    """Otherwise, the test above would compare a way with itself."""
    pieces = [bytearray(delta(content=str(number))) for number in range(50)]
    decoder, events = SseDecoder(), OpenAIEvents()
    read_by_read(Arrivals(pieces[:1], [1], [1], [1]), decoder, events)
    numbers = list(range(1, 52))
    rest = Arrivals([*pieces[1:], bytearray(delta("stop")), bytearray(DONE)], numbers, numbers, numbers)
    found = decoder.whole_events(rest.pieces)
    assert [json.loads(text)["choices"][0]["delta"] for text in found[:49]] == [
        {"content": str(n)} for n in range(1, 50)
    ]
    assert events.take_texts(found, *rest.stamps_of_pieces()) == 49
    assert events.chunks.texts == [str(number) for number in range(50)]


def test_a_failure_is_the_same() -> None:
    pieces = [bytearray(delta(content="a")), bytearray(event({"error": {"message": "no", "code": "bad"}}))]
    arrivals = Arrivals(pieces, [1, 2], [1, 2], [1, 2])
    kind, text = outcome([arrivals], together=True)[-1]
    assert (kind, text) == (StreamFailure, "no")
