"""What a user who talks sends turn by turn, when it stops, and clients that hang up: against what the server got."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gevent
import pytest

from llm_users import AnthropicUser, ConversationMixin, ConversationUser
from llm_users.prompts import Prompt
from llm_users.prompts.conversations import Conversation, Turn
from llm_users.users.answer import Answer
from llm_users.users.bedrock.converse import conversation as of_converse
from llm_users.users.bedrock.families import FAMILIES
from llm_users.users.bedrock.families import anthropic_conversation as of_anthropic
from llm_users.users.openai.responses import input_of
from tests.stream_bytes import CHUNKED, chat_events, chunk, delta, head, reply, stream
from tests.unit.users.anthropic.messages_api import PLAIN
from tests.unit.users.rig import Rig, at, eventually
from tests.wire_server import HOLD, Wire, pause, send

MakeRig = Callable[..., Rig]


class Talker(ConversationUser):
    abstract = True


Talker.tasks = []  # the rig's own task is the only one


class TalkingClaude(ConversationMixin, AnthropicUser):
    abstract = True

    def ask(self) -> Answer:
        return self.message()


TalkingClaude.tasks = []

TALK = Conversation(
    4,
    "4:x",
    (
        Turn(({"role": "system", "content": "Be short."}, {"role": "user", "content": "One?"}), 5),
        Turn(({"role": "user", "content": "Two?"},), 6),
        Turn(({"role": "user", "content": "Three?"},), None),
    ),
)


@pytest.mark.alone
def test_each_turn_has_the_answers_that_really_came_before_it(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(user_class=Talker, llm_think_time="60ms")
    port = wire.serve(stream(chat_events("al", "pha")), stream(chat_events("beta")), stream(chat_events("gamma")))
    answers: list[Answer] = rig.call(at(port.url, lambda user: user.hold(TALK)))
    assert [answer.text for answer in answers] == ["alpha", "beta", "gamma"]
    asked = port.requests()
    first = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "One?"}]
    second = [*first, {"role": "assistant", "content": "alpha"}, {"role": "user", "content": "Two?"}]
    third = [*second, {"role": "assistant", "content": "beta"}, {"role": "user", "content": "Three?"}]
    assert [request.json()["messages"] for request in asked] == [first, second, third]
    assert [request.json().get("max_tokens") for request in asked] == [5, 6, None]
    rows = [answer.record for answer in answers]
    assert [(row.conversation_id, row.turn, row.turns) for row in rows] == [("4:x", turn, 3) for turn in (1, 2, 3)]
    pauses = [row.think_s for row in rows]
    # The pause counts from when the answer was over: a busy process has used up a part of it before the user rests.
    assert pauses == [None, pytest.approx(0.06, abs=0.005), pytest.approx(0.06, abs=0.005)]
    assert all(row.queue_s is not None and row.queue_s < 0.05 for row in rows), "a pause is no lateness"
    for before, after in pairwise(asked):
        assert (after.received_ns - before.sent_ns[-1]) / 1e9 >= 0.059
    assert {row.endpoint for row in rows} == {port.url}


def test_a_failed_turn_ends_the_conversation(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(user_class=Talker, llm_think_time="60ms")
    port = wire.serve(stream(chat_events("a")), reply("503 Busy", {"error": {"message": "later"}}), stream([]))
    answers = rig.call(at(port.url, lambda user: user.hold(TALK)))
    assert [answer.record.error_code for answer in answers] == [None, "503"]
    assert len(port.requests()) == 2
    alone = rig.call(at(port.url, lambda user: user.follow_up))
    assert alone is False


def test_any_api_can_talk(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(user_class=TalkingClaude, llm_think_time="0")
    port = wire.serve(stream(PLAIN))
    rig.call(at(port.url, lambda user: user.hold(TALK)))
    last = port.requests()[-1].json()
    assert last["system"] == "Be short."
    assert [turn["content"] for turn in last["messages"]] == ["One?", "ab", "Two?", "ab", "Three?"]


CALL = {"id": "call-1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}


def test_a_turn_of_tool_calls_stays_in_the_history(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(user_class=Talker, llm_think_time="0")
    calling = stream([delta(content=None, tool_calls=[{"index": 0, **CALL}]), delta("tool_calls")])
    port = wire.serve(calling, stream(chat_events("done")), stream(chat_events("done")))
    answers = rig.call(at(port.url, lambda user: user.hold(TALK)))
    assert [answer.text for answer in answers] == ["", "done", "done"]
    last = port.requests()[-1].json()["messages"]
    assert last[2:] == [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "Three?"},
    ]


def test_other_apis_have_tool_calls_in_their_own_shape() -> None:
    history = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "So", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call-1", "content": "here"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ]
    prompt = Prompt(-1, None, history, None, None)
    # The shapes are those of each provider's documentation on tool use.
    use = {"type": "tool_use", "id": "call-1", "name": "look", "input": {"at": "sea"}}
    assert of_anthropic(prompt)[0] == [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": [{"type": "text", "text": "So"}, use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call-1", "content": "here"}]},
        {"role": "assistant", "content": [use]},
    ]
    assert FAMILIES["anthropic-messages"].body("m", prompt, 5)["messages"] == of_anthropic(prompt)[0]
    used = {"toolUse": {"toolUseId": "call-1", "name": "look", "input": {"at": "sea"}}}
    assert of_converse(prompt)[0] == [
        {"role": "user", "content": [{"text": "Where?"}]},
        {"role": "assistant", "content": [{"text": "So"}, used]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "call-1", "content": [{"text": "here"}]}}]},
        {"role": "assistant", "content": [used]},
    ]
    made = {"type": "function_call", "call_id": "call-1", "name": "look", "arguments": '{"at": "sea"}'}
    assert input_of(prompt) == [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "So"},
        made,
        {"type": "function_call_output", "call_id": "call-1", "output": "here"},
        made,
    ]


def test_a_user_who_thinks_can_be_stopped_at_once(make_rig: MakeRig, wire: Wire) -> None:
    rig = make_rig(user_class=Talker, llm_think_time="60s")
    port = wire.serve(stream(chat_events("a")))
    rig.send(at(port.url, lambda user: user.hold(TALK)))
    eventually(lambda: rig.seen.records, within_s=20)
    began_s = time.monotonic()
    rig.environment.stop_timeout = 30
    rig.runner.stop()
    assert time.monotonic() - began_s < 5
    assert len(port.requests()) == 1


def test_a_client_hangs_up_so_long_after_t0_and_keeps_what_it_had(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(llm_cancel="1:200ms")
    rig.seen.locust_requests.clear()
    began = [head(CHUNKED), chunk(delta(content="so")), chunk(delta(content=" far"))]
    port = wire.serve([pause(0.05), *map(send, began), HOLD])
    record = rig.ask(port.url).record
    assert (record.error_code, record.outcome) == ("cancelled", "cancelled")
    assert record.error_message == "the client cancelled the request after 0.2 s (--llm-cancel)"
    assert record.ttft_s == pytest.approx(0.05, abs=0.04)
    assert record.end_to_end_latency_s == pytest.approx(0.2, abs=0.05)
    assert (record.chunks, record.output_tokens, record.output_tokens_source) == (2, 2, "tokenizer")
    request = port.left_by_client()
    assert (request.client_closed_ns - request.received_ns) / 1e9 == pytest.approx(0.2, abs=0.05)
    assert rig.seen.locust_requests == []


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_a_client_hangs_up_before_anything_came(rig_with: MakeRig, wire: Wire, transport: str) -> None:
    rig = rig_with(llm_cancel="1:150ms", llm_transport=transport)
    port = wire.serve([HOLD])
    record = rig.ask(port.url).record
    assert (record.error_code, record.ttft_s, record.chunks) == ("cancelled", None, 0)
    request = port.left_by_client()
    assert (request.client_closed_ns - request.received_ns) / 1e9 == pytest.approx(0.15, abs=0.06)


def test_what_is_over_before_is_not_cancelled_and_nobody_else_is(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(llm_cancel="1:200ms")
    quick = wire.serve(stream(chat_events("quick")))
    assert rig.ask(quick.url).record.error_code is None
    gevent.sleep(0.25)  # its timer is gone with it
    assert rig.ask(quick.url).record.error_code is None


def test_a_conversation_ends_when_the_client_hangs_up(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(user_class=Talker, llm_think_time="0", llm_cancel="1:150ms")
    port = wire.serve([HOLD])
    answers: list[Any] = rig.call(at(port.url, lambda user: user.hold(TALK)))
    assert [answer.record.error_code for answer in answers] == ["cancelled"]
