"""What people send and what comes back of it: images, tools, formats, several choices, log probabilities, reasoning."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_users import image_part
from llm_users.prompts import PromptError
from llm_users.users.request import FINISH_GRACE_S
from tests.stream_bytes import CHUNKED, DONE, LAST_CHUNK, chat_events, chunk, delta, event, head, reply, stream, usage
from tests.unit.users.rig import Rig, at
from tests.wire_server import HOLD, Wire, pause, send

MakeRig = Callable[..., Rig]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def choice(index: int, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "finish_reason": finish}


def choices(*several: dict[str, Any]) -> bytes:
    return event({"id": "chat-1", "object": "chat.completion.chunk", "choices": list(several)})


# Images.


def test_an_image_is_a_url_as_it_is_or_a_file_as_a_data_uri(tmp_path: Path) -> None:
    assert image_part("https://a.test/x.png") == {"type": "image_url", "image_url": {"url": "https://a.test/x.png"}}
    assert image_part("data:image/png;base64,AA==", detail="low")["image_url"]["detail"] == "low"
    for data, kind in [(PNG, "png"), (b"\xff\xd8\xff\xe0", "jpeg"), (b"RIFF0000WEBP", "webp"), (b"GIF89a", "gif")]:
        path = tmp_path / f"x.{kind}"
        path.write_bytes(data)
        url = image_part(path)["image_url"]["url"]
        assert url == f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    path.write_bytes(PNG)  # what is kept of a file is forgotten when it changes
    assert image_part(path)["image_url"]["url"].startswith("data:image/png")


def test_what_is_no_image_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(PromptError, match=r"x\.txt.*PNG"):
        image_part(tmp_path / "x.txt")
    with pytest.raises(PromptError, match=r"no\.png.*cannot be read"):
        image_part(str(tmp_path / "no.png"))


def pictured(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image_part(path)]}]


def test_an_image_is_sent_and_its_tokens_are_the_server_s(rig: Rig, wire: Wire, tmp_path: Path) -> None:
    messages = pictured(tmp_path)
    port = wire.serve(stream([*chat_events("a")[:-2], usage(1, prompt=1105), DONE]))
    record = rig.ask(port.url, None, messages=messages).record
    assert port.requests()[0].json()["messages"] == messages
    assert (record.input_tokens, record.input_tokens_source) == (1105, "usage")


def test_without_usage_an_image_leaves_the_input_uncounted(rig: Rig, wire: Wire, tmp_path: Path) -> None:
    port = wire.serve(stream([delta(content="a"), delta("stop"), DONE]))
    record = rig.ask(port.url, None, messages=pictured(tmp_path)).record
    assert (record.error_code, record.input_tokens, record.input_tokens_source) == (None, None, None)


def test_without_usage_messages_of_text_are_counted_here(rig: Rig, wire: Wire) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    port = wire.serve(stream([delta(content="a"), delta("stop"), DONE]))
    record = rig.ask(port.url, None, messages=messages).record
    count = rig.call(lambda user: user.run_context.tokenizer.count)
    assert (record.input_tokens, record.input_tokens_source) == (count("be brief") + count("hi"), "tokenizer")


# Tools, formats, effort, log probabilities.


@pytest.mark.alone
def test_tools_and_their_choice_are_sent_and_fragments_are_chunks(rig: Rig, wire: Wire) -> None:
    def call(**function: str) -> bytes:
        return delta(tool_calls=[{"index": 0, "id": "call-1", "type": "function", "function": function}])

    parts = [call(name="weather", arguments=""), call(arguments='{"place":'), call(arguments='"Bern"}')]
    port = wire.serve(stream([*parts, delta("tool_calls"), usage(9), DONE], gap_s=0.01))
    choose = {"type": "function", "function": {"name": "weather"}}
    answer = rig.ask(port.url, tools=[TOOL], tool_choice=choose, parallel_tool_calls=False)
    body = port.requests()[0].json()
    assert (body["tools"], body["tool_choice"], body["parallel_tool_calls"]) == ([TOOL], choose, False)
    assert (answer.record.chunks, answer.record.output_tokens, answer.finish_reason) == (3, 9, "tool_calls")
    assert answer.tool_calls[0]["function"] == {"name": "weather", "arguments": '{"place":"Bern"}'}
    assert answer.record.gap_max_s == pytest.approx(0.01, abs=0.008)


def test_format_effort_and_the_rest_go_into_the_body(rig: Rig, wire: Wire) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
    extra = {"response_format": schema, "reasoning_effort": "low", "logprobs": True, "top_logprobs": 2, "n": 2}
    port = wire.serve(stream(chat_events("{}")))
    rig.ask(port.url, **extra)
    body = port.requests()[0].json()
    assert {name: body[name] for name in extra} == extra


def test_log_probabilities_do_not_disturb(rig: Rig, wire: Wire) -> None:
    odds = {
        "content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -1}]}]
    }

    def with_odds(text: str) -> bytes:
        return choices({**choice(0, content=text), "logprobs": odds})

    port = wire.serve(stream([with_odds("a"), with_odds("b"), delta("stop"), usage(2), DONE]))
    answer = rig.ask(port.url, logprobs=True)
    assert (answer.text, answer.record.chunks, answer.record.error_code) == ("ab", 2, None)
    legacy = {
        "id": "1",
        "choices": [{"index": 0, "text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [-0.1]}}],
    }
    port = wire.serve(
        stream([event(legacy), event({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}), DONE])
    )
    answer = rig.call(at(port.url, lambda user: user.complete("hi", logprobs=1)))
    assert (answer.text, answer.record.chunks) == ("a", 1)


def test_a_model_that_wants_max_completion_tokens_gets_it(rig: Rig, wire: Wire) -> None:
    refusal = {
        "error": {
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "type": "invalid_request_error",
            "param": "max_tokens",
            "code": "unsupported_parameter",
        }
    }
    port = wire.serve(reply("400 Bad Request", refusal), reply("400 Bad Request", refusal), stream(chat_events("ok")))
    for _ in range(2):
        record = rig.ask(port.url, max_tokens=5).record
        assert (record.error_code, record.requested_output_tokens) == (None, 5)
    bodies = [request.json() for request in port.requests()]
    assert [body.get("max_tokens") for body in bodies] == [5, 5, None, None]
    assert [body.get("max_completion_tokens") for body in bodies] == [None, None, 5, 5]
    assert sum("max_completion_tokens instead of max_tokens" in note for note in rig.notes) == 1


# Several choices.


@pytest.mark.alone
def test_several_choices_are_apart(rig: Rig, wire: Wire) -> None:
    parts = [
        choices(choice(0, role="assistant"), choice(1, role="assistant")),
        choices(choice(0, content="one "), choice(1, content="uno ")),
        choices(choice(1, content="due")),
        choices(choice(0, content="two")),
        choices(choice(1, "length")),
        choices(choice(0, "stop")),
        usage(14),
        DONE,
    ]
    answer = rig.ask(wire.serve(stream(parts, gap_s=0.02)).url, n=2)
    record = answer.record
    assert (answer.text, answer.choices, answer.finish_reason) == ("one two", ["one two", "uno due"], "stop")
    assert (record.chunks, record.coalesced, record.output_tokens, record.error_code) == (4, 0, 14, None)
    # The gaps are those of each choice: 0.04 s in the first, 0.02 s in the second, never 0 between the two.
    assert record.gap_p50_s == pytest.approx(0.03, abs=0.01)
    assert record.gap_max_s == pytest.approx(0.04, abs=0.01)


def test_one_choice_is_all_choices(rig: Rig, wire: Wire) -> None:
    assert rig.ask(wire.serve(stream(chat_events("a", "b"))).url).choices == ["ab"]


def test_every_choice_has_to_finish(rig: Rig, wire: Wire) -> None:
    parts = [choices(choice(0, content="a"), choice(1, content="b")), choices(choice(0, "stop"))]
    assert rig.ask(wire.serve(stream(parts)).url, n=2).record.error_code == "truncated"
    whole = [*parts, choices(choice(1, "stop"))]
    record = rig.ask(wire.serve(stream(whole)).url, n=2).record
    assert (record.error_code, record.output_tokens_source) == (None, "tokenizer")
    count = rig.call(lambda user: user.run_context.tokenizer.count)
    assert record.output_tokens == count("a") + count("b")


def test_a_choice_that_starts_late_is_waited_for(rig: Rig, wire: Wire) -> None:
    script = [send(head(CHUNKED) + chunk(choices(choice(0, "stop", content="a")))), pause(FINISH_GRACE_S + 0.2)]
    script += [send(chunk(choices(choice(1, "stop", content="b"))) + chunk(DONE) + LAST_CHUNK)]
    answer = rig.ask(wire.serve(script).url, n=2)
    assert (answer.choices, answer.record.error_code) == (["a", "b"], None)


def test_tool_calls_of_the_first_choice_are_the_answer_s(rig: Rig, wire: Wire) -> None:
    def call(index: int, name: str) -> dict[str, Any]:
        return choice(index, tool_calls=[{"index": 0, "function": {"name": name, "arguments": "{}"}}])

    parts = [choices(call(1, "second")), choices(call(0, "first")), choices(choice(0, "stop"), choice(1, "stop")), DONE]
    answer = rig.ask(wire.serve(stream(parts)).url, n=2)
    assert [made["function"]["name"] for made in answer.tool_calls] == ["first"]
    assert answer.record.chunks == 2


def test_several_choices_in_one_body(rig: Rig, wire: Wire) -> None:
    body = {
        "id": "x",
        "choices": [{"index": i, "message": {"content": text}, "finish_reason": "stop"} for i, text in enumerate("ab")],
    }
    answer = rig.ask(wire.serve(reply("200 OK", body)).url, n=2)
    assert (answer.text, answer.choices, answer.record.error_code) == ("a", ["a", "b"], "buffered")


# Half characters, and servers that do not hang up.


@pytest.mark.parametrize("between", ["", "x"])
def test_an_emoji_in_two_halves_becomes_whole(rig: Rig, wire: Wire, between: str) -> None:
    def raw(text: bytes) -> bytes:
        return event(
            b'{"id": "1", "choices": [{"index": 0, "delta": {"content": "%s"}, "finish_reason": null}]}' % text
        )

    parts = [raw(rb"a\ud83d"), *([delta(content=between)] if between else []), raw(rb"\uDE00b"), delta("stop"), DONE]
    answer = rig.ask(wire.serve(stream(parts)).url)
    assert answer.text == (
        "a\N{REPLACEMENT CHARACTER}x\N{REPLACEMENT CHARACTER}b" if between else "a\N{GRINNING FACE}b"
    )
    assert (answer.record.chunks, answer.record.error_code) == (len(parts) - 2, None)
    assert answer.record.output_tokens


@pytest.mark.alone
def test_a_server_that_finishes_and_holds_the_connection_is_left(rig: Rig, wire: Wire) -> None:
    script = [send(head(CHUNKED)), send(chunk(delta(content="a"))), pause(0.02), send(chunk(delta("stop"))), HOLD]
    port = wire.serve(script)
    record = rig.ask(port.url, stream_options={"include_usage": False}).record  # else it is waited for
    request = port.left_by_client()
    assert (record.error_code, record.finish_reason) == (None, "stop")
    held_s = (request.client_closed_ns - request.sent_ns[-1]) / 1e9
    assert held_s == pytest.approx(FINISH_GRACE_S, abs=0.3)
    assert record.end_to_end_latency_s == pytest.approx((request.sent_ns[-1] - request.received_ns) / 1e9, abs=0.01)


@pytest.mark.alone
def test_usage_after_the_finish_is_waited_for_and_pings_are_not(rig: Rig, wire: Wire) -> None:
    pings = [step for _ in range(8) for step in (pause(0.3), send(chunk(b": ping\n\n")))]
    script = [
        send(head(CHUNKED) + chunk(delta(content="a") + delta("stop"))),
        pause(0.5),
        send(chunk(usage(77))),
        *pings,
    ]
    port = wire.serve([*script, HOLD])
    record = rig.ask(port.url).record
    request = port.left_by_client() if port.requests()[0].client_closed_ns else port.requests()[0]
    assert (record.output_tokens, record.error_code) == (77, None)
    assert record.end_to_end_latency_s == pytest.approx((request.sent_ns[1] - request.received_ns) / 1e9, abs=0.02)
