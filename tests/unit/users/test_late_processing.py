"""The rows do not depend on when what has arrived is processed: at once, a second later, or when the request ends.

Each answer below is complete, or has failed, in bytes that arrived up to a second before the request was ended by
something else.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.stream_bytes import CHUNKED, DONE, chunk, delta, event, head, stream, usage
from tests.unit.users.rig import Rig
from tests.wire_server import HOLD, Script, Wire, pause, send

MakeRig = Callable[..., Rig]

FAILURE = event({"error": {"message": "the model crashed", "code": "overloaded"}})
TEXTS = [delta(content=letter) for letter in "abcdef"]


def held_open(parts: list[bytes], gap_s: float = 0.02) -> Script:
    """An answer after which the server keeps the response open."""
    return [*stream(parts, gap_s=gap_s)[:-2], HOLD]


def test_an_error_in_the_stream_comes_before_the_deadline(rig_with: MakeRig, wire: Wire) -> None:
    """The error arrived 0.2 s after the request, the deadline came at 0.5 s, and nothing was processed in between."""
    rig = rig_with(llm_timeout="500ms")
    record = rig.ask(wire.serve(held_open([*TEXTS, FAILURE])).url).record
    assert (record.error_code, record.chunks) == ("overloaded", 6)
    assert record.end_to_end_latency_s is not None
    assert record.end_to_end_latency_s < 0.4


def test_a_finish_reason_comes_before_the_deadline(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(llm_timeout="500ms")
    answer = rig.ask(wire.serve(held_open([*TEXTS, delta("stop")])).url)
    assert (answer.record.error_code, answer.record.finish_reason, answer.text) == (None, "stop", "abcdef")
    assert answer.record.end_to_end_latency_s is not None
    assert answer.record.end_to_end_latency_s < 0.4


def test_what_arrived_before_the_deadline_is_in_the_row(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(llm_timeout="500ms")
    record = rig.ask(wire.serve(held_open(TEXTS)).url).record
    assert (record.error_code, record.chunks) == ("timeout", 6)
    assert record.gap_p50_s == pytest.approx(0.02, abs=0.01)
    assert record.end_to_end_latency_s == pytest.approx(0.5, abs=0.1)


def test_done_comes_before_a_cancellation(rig_with: MakeRig, wire: Wire) -> None:
    """[DONE] ends the answer; the cancellation 60 ms later finds nothing to cancel, though the response is open."""
    rig = rig_with(llm_cancel="1:200ms")
    answer = rig.ask(wire.serve(held_open([*TEXTS, delta("stop"), usage(6), DONE], gap_s=0.014)).url)
    assert (answer.record.error_code, answer.text, answer.record.output_tokens) == (None, "abcdef", 6)


def test_an_error_ends_a_stream_that_goes_on(rig: Rig, wire: Wire) -> None:
    """The server sends for 5 s after its error, which is noticed within a second and has its own time."""
    port = wire.serve(stream([*TEXTS, FAILURE, *TEXTS * 100], gap_s=0.008))
    start_s = time.monotonic()
    record = rig.ask(port.url).record
    assert (record.error_code, record.chunks) == ("overloaded", 6)
    assert record.end_to_end_latency_s is not None
    assert record.end_to_end_latency_s < 0.3
    assert time.monotonic() - start_s < 2.0


def test_the_stamps_of_a_read_with_several_events_are_theirs(rig: Rig, wire: Wire) -> None:
    """Two events in one read share its stamp. The other gaps are the times between the reads."""
    pairs = [b"".join(TEXTS[number : number + 2]) for number in (0, 2, 4)]
    script = [send(head(CHUNKED))]
    for pair in pairs:
        script += [pause(0.03), send(chunk(pair))]
    script += [pause(0.03), send(chunk(delta("stop"))), send(chunk(usage(6))), send(chunk(DONE)), send(b"0\r\n\r\n")]
    record = rig.ask(wire.serve(script).url).record
    assert (record.chunks, record.coalesced, record.error_code) == (6, 3, None)
    assert record.gap_max_s == pytest.approx(0.03, abs=0.01)
    assert record.gap_p50_s == 0.0
    assert record.last_token_s is not None
    assert record.ttft_s is not None
    assert record.last_token_s - record.ttft_s == pytest.approx(0.06, abs=0.02)


def test_a_listener_gets_each_token_when_it_arrives(make_rig: MakeRig, wire: Wire) -> None:
    rig = make_rig()
    heard: list[tuple[int, float]] = []
    rig.environment.events.llm_token.add_listener(
        lambda index, stamp_ns, **_event: heard.append((index, time.monotonic() - stamp_ns / 1e9))
    )
    rig.ask(wire.serve(stream([*TEXTS, delta("stop"), DONE], gap_s=0.03)).url)
    assert [index for index, _late_s in heard] == list(range(6))
    assert max(late_s for _index, late_s in heard) < 0.02
