"""TPOT and buffered answers, stream by stream: what the row says against when the scripted server sent each event."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from llm_users import AnthropicUser
from llm_users.simulator.launch import launch
from tests.stream_bytes import CHUNKED, DONE, chat_events, delta, event, framed, stream, usage
from tests.unit.users.rig import Rig, at
from tests.wire_server import Port, Script, Step, Wire, pause, send

pytestmark = pytest.mark.alone

NS = 1_000_000_000
GAP_S = 0.02
EXACT_S = 0.001  # of a time per token, over at least 2 tokens
WORDS = ["one", " two", " three", " four", " five"]


def contents(*pieces: str) -> list[bytes]:
    return [delta(content=piece) for piece in pieces]


def paced(parts: list[bytes], last_pause_s: float = GAP_S) -> Script:
    """One event per write, a gap before each; another pause before the finish event, which is the last but two."""
    writes = framed(parts)
    steps: list[Step] = [send(writes[0])]
    for place, write in enumerate(writes[1:], 1):
        steps += [pause(last_pause_s if place == len(parts) - 2 else GAP_S), send(write)]
    return steps


def sent_s(port: Port) -> list[float]:
    """When the events of the only answer left, without the head."""
    (request,) = port.requests()
    return [stamp_ns / NS for stamp_ns in request.sent_ns[1:]]


def test_the_finish_event_is_the_stop_token_that_usage_counts(rig: Rig, wire: Wire) -> None:
    """vLLM's stream: 4 words, then the stop token, which has no text. usage says 5."""
    port = wire.serve(paced([*contents(*WORDS[:4]), delta("stop"), usage(5), DONE]))
    record = rig.ask(port.url).record
    times = sent_s(port)
    assert (record.chunks, record.output_tokens) == (4, 5)
    assert record.tpot_s == pytest.approx((times[4] - times[0]) / 4, abs=EXACT_S)
    assert record.last_token_s == pytest.approx(times[3] - times[0] + record.ttft_s, abs=0.002)  # type: ignore[operator]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_without_a_stop_token_the_last_chunk_is_the_end(rig: Rig, wire: Wire, reason: str) -> None:
    port = wire.serve(paced([*contents(*WORDS[:4]), delta(reason), usage(7), DONE]))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert record.tpot_s == pytest.approx((times[3] - times[0]) / 6, abs=EXACT_S)


def test_as_many_chunks_as_tokens_leave_no_stop_token(rig: Rig, wire: Wire) -> None:
    port = wire.serve(paced([*contents(*WORDS[:4]), delta("stop"), usage(4), DONE]))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert record.tpot_s == pytest.approx((times[3] - times[0]) / 3, abs=EXACT_S)


def test_a_local_count_has_no_stop_token(rig: Rig, wire: Wire) -> None:
    port = wire.serve(paced([*contents("one two", " three four"), delta("stop"), event({"choices": []}), DONE]))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert record.output_tokens_source == "tokenizer"
    assert record.output_tokens is not None
    assert record.tpot_s == pytest.approx((times[1] - times[0]) / (record.output_tokens - 1), abs=EXACT_S)


def test_a_finish_event_long_after_the_last_chunk_is_not_the_stop_token_s(rig: Rig, wire: Wire) -> None:
    """Two mean gaps are 40 ms. The stop token is in usage and in nothing else: it leaves the divisor too."""
    rig.notes.clear()
    port = wire.serve(paced([*contents(*WORDS[:4]), delta("stop"), usage(5), DONE], last_pause_s=0.3))
    record, times = rig.ask(port.url, model="moderated").record, sent_s(port)
    assert record.tpot_s == pytest.approx((times[3] - times[0]) / 3, abs=EXACT_S)
    assert [note for note in rig.notes if note.startswith("moderated: ") and "finish reason arrived more than" in note]


