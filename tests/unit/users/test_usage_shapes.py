"""Where servers put usage, reasoning and finish reasons: streams whose right row is known by construction.

The gaps are the script's, so the right times are those at which the server sent each event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_users.users import request as request_module
from tests.stream_bytes import CHUNKED, DONE, chunk, delta, event, framed, head, reply, stream, usage
from tests.unit.users.anthropic.messages_api import CLOSED, START, STOP, ask, ended, opened, started, text
from tests.unit.users.anthropic.messages_api import delta as block_delta
from tests.unit.users.rig import Rig, at
from tests.wire_server import HOLD, Port, Script, Step, Wire, pause, send

NS = 1_000_000_000
GAP_S = 0.02
EXACT_S = 0.002  # of a time per token

A, B = delta(content="a "), delta(content="b ")


def choice(index: int = 0, finish: str | None = None, more: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """A chunk of one choice; ``more`` are fields of the choice beside its delta."""
    said = {"index": index, "delta": fields, "finish_reason": finish, **(more or {})}
    return event({"id": "chat-1", "choices": [said]})


def counts(output: int, prompt: int = 7, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, **more}


def sent_s(port: Port) -> list[float]:
    """When the parts of the only answer left, without the head."""
    (request,) = port.requests()
    return [stamp_ns / NS for stamp_ns in request.sent_ns[1:]]


def words(number: int) -> list[bytes]:
    return [delta(content=f"w{place} ") for place in range(number)]


# Usage.


IN_THE_CHOICE = choice(finish="stop", more={"usage": counts(21, 19)})
OF_GROQ = event(
    {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": counts(21, 19)}}
)
ZEROS = event({"id": "x", "choices": [], "usage": counts(0, 0)})
NULLS = event({"id": "x", "choices": [], "usage": {"prompt_tokens": None, "completion_tokens": None}})
WITH_FINISH = event(
    {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": counts(21, 19)}
)


@pytest.mark.parametrize(
    "end",
    [
        [IN_THE_CHOICE],
        [OF_GROQ],
        [IN_THE_CHOICE, ZEROS],
        [WITH_FINISH, ZEROS],
        [delta("stop"), usage(21, 19), NULLS],
        [WITH_FINISH, usage(21, 19)],
        [choice(finish="stop"), choice(more={"usage": counts(21, 19)})],
    ],
    ids=["choice", "x_groq", "zeros after a choice's", "zeros", "nulls", "twice", "after the finish"],
)
def test_usage_is_found_and_zeros_do_not_replace_it(rig: Rig, wire: Wire, end: list[bytes]) -> None:
    """Moonshot, Groq, gateways that end with a usage of zeros."""
    record = rig.ask(wire.serve(stream([A, B, *end, DONE])).url).record
    assert (record.output_tokens, record.output_tokens_source) == (21, "usage")
    assert (record.input_tokens, record.input_tokens_source, record.error_code) == (19, "usage", None)


@pytest.mark.parametrize(
    ("fields", "cached"),
    [
        ({"cached_tokens": 5}, 5),
        ({"prompt_cache_hit_tokens": 5, "prompt_cache_miss_tokens": 2}, 5),
        ({"prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 5}, 5),
        ({"prompt_tokens_details": {"cached_tokens": 0}}, 0),
        ({"prompt_tokens_details": None}, None),
    ],
)
def test_cached_tokens_of_every_server(rig: Rig, wire: Wire, fields: dict[str, Any], cached: int | None) -> None:
    """Moonshot, DeepSeek, OpenAI."""
    assert (
        rig.ask(wire.serve(stream([A, B, delta("stop"), usage(2, **fields), DONE])).url).record.cached_tokens == cached
    )


@pytest.mark.alone
@pytest.mark.parametrize(
    ("total", "output"),
    [(7 + 5 + 40, 45), (7 + 5, 5), (7 + 5 + 40 + 3, 5), (None, 5)],
    ids=["xAI: apart", "OpenAI: inside", "something else is in the total", "no total"],
)
def test_reasoning_outside_of_the_output_is_added(rig: Rig, wire: Wire, total: int | None, output: int) -> None:
    """xAI's total is prompt + output + reasoning. Hidden, it is not in TPOT's divisor: 4 chunks and the stop token."""
    more = {"completion_tokens_details": {"reasoning_tokens": 40}, "total_tokens": total}
    port = wire.serve(stream([*words(4), delta("stop"), usage(5, **more), DONE], gap_s=GAP_S))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert (record.output_tokens, record.reasoning_tokens, record.output_tokens_source) == (output, 40, "usage")
    if output == 45:
        assert record.tpot_s == pytest.approx((times[4] - times[0]) / 4, abs=EXACT_S)


@pytest.mark.alone
def test_streamed_reasoning_outside_of_the_output_is_in_the_divisor(rig: Rig, wire: Wire) -> None:
    """grok-3-mini: 3 chunks of reasoning, 2 of the answer, a stop token: 6 tokens, 3 of which xAI counts as output."""
    more = {"completion_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 13}
    thoughts = [delta(reasoning_content=f"r{place} ") for place in range(3)]
    port = wire.serve(stream([*thoughts, A, B, delta("stop"), usage(3, **more), DONE], gap_s=GAP_S))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert record.output_tokens == 6
    assert record.tpot_s == pytest.approx((times[5] - times[0]) / 5, abs=EXACT_S)


@pytest.mark.alone
def test_a_router_that_counts_no_reasoning_tokens_hides_them(rig: Rig, wire: Wire) -> None:
    """4 words, 104 tokens, ``reasoning_tokens`` 0: what was streamed are 4 tokens in 3 gaps."""
    more = {"completion_tokens_details": {"reasoning_tokens": 0}}
    port = wire.serve(
        stream([*(delta(content=" word") for _ in range(4)), delta("stop"), usage(104, **more), DONE], gap_s=GAP_S)
    )
    record, times = rig.ask(port.url).record, sent_s(port)
    assert (record.output_tokens, record.output_tokens_source) == (104, "usage")
    assert record.tpot_s == pytest.approx((times[3] - times[0]) / 3, abs=EXACT_S)


@pytest.mark.alone
def test_thinking_of_which_only_a_summary_is_streamed(claude: Rig, wire: Wire) -> None:
    """Claude counts all thinking in output_tokens and streams a summary: TPOT is that of the 4 words of the answer."""
    parts = [
        started(), opened("thinking"), block_delta("thinking_delta", "Hm"), CLOSED,
        opened(), *(text(" word") for _ in range(4)), CLOSED, ended(output_tokens=604), STOP,
    ]  # fmt: skip
    port = wire.serve(stream(parts, gap_s=GAP_S))
    record, times = ask(claude, port.url).record, sent_s(port)
    assert (record.output_tokens, record.chunks) == (604, 5)
    assert record.tpot_s == pytest.approx((times[8] - times[5]) / 3, abs=EXACT_S)


@pytest.mark.parametrize("prompt", [0, None])
def test_anthropic_s_last_counts_may_lack_the_prompt(claude: Rig, wire: Wire, prompt: int | None) -> None:
    """``message_start`` has 7 + 3 + 2 input tokens; SGLang and gateways repeat them as 0 in ``message_delta``."""
    last = ended(output_tokens=2, input_tokens=prompt, cache_read_input_tokens=prompt)
    record = ask(claude, wire.serve(stream([START, opened(), text("a"), text("b"), CLOSED, last, STOP])).url).record
    assert (record.input_tokens, record.cached_tokens, record.output_tokens) == (12, 3, 2)


def of_two(*parts: bytes) -> list[bytes]:
    """Two choices: 3 chunks of the first, 1 of the second."""
    return [choice(0, content="a"), choice(1, content="x"), choice(0, content="b"), choice(0, content="c"), *parts]


@pytest.mark.parametrize(
    ("parts", "tokens"),
    [
        (of_two(choice(1, "stop"), usage(2), choice(0, "stop"), usage(4)), 6),
        (of_two(choice(1, "stop", {"usage": counts(2)}), choice(0, "stop", {"usage": counts(4)})), 6),
        (of_two(choice(1, "stop"), choice(0, "stop"), usage(6)), 6),
        (of_two(choice(1, "stop", {"usage": counts(6)}), choice(0, "stop", {"usage": counts(6)})), 6),
        (of_two(choice(1, "stop"), usage(6), choice(0, "stop"), usage(6)), 6),
        (of_two(choice(1, "stop", {"usage": counts(2)}), choice(0, "stop", {"usage": counts(4)}), usage(6)), 6),
    ],
    ids=["llama.cpp", "in each choice", "once", "repeated in each choice", "repeated", "each and all"],
)
def test_usage_of_several_choices(rig: Rig, wire: Wire, parts: list[bytes], tokens: int) -> None:
    """4 chunks and 2 stop tokens, however the server counts them. The prompt is the same for both."""
    record = rig.ask(wire.serve(stream([*parts, DONE])).url, n=2).record
    assert (record.output_tokens, record.output_tokens_source, record.input_tokens) == (tokens, "usage", 7)
    assert record.error_code is None


def test_choices_of_one_length_add_up(rig: Rig, wire: Wire) -> None:
    """Both end at the cap: two equal counts, each below the 6 chunks of the answer."""
    both = [part for place in range(3) for part in (choice(0, content=f"a{place}"), choice(1, content=f"b{place}"))]
    parts = [*both, choice(0, "length"), usage(3), choice(1, "length"), usage(3)]
    assert rig.ask(wire.serve(stream([*parts, DONE])).url, n=2).record.output_tokens == 6


def counted(where: str, tokens: int) -> bytes:
    """A chunk of the answer, and the tokens so far: in the event, in its choice, or in an event of their own."""
    said: dict[str, Any] = {"index": 0, "delta": {"content": "x " * tokens}, "finish_reason": None}
    if where == "choice":
        said["usage"] = counts(tokens)
    whole = {"id": "x", "choices": [said], **({"usage": counts(tokens)} if where == "event" else {})}
    return event(whole) + (usage(tokens) if where == "after it" else b"")


@pytest.mark.alone
@pytest.mark.parametrize("where", ["event", "choice", "after it"])
def test_usage_in_every_chunk_tells_how_many_tokens_the_first_one_holds(rig: Rig, wire: Wire, where: str) -> None:
    """5 tokens in the first chunk (a draft model), then 1 each: 3 tokens in 3 gaps."""
    port = wire.serve(stream([*(counted(where, n) for n in (5, 6, 7, 8)), delta("length"), DONE], gap_s=GAP_S))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert (record.chunks, record.output_tokens) == (4, 8)
    assert record.tpot_s == pytest.approx((times[3] - times[0]) / 3, abs=EXACT_S)


@pytest.mark.alone
def test_usage_with_the_finish_of_one_chunk_is_not_that_of_the_chunk(rig: Rig, wire: Wire) -> None:
    """One word and the stop token: 2 tokens, one gap."""
    port = wire.serve(stream([A, choice(finish="stop", more={"usage": counts(2)}), DONE], gap_s=GAP_S))
    record, times = rig.ask(port.url).record, sent_s(port)
    assert record.tpot_s == pytest.approx(times[1] - times[0], abs=EXACT_S)


# Usage that cannot be.


@pytest.mark.parametrize(
    ("claimed", "why"),
    [(10**12, "any model can generate"), (1, "less than half"), (5000, "more output tokens than the requested cap")],
)
def test_usage_that_cannot_be_is_kept_and_not_used(
    rig_with: Callable[..., Rig], wire: Wire, claimed: int, why: str
) -> None:
    """60 words and a cap of 64 tokens: the local count is in throughput, the server's is kept."""
    rig = rig_with(llm_warmup="0")
    rig.notes.clear()
    port = wire.serve(stream([*words(60), delta("stop"), usage(claimed), DONE], gap_s=0.001))
    record = rig.ask(port.url, model=f"claims {claimed}", max_tokens=64).record
    local = rig.call(lambda user: user.run_context.tokenizer.count("".join(f"w{place} " for place in range(60))))
    assert (record.output_tokens_usage, record.output_tokens, record.output_tokens_source) == (
        claimed,
        local,
        "tokenizer",
    )
    assert record.window_tokens == local
    assert record.end_to_end_latency_s is not None
    assert record.request_output_throughput_token_per_s == pytest.approx(local / record.end_to_end_latency_s)
    assert record.error_code is None
    assert [note for note in rig.notes if note.startswith(f"claims {claimed}: ") and why in note]


