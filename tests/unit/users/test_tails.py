"""What servers send after the end of an answer, and figures that are none."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.stream_bytes import DONE, at_once, delta, event, stream, usage
from tests.unit.users.rig import Rig
from tests.wire_server import HOLD, Wire, pause

A, B, END = delta(content="a"), delta(content="b"), delta("stop")
HEARTBEATS = {
    "named": event({"time": 1}, name="ping"),
    "typed": event({"type": "ping"}),
    "null": event(b"null"),
    "word": event(b"keepalive"),
}


def with_usage(part: bytes, output: Any) -> bytes:
    counts = b', "usage": {"prompt_tokens": 7, "completion_tokens": %s}}\n' % output
    return part.replace(b"}\n", counts, 1)


@pytest.mark.parametrize("name", HEARTBEATS)
def test_heartbeats_do_not_prolong_an_answer_that_has_ended(rig: Rig, wire: Wire, name: str) -> None:
    """Heartbeats do not belong to the answer: it ends 1 s after its usage, and E2E ends with the usage."""
    beats = stream([HEARTBEATS[name]] * 25, gap_s=0.1)[1:-2]
    port = wire.serve([*stream([A, B, END, usage(2)])[:-1], *beats, HOLD])
    begun_s = time.monotonic()
    record = rig.ask(port.url).record
    assert time.monotonic() - begun_s < 2.0  # of 2.5 s of heartbeats
    assert (record.error_code, record.output_tokens) == (None, 2)
    assert record.end_to_end_latency_s is not None
    assert record.end_to_end_latency_s < 0.5


@pytest.mark.parametrize("after", [event({"error": {"message": "late"}}), event(b"{junk")], ids=["error", "junk"])
@pytest.mark.parametrize("gap_s", [0.0, 0.05], ids=["one read", "another read"])
def test_what_follows_done_is_not_looked_at(rig: Rig, wire: Wire, after: bytes, gap_s: float) -> None:
    """[DONE] ends the answer, so the row cannot depend on whether one read brought more than that."""
    parts = [A, B, END, usage(2), DONE, after]
    port = wire.serve(stream(parts, gap_s=gap_s) if gap_s else at_once(parts))
    answer = rig.ask(port.url)
    assert (answer.record.error_code, answer.text, answer.record.output_tokens) == (None, "ab", 2)


@pytest.mark.parametrize("wrong", [b"-1", b'"many"', b"true", b"[1]", b"{}", b"1e300", b"NaN", b"Infinity"])
def test_what_is_no_count_does_not_replace_a_count(rig: Rig, wire: Wire, wrong: bytes) -> None:
    """The count is that of the last usage that has one: 2, for two chunks."""
    parts = [with_usage(A, b"1"), with_usage(B, b"2"), with_usage(END, wrong), DONE]
    record = rig.ask(wire.serve(stream(parts)).url).record
    assert (record.error_code, record.output_tokens, record.output_tokens_source) == (None, 2, "usage")


def test_usage_without_a_count_does_not_end_the_wait_for_it(rig: Rig, wire: Wire) -> None:
    """A count of -1 is none yet; the one that comes after 1.5 s is."""
    late = [pause(1.5), *stream([usage(2), DONE])[1:]]
    record = rig.ask(wire.serve([*stream([A, B, END, usage(-1)])[:-1], *late]).url).record
    assert (record.output_tokens, record.output_tokens_source) == (2, "usage")


def test_numbers_that_json_does_not_have_are_read(rig: Rig, wire: Wire) -> None:
    """Python's writer of JSON lets minus infinity through, as for the log of a probability of 0."""
    chunk = A.replace(b'"finish_reason"', b'"logprobs": {"content": [{"logprob": -Infinity}]}, "finish_reason"')
    answer = rig.ask(wire.serve(stream([chunk, B, END, usage(2), DONE])).url)
    assert (answer.record.error_code, answer.text) == (None, "ab")