@pytest.mark.parametrize(
    ("pieces", "tokens", "gaps"),
    [(["one"], 1, None), (["one"], 2, 1), (["one"], 3, None), (["one", " two"], 3, 2), (["one", " two"], 1, None)],
)
def test_short_answers(rig: Rig, wire: Wire, pieces: list[str], tokens: int, gaps: int | None) -> None:
    """One chunk and the stop token have one gap; one chunk of several tokens says nothing about their pace."""
    port = wire.serve(paced([*contents(*pieces), delta("stop"), usage(tokens), DONE]))
    record, times = rig.ask(port.url).record, sent_s(port)
    expected = None if gaps is None else pytest.approx((times[gaps] - times[0]) / gaps, abs=EXACT_S)
    assert record.tpot_s == expected


def test_hidden_reasoning_is_not_in_the_divisor(rig: Rig, wire: Wire) -> None:
    counts = usage(1005, completion_tokens_details={"reasoning_tokens": 1000})
    port = wire.serve(paced([*contents(*WORDS[:4]), delta("stop"), counts, DONE]))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert (record.output_tokens, record.reasoning_tokens) == (1005, 1000)
    assert record.tpot_s == pytest.approx((times[4] - times[0]) / 4, abs=EXACT_S)


def test_streamed_reasoning_counts_fully(rig: Rig, wire: Wire) -> None:
    counts = usage(5, completion_tokens_details={"reasoning_tokens": 2})
    thoughts = [delta(reasoning_content=piece) for piece in ("let", " me")]
    port = wire.serve(paced([*thoughts, *contents("so", " it"), delta("stop"), counts, DONE]))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert record.tpot_s == pytest.approx((times[4] - times[0]) / 4, abs=EXACT_S)


def test_hidden_reasoning_is_assumed_when_usage_is_far_above_the_text(rig: Rig, wire: Wire) -> None:
    """Four words are 4 local tokens; usage has 104. 40 tokens of text in 4 chunks have nothing hidden."""
    rig.notes.clear()
    port = wire.serve(paced([*contents(*WORDS[:4]), delta("stop"), usage(104), DONE]))
    record, times = rig.ask(port.url, model="thinker").record, sent_s(port)
    assert record.tpot_s == pytest.approx((times[3] - times[0]) / 3, abs=EXACT_S)
    assert [note for note in rig.notes if note.startswith("thinker: ") and "hidden reasoning is assumed" in note]
    rig.notes.clear()
    pieces = [" word" * 10] * 4
    port = wire.serve(paced([*contents(*pieces), delta("stop"), usage(41), DONE]))
    record, times = rig.ask(port.url, model="drafter").record, sent_s(port)
    assert record.tpot_s == pytest.approx((times[4] - times[0]) / 40, abs=EXACT_S)
    assert not rig.notes


def test_a_summary_of_the_reasoning_leaves_the_answer(rig: Rig, wire: Wire) -> None:
    """TPOT runs from the first chunk of the answer, over usage without the reasoning tokens."""

    def said(kind: str, **fields: Any) -> bytes:
        return event({"type": f"response.{kind}", **fields})

    counts = {"input_tokens": 7, "output_tokens": 505, "output_tokens_details": {"reasoning_tokens": 500}}
    parts = [
        *(said("reasoning_summary_text.delta", delta=piece) for piece in ("Think", "ing")),
        *(said("output_text.delta", delta=piece) for piece in WORDS[:4]),
        said("completed", response={"id": "resp-1", "status": "completed", "usage": counts}),
    ]
    port = wire.serve(stream(parts, gap_s=GAP_S))
    record = rig.call(at(port.url, lambda user: user.respond("hello"))).record
    times = sent_s(port)
    assert (record.error_code, record.output_tokens) == (None, 505)
    assert record.tpot_s == pytest.approx((times[6] - times[2]) / 4, abs=EXACT_S)


def choice(index: int, content: str | None, finish: str | None = None, **more: Any) -> bytes:
    said = {} if content is None else {"content": content}
    return event({"id": "chat-1", "choices": [{"index": index, "delta": said, "finish_reason": finish}], **more})


def test_several_choices_have_the_mean_of_their_times(rig: Rig, wire: Wire) -> None:
    """4 and 2 chunks, a stop token each: 8 tokens, of which 5 and 3 belong to the choices."""
    both = [choice(0, "a") + choice(1, "x"), choice(0, "b") + choice(1, "y"), choice(0, "c") + choice(1, None, "stop")]
    port = wire.serve(paced([*both, choice(0, "d"), choice(0, None, "stop"), usage(8), DONE]))
    record, times = rig.ask(port.url, n=2).record, sent_s(port)
    first, second = (times[4] - times[0]) / 4, (times[2] - times[0]) / 2
    assert record.tpot_s == pytest.approx((first + second) / 2, abs=EXACT_S)