@pytest.mark.parametrize(
    ("claimed", "more"),
    [
        (5000, {"completion_tokens_details": {"reasoning_tokens": 4950}}),
        (64, {}),
        (75, {}),
    ],
    ids=["hidden reasoning", "at the cap", "a server that ignores the cap"],
)
def test_usage_that_can_be_is_believed(rig: Rig, wire: Wire, claimed: int, more: dict[str, Any]) -> None:
    rig.notes.clear()
    port = wire.serve(stream([*words(60), delta("stop"), usage(claimed, **more), DONE]))
    record = rig.ask(port.url, model="honest", max_tokens=64).record
    assert (record.output_tokens, record.output_tokens_source, record.output_tokens_usage) == (claimed, "usage", None)
    assert not [note for note in rig.notes if note.startswith("honest: usage")]


def test_text_in_pieces_of_tokens_is_no_doubt_about_usage(rig: Rig, wire: Wire) -> None:
    """A gateway that sends letters one by one: 90 chunks, 9 words, 10 tokens."""
    letters = [delta(content=letter) for letter in "elephants " * 9]
    record = rig.ask(wire.serve(stream([*letters, delta("stop"), usage(30), DONE])).url).record
    assert (record.output_tokens, record.output_tokens_source, record.chunks) == (30, "usage", 90)


