"""What a locustfile uses instead of internals: ``ask``, ``default_body``, ``seed``, ``next_prompt_index``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_users import (
    AnthropicUser,
    BedrockAnthropicUser,
    BedrockOpenAIUser,
    BedrockUser,
    ConversationUser,
    LLMUser,
    OpenAIUser,
    Prompt,
)
from llm_users.simulator.launch import launch
from tests.stream_bytes import chat_events, stream
from tests.unit.users.rig import Rig
from tests.wire_server import Wire

MakeRig = Callable[..., Rig]


class Talker(ConversationUser):
    abstract = True


Talker.tasks = []  # the rig's own task is the only one


@pytest.mark.parametrize(
    ("user_class", "api", "sent"),
    [
        (OpenAIUser, None, "openai-chat"),
        (OpenAIUser, "chat", "openai-chat"),
        (OpenAIUser, "completions", "openai-completions"),
        (OpenAIUser, "responses", "openai-responses"),
        (AnthropicUser, None, "anthropic-messages"),
        (AnthropicUser, "messages", "anthropic-messages"),
        (BedrockUser, None, "bedrock-converse"),
        (BedrockUser, "converse", "bedrock-converse"),
        (BedrockUser, "invoke", "bedrock-invoke"),
        (BedrockOpenAIUser, None, "bedrock-chat"),
        (BedrockOpenAIUser, "bedrock-chat", "bedrock-chat"),
        (BedrockOpenAIUser, "bedrock-responses", "bedrock-responses"),
        (BedrockAnthropicUser, None, "bedrock-messages"),
        (BedrockAnthropicUser, "bedrock-messages", "bedrock-messages"),
    ],
)
def test_ask_sends_the_next_prompt_with_the_api_of_the_run(
    make_rig: MakeRig, user_class: type[LLMUser], api: str | None, sent: str
) -> None:
    model = "anthropic.claude-3-5-sonnet-20240620-v1:0" if user_class is BedrockUser else "tiny"
    with launch("ttft=5ms,itl=1ms", max_seconds=30) as simulator:
        host = simulator.url.removesuffix("/v1") if user_class is BedrockUser else simulator.url
        rig = make_rig(user_class=user_class, llm_api=api, llm_model=model, host=host, llm_simulator="ttft=5ms,itl=1ms")
        answers = [rig.call(lambda user: user.ask()) for _ in range(2)]
    records = [answer.record for answer in answers]
    assert [(record.api, record.error_code) for record in records] == [(sent, None)] * 2
    assert [record.prompt_index for record in records] == [0, 1]


def test_ask_adds_its_keywords_to_the_body(rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("a")))
    rig.call(lambda user: setattr(user, "host", port.url) or user.ask(temperature=0.5, max_tokens=3))
    body = port.requests()[0].json()
    assert (body["temperature"], body["max_tokens"]) == (0.5, 3)


def test_a_conversation_is_held_with_the_api_of_the_run(make_rig: MakeRig) -> None:
    with launch("ttft=5ms,itl=1ms", max_seconds=30) as simulator:
        options: dict[str, Any] = {"llm_api": "responses", "llm_turns": "2", "llm_think_time": "0"}
        rig = make_rig(user_class=Talker, host=simulator.url, **options)
        answers = rig.call(lambda user: user.hold())
    assert [answer.record.api for answer in answers] == ["openai-responses"] * 2


def test_default_body_gives_way_to_the_extra_body_and_to_the_call(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("a")))
    rig = make_rig(
        attributes={"default_body": {"temperature": 0, "top_p": 0.1, "seed": 1}}, llm_extra_body='{"top_p": 0.2}'
    )
    rig.ask(port.url, seed=2)
    body = port.requests()[0].json()
    assert (body["temperature"], body["top_p"], body["seed"]) == (0, 0.2, 2)


def test_the_seed_repeats_with_the_seed_and_the_key_of_the_run(make_rig: MakeRig) -> None:
    def seed_of(number: str, key: str) -> str:
        seed: str = make_rig(llm_seed=number, llm_run_key=key).call(lambda user: user.seed)
        return seed

    seeds = [seed_of("1", "aaaa"), seed_of("1", "aaaa"), seed_of("2", "aaaa"), seed_of("1", "bbbb")]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3


def test_indexes_of_own_prompts_are_not_repeated(make_rig: MakeRig, wire: Wire) -> None:
    class Own(OpenAIUser):
        abstract = True

        def make_prompt(self) -> Prompt:
            return Prompt(self.next_prompt_index(), "hello")

    port = wire.serve(stream(chat_events("a")))
    rig = make_rig(user_class=Own)
    assert [rig.ask(port.url, None).record.prompt_index for _ in range(3)] == [0, 1, 2]