def test_usage_in_every_chunk_says_what_each_chunk_holds(rig: Rig, wire: Wire) -> None:
    """3 tokens in the first chunk, the 9th token with the third; the finish event that follows has no token."""

    def counted(content: str | None, tokens: int, finish: str | None = None) -> bytes:
        return choice(0, content, finish, usage={"prompt_tokens": 7, "completion_tokens": tokens})

    parts = [counted("abc", 3), counted("def", 6), counted("ghi", 9), counted(None, 9, "stop"), usage(9), DONE]
    port = wire.serve(paced(parts))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert record.tpot_s == pytest.approx((times[2] - times[0]) / 6, abs=EXACT_S)


SILENT = "ttft=20ms,itl=20ms,finish=stop,stop_token=silent"


@pytest.mark.parametrize("api", ["chat", "complete", "respond"])
def test_the_stop_token_of_openai_s_apis(rig: Rig, api: str) -> None:
    """4 chunks and the stop token, 20 ms apart. With the last chunk as the end it would be 15 ms."""
    cap = "max_output_tokens" if api == "respond" else "max_tokens"
    with launch(SILENT, max_seconds=30) as simulator:
        record = rig.call(at(simulator.url, lambda user: getattr(user, api)("hello", **{cap: 5}))).record
    assert (record.chunks, record.output_tokens) == (4, 5)
    assert record.tpot_s == pytest.approx(0.02, abs=0.002)