# A finish reason is not the end.


def ask_and_time(rig: Rig, wire: Wire, parts: list[bytes], **more: Any) -> tuple[Any, list[float]]:
    port = wire.serve(stream(parts, gap_s=GAP_S))
    answer = rig.ask(port.url, **more)
    return answer, sent_s(port)


STOP_IN_EVERY_CHUNK = [delta("stop", content=piece) for piece in ("a ", "b ", "c ")]
FINISHES = {
    "in every chunk": [delta("stop", role="assistant"), *STOP_IN_EVERY_CHUNK],
    "in the middle": [A, delta("stop", content=""), B, delta(content="c "), delta("stop")],
    "with the first chunk": [delta("length", content="a "), B, delta(content="c "), delta("stop")],
    "the word null": [choice(finish="null", content=f"{letter} ") for letter in "abc"] + [delta("stop")],
    "the word None": [choice(finish="None", content=f"{letter} ") for letter in "abc"] + [delta("stop")],
    "before a tool call": [A, B, delta("stop"), delta(reasoning="c "), delta("stop")],
}


@pytest.mark.alone
@pytest.mark.parametrize("name", FINISHES)
def test_output_after_a_finish_reason_takes_it_back(rig: Rig, wire: Wire, name: str) -> None:
    """3 chunks in all of them; TPOT ends with the last finish event, or the last chunk where that is the same."""
    answer, times = ask_and_time(rig, wire, [*FINISHES[name], usage(4), DONE])
    record = answer.record
    assert (record.chunks, record.output_tokens, record.output_tokens_source) == (3, 4, "usage")
    assert (record.finish_reason, record.error_code) == ("stop", None)
    first = 1 if name == "in every chunk" else 0
    last = len(FINISHES[name]) - 1
    assert record.tpot_s == pytest.approx((times[last] - times[first]) / 3, abs=EXACT_S)
    done_s = times[last + 2]
    assert record.end_to_end_latency_s == pytest.approx(done_s - times[first] + record.ttft_s, abs=0.01)


