"""Answers that do not end are given up, in memory and time that do not depend on the server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.stream_bytes import CHUNKED, DONE, chunk, delta, event, head, usage
from tests.unit.users.rig import Rig
from tests.wire_server import HOLD, Step, Wire, send

CHUNKS, CHARACTERS = 2000, 40_000
_END = chunk(delta("stop") + usage(9) + DONE) + b"0\r\n\r\n"


@pytest.fixture(scope="module", params=["fast", "sdk"])
def narrow(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> Rig:
    """A rig with small bounds."""
    bounds = {"max_answer_chunks": CHUNKS, "max_answer_characters": CHARACTERS}
    return make_rig(attributes=bounds, llm_transport=request.param, llm_timeout="20s")


def _many(data: bytes, times: int) -> list[Step]:
    """So many equal events in a few writes; the stream stays open."""
    events = [chunk(data * 100)] * (times // 100)
    return [send(head(CHUNKED)), send(b"".join(events)), HOLD]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (delta(content="a"), ("2,000 chunks", "max_answer_chunks")),
        (delta(content="a" * 100), ("40,000 characters", "max_answer_characters")),
        (delta(reasoning_content="a" * 100), ("40,000 characters",)),
        (delta(tool_calls=[{"index": 0, "function": {"arguments": "a" * 100}}]), ("40,000 characters",)),
    ],
    ids=["chunks", "text", "reasoning", "arguments"],
)
def test_an_answer_beyond_a_bound_is_malformed(narrow: Rig, wire: Wire, data: bytes, words: tuple[str, ...]) -> None:
    record = narrow.ask(wire.serve(_many(data, 6000)).url).record
    assert record.error_code == "malformed", record
    for word in words:
        assert word in (record.error_message or "")
    assert record.ttft_s is not None  # what was measured until then is kept
    assert record.chunks > 0


def test_an_answer_within_the_bounds_is_whole(narrow: Rig, wire: Wire) -> None:
    script = [*_many(delta(content="a" * 10), 1900)[:2], send(_END)]
    answer = narrow.ask(wire.serve(script).url)
    assert (answer.record.error_code, answer.text) == (None, "a" * 19_000)


def test_what_follows_the_finish_reason_is_bounded_too(narrow: Rig, wire: Wire) -> None:
    script = [
        send(head(CHUNKED) + chunk(delta(content="a") + delta("stop"))),
        *_many(delta(content="a" * 100), 6000)[1:],
    ]
    assert narrow.ask(wire.serve(script).url).record.error_code == "malformed"


def test_what_is_no_output_ends_as_well(narrow: Rig, wire: Wire) -> None:
    endless = event(
        {"id": "chat-1", "choices": [], "usage": {"completion_tokens": 1}, "system_fingerprint": "f" * 60_000}
    )
    script = [send(head(CHUNKED) + chunk(delta(content="a"))), *[send(chunk(endless * 100))] * 6, HOLD]
    record = narrow.ask(wire.serve(script).url).record
    assert (record.error_code, record.chunks) == ("malformed", 1)
    assert "does not end" in (record.error_message or "")


def test_arguments_of_a_tool_call_take_linear_time(rig: Rig, wire: Wire) -> None:
    piece = delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "", "arguments": "0123456789" * 10}}])
    script = [send(head(CHUNKED)), *[send(chunk(piece * 500))] * 100, send(_END)]
    answer = rig.ask(wire.serve(script).url)
    assert answer.record.error_code is None, answer.record
    assert answer.record.chunks == 50_000
    (call,) = answer.tool_calls
    assert call["id"] == "c"
    assert call["function"]["arguments"] == "0123456789" * 500_000