def test_the_stop_token_of_anthropic_s_api(make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    rig = make_rig(user_class=AnthropicUser)
    with launch(SILENT, max_seconds=30) as simulator:
        record = rig.call(at(simulator.url, lambda user: user.message("hello", max_tokens=5))).record
    assert (record.chunks, record.output_tokens, record.finish_reason) == (4, 5, "end_turn")
    assert record.tpot_s == pytest.approx(0.02, abs=0.002)


def burst(pieces: int, before_s: float) -> Script:
    """A chunked stream whose every event comes in one write."""
    return [pause(before_s), send(b"".join(framed(chat_events(*[" word"] * pieces), CHUNKED)))]


def test_a_chunked_answer_that_a_proxy_kept_is_buffered(rig: Rig, wire: Wire) -> None:
    """A success without what the stream would have shown. A client that was late itself cannot tell: it asks again."""
    port = wire.serve(burst(200, 0.5))
    for _ in range(20):
        record = rig.ask(port.url).record
        if record.error_code:
            break
    assert (record.error_code, record.ok, record.output_tokens) == ("buffered", True, 200)
    assert (record.ttft_s, record.ttfat_s, record.tpot_s) == (None, None, None)
    assert (record.gap_p50_s, record.gap_p95_s, record.gap_p99_s, record.gap_max_s) == (None, None, None, None)
    assert record.end_to_end_latency_s == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_a_few_chunks_at_once_are_a_stream(rig: Rig, wire: Wire, pieces: int) -> None:
    record = rig.ask(wire.serve(burst(pieces, 0.1)).url).record
    assert (record.error_code, record.chunks) == (None, pieces)
    assert record.ttft_s == pytest.approx(0.1, abs=0.05)


def test_a_late_client_does_not_take_a_stream_for_buffered(rig: Rig, wire: Wire) -> None:
    """The event loop stands still while 12 chunks come, one each 2 ms: all are in one read."""
    port = wire.serve([pause(0.2), *stream(chat_events(*[" word"] * 12), gap_s=0.002)])

    def block() -> None:
        end_s = time.monotonic() + 0.3
        while time.monotonic() < end_s:  # time.sleep would let the event loop run
            pass

    def ask_and_block(user: Any) -> Any:
        gevent.spawn_later(0.19, block)
        return user.chat("hello")

    record = rig.call(at(port.url, ask_and_block)).record
    assert record.chunks == 12
    assert record.coalesced >= 10
    assert record.error_code is None


def test_the_simulator_s_buffering_proxy(rig: Rig) -> None:
    with launch("ttft=20ms,itl=2ms,buffered=on", max_seconds=60) as simulator:
        for _ in range(20):
            record = rig.ask(simulator.url, max_tokens=150).record
            if record.error_code:
                break
    assert (record.error_code, record.chunks, record.output_tokens) == ("buffered", 150, 150)


def bursts(*sizes: int, pause_s: float) -> Script:
    """A chunked stream in a few writes; the pause before each write and its number of chunks are given."""
    pieces = chat_events(*[" word"] * sum(sizes))
    writes, place = [pieces[0]], 1
    for size in sizes:
        writes.append(b"".join(framed(pieces[place : place + size])[1:-1]))
        place += size
    script: Script = [send(framed([writes[0]])[0] + framed([writes[0]])[1])]
    for write in writes[1:]:
        script += [pause(pause_s), send(write)]
    return [*script, send(b"".join(framed(pieces[place:])[1:]))]


def asked_until(rig: Rig, url: str, value: Callable[[Any], Any], most: int = 20) -> Any:
    """The record of the first answer with this value: a client that was late itself cannot tell, and asks again."""
    for _ in range(most):
        record = rig.ask(url).record
        if value(record):
            break
    return record


def test_an_answer_in_two_bursts_is_held_back(rig: Rig, wire: Wire) -> None:
    """20 chunks, 0.3 s, 20 chunks: 38 of 39 gaps are zero. The row keeps what was seen."""
    port = wire.serve(bursts(20, 20, pause_s=0.3))
    record = asked_until(rig, port.url, lambda record: record.burst_chunks)
    assert (record.burst_chunks, record.chunks, record.coalesced, record.error_code) == (20, 40, 38, None)
    assert record.gap_max_s == pytest.approx(0.3, abs=0.1)


def test_a_burst_of_several_reads_is_held_back_and_has_no_time_per_token(rig: Rig, wire: Wire) -> None:
    """200 chunks in 11 writes within some 6 ms, after 1 s: too long for `buffered`, too fast for a model."""
    steps = framed(chat_events(*[" word"] * 200))
    writes = [b"".join(steps[place : place + 20]) for place in range(2, len(steps), 20)]
    script: Script = [send(steps[0] + steps[1]), pause(1.0)]
    for write in writes:
        script += [send(write), pause(0.0005)]
    record = asked_until(rig, wire.serve(script).url, lambda record: record.burst_chunks)
    assert (record.burst_chunks, record.chunks, record.tpot_s, record.error_code) == (200, 200, None, None)
    assert record.ttft_s == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(bursts(1, *[9] * 5, pause_s=0.06), id="8 drafted tokens, all accepted"),
        pytest.param(bursts(1, *[17] * 4, pause_s=0.1), id="16 drafted tokens, all accepted"),
        pytest.param(bursts(11, 11, pause_s=0.2), id="short answer"),
        pytest.param(bursts(40, *[1] * 20, pause_s=0.015), id="a late begin"),
    ],
)
def test_bursts_that_a_server_makes_are_not_held_back(rig: Rig, wire: Wire, script: Script) -> None:
    record = rig.ask(wire.serve(script).url).record
    assert (record.burst_chunks, record.error_code) == (0, None)
    assert record.coalesced > record.chunks / 2


def test_a_late_client_does_not_take_a_stream_for_held_back(rig: Rig, wire: Wire) -> None:
    """The event loop stands still for 0.1 s at a time, so that chunks each 4 ms are read in bursts of 25."""
    port = wire.serve(stream(chat_events(*[" word"] * 120), gap_s=0.004))
    late = True

    def block() -> None:
        while late:
            end_s = time.monotonic() + 0.1
            while time.monotonic() < end_s:  # time.sleep would let the event loop run
                pass
            gevent.sleep(0.002)

    def ask_and_block(user: Any) -> Any:
        gevent.spawn(block)
        return user.chat("hello")

    try:
        record = rig.call(at(port.url, ask_and_block)).record
    finally:
        late = False
    assert record.coalesced > 80
    assert (record.burst_chunks, record.error_code) == (0, None)