@pytest.mark.alone
def test_output_and_usage_may_come_long_after_a_finish_reason(rig: Rig, wire: Wire) -> None:
    """Longer than the silence that ends an answer with usage: none has come yet."""
    writes = framed([A, delta("stop"), B, delta("stop"), usage(3), DONE])
    port = wire.serve([send(b"".join(writes[:3])), pause(1.2), *map(send, writes[3:])])
    record = rig.ask(port.url).record
    (request,) = port.requests()
    assert (record.chunks, record.output_tokens, record.output_tokens_source) == (2, 3, "usage")
    assert record.end_to_end_latency_s == pytest.approx((request.sent_ns[4] - request.received_ns) / NS, abs=0.02)


def test_a_finish_reason_that_was_taken_back_is_no_terminator(rig: Rig, wire: Wire) -> None:
    """The body ends in the middle of the answer that went on. With [DONE] it is complete, without a finish reason."""
    parts = [A, delta("stop"), B]
    assert rig.ask(wire.serve(stream(parts)).url).record.error_code == "truncated"
    record = rig.ask(wire.serve(stream([*parts, usage(2), DONE])).url).record
    assert (record.error_code, record.finish_reason, record.chunks) == (None, None, 2)


def held(*parts: bytes) -> Script:
    """The server sends these and then keeps the connection open without a word."""
    steps: list[Step] = [send(head(CHUNKED))]
    for part in parts:
        steps += [pause(0.02), send(chunk(part))]
    return [*steps, HOLD]


@pytest.mark.alone
def test_a_silent_server_is_left_a_second_after_usage(rig: Rig, wire: Wire) -> None:
    """The note says where the second goes."""
    rig.notes.clear()
    port = wire.serve(held(A, B, delta("stop"), usage(2)))
    record = rig.ask(port.url, model="silent").record
    request = port.left_by_client()
    assert (record.error_code, record.chunks) == (None, 2)
    assert (request.client_closed_ns - request.sent_ns[-1]) / NS == pytest.approx(1.0, abs=0.4)
    assert record.end_to_end_latency_s == pytest.approx((request.sent_ns[-1] - request.received_ns) / NS, abs=0.02)
    assert [note for note in rig.notes if note.startswith("silent: ") and "part of the user's cycle" in note]


@pytest.mark.alone
def test_the_deadline_ends_an_answer_that_waits_for_usage_only(rig_with: Callable[..., Rig], wire: Wire) -> None:
    """An answer with its finish reason is complete; one that went on after it is not, and times out."""
    rig = rig_with(llm_timeout="300ms")
    port = wire.serve(held(A, B, delta("stop")))
    record = rig.ask(port.url).record
    (request,) = port.requests()
    assert (record.error_code, record.finish_reason, record.output_tokens_source) == (None, "stop", "tokenizer")
    assert record.end_to_end_latency_s == pytest.approx((request.sent_ns[-1] - request.received_ns) / NS, abs=0.02)
    assert rig.ask(wire.serve(held(A, delta("stop"), B)).url).record.error_code == "timeout"


def test_usage_is_waited_for_ten_seconds(rig: Rig, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    assert request_module.USAGE_GRACE_S == 10.0
    monkeypatch.setattr(request_module, "USAGE_GRACE_S", 2.0)
    rig.notes.clear()
    port = wire.serve(held(A, B, delta("stop")))
    record = rig.ask(port.url, model="mute").record
    request = port.left_by_client()
    assert (record.error_code, record.chunks, record.output_tokens_source) == (None, 2, "tokenizer")
    assert (request.client_closed_ns - request.sent_ns[-1]) / NS == pytest.approx(2.0, abs=0.5)
    assert record.end_to_end_latency_s == pytest.approx((request.sent_ns[-1] - request.received_ns) / NS, abs=0.02)
    assert [note for note in rig.notes if note.startswith("mute: ") and "2 s after its last event" in note]


def test_the_only_choice_may_have_any_number(rig: Rig, wire: Wire) -> None:
    parts = [choice(1, role="assistant"), choice(1, content="a"), choice(1, content="b"), choice(1, "stop")]
    answer = rig.ask(wire.serve(stream([*parts, usage(3), DONE])).url)
    assert (answer.text, answer.choices, answer.finish_reason) == ("ab", ["ab"], "stop")
    assert (answer.record.error_code, answer.record.output_tokens, answer.record.chunks) == (None, 3, 2)


# Reasoning.


def part(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


SUMMARY = [part("summary_text", text="hm ", signature="c2ln")]
REASONING: dict[str, tuple[dict[str, Any], bool]] = {
    "an object with content": ({"reasoning": {"content": "hm "}}, False),
    "an object with text": ({"reasoning_content": {"type": "text", "text": "hm "}}, False),
    "an object with a summary": ({"reasoning": {"summary": "hm "}}, True),
    "an object with a summary text": ({"reasoning": part("summary_text", text="hm ")}, True),
    "an object of thinking": ({"thinking": {"thinking": "hm "}}, False),
    "a list of parts": ({"reasoning_content": [part("text", text="hm ")]}, False),
    "content with a summary (Databricks)": ({"content": [part("reasoning", summary=SUMMARY)]}, True),
    "content with thinking (Mistral)": ({"content": [part("thinking", thinking=[part("text", text="hm ")])]}, False),
    "content with a summary text": ({"content": SUMMARY}, True),
    "content as one part": ({"content": part("reasoning", text="hm ")}, False),
    "details with text (OpenRouter)": ({"reasoning_details": [part("reasoning.text", text="hm ")]}, False),
    "details with a summary": (
        {"reasoning": None, "reasoning_details": [part("reasoning.summary", summary="hm ")]},
        True,
    ),
    "details that repeat the text": (
        {"reasoning": "hm ", "reasoning_details": [part("reasoning.text", text="hm ")]},
        False,
    ),
    "details that call the text a summary": (
        {"reasoning": "hm ", "reasoning_details": [part("reasoning.summary", summary="hm ")]},
        True,
    ),
}


@pytest.mark.alone
@pytest.mark.parametrize("name", REASONING)
def test_reasoning_of_every_shape_comes_before_the_answer(rig: Rig, wire: Wire, name: str) -> None:
    """TTFT is the first reasoning, ttfat_s the first of the answer; TPOT leaves reasoning out if it is a summary."""
    fields, summary = REASONING[name]
    more = {"completion_tokens_details": {"reasoning_tokens": 2}}
    thought = delta(**fields)
    script = stream([thought, thought, A, B, delta("stop"), usage(5, **more), DONE], gap_s=0.01)
    port = wire.serve([*script[:5], pause(0.03), *script[5:]])  # before the answer, so that TPOT differs
    answer, times = rig.ask(port.url), sent_s(port)
    record = answer.record
    assert (answer.reasoning, answer.text, record.chunks) == ("hm hm ", "a b ", 4)
    assert record.ttfat_s - record.ttft_s == pytest.approx(times[2] - times[0], abs=0.005)
    first = 2 if summary else 0
    assert record.tpot_s == pytest.approx((times[4] - times[first]) / (4 - first), abs=EXACT_S)


def test_encrypted_reasoning_is_no_chunk(rig: Rig, wire: Wire) -> None:
    secret = delta(content="", reasoning=None, reasoning_details=[part("reasoning.encrypted", data="c2VjcmV0")])
    answer = rig.ask(wire.serve(stream([secret, A, B, delta("stop", reasoning_details=[]), usage(2), DONE])).url)
    assert (answer.reasoning, answer.text, answer.record.chunks) == ("", "a b ", 2)
    assert answer.record.ttft_s == answer.record.ttfat_s


def test_reasoning_in_a_whole_body(rig: Rig, wire: Wire) -> None:
    message = {"content": "a", "reasoning_details": [part("reasoning.text", text="hm")]}
    body = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": counts(2)}
    answer = rig.ask(wire.serve(reply("200 OK", body)).url)
    assert (answer.reasoning, answer.text, answer.record.output_tokens) == ("hm", "a", 2)


def said(kind: str, **fields: Any) -> bytes:
    return event({"type": f"response.{kind}", **fields})


ITEM = {"type": "reasoning", "summary": SUMMARY, "encrypted_content": "c2VjcmV0"}


@pytest.mark.alone
@pytest.mark.parametrize(
    ("thought", "summary"),
    [
        (said("reasoning_summary_text.delta", delta="hm "), True),
        (said("reasoning_summary.delta", delta=part("summary_text", text="hm ")), True),
        (said("reasoning_text.delta", delta="hm "), False),
        (said("reasoning.delta", delta={"content": "hm "}), False),
        (said("output_item.done", output_index=0, item=ITEM), True),
    ],
)
def test_reasoning_of_responses(rig: Rig, wire: Wire, thought: bytes, *, summary: bool) -> None:
    used = {"input_tokens": 7, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}}
    parts = [
        thought, said("output_text.delta", delta="a "), said("output_text.delta", delta="b "),
        said("completed", response={"id": "r", "status": "completed", "usage": used}),
    ]  # fmt: skip
    script = stream(parts, gap_s=0.01)
    port = wire.serve([*script[:3], pause(0.03), *script[3:]])
    answer = rig.call(at(port.url, lambda user: user.respond("hello")))
    record, times = answer.record, sent_s(port)
    assert (answer.reasoning, answer.text, record.chunks) == ("hm ", "a b ", 3)
    assert record.ttfat_s - record.ttft_s == pytest.approx(times[1] - times[0], abs=0.005)
    first = 1 if summary else 0
    assert record.tpot_s == pytest.approx((times[2] - times[first]) / (2 - first), abs=EXACT_S)
