"""Answer by answer: our rows against the `usage` and the `timings` that the server sent with each of them."""

from __future__ import annotations

import pytest
from command import Recorded

PROXY_S = 0.005
"""Two hops over loopback through another interpreter, on a machine whose cores the model keeps busy."""

BEFORE_PROMPT_S = 0.25
"""From the request's arrival to the start of its prompt: reading, template, tokens, waiting for the current batch."""


@pytest.fixture(params=["chat", "completions", "conversation"])
def recorded(request: pytest.FixtureRequest) -> Recorded:
    found: Recorded = request.getfixturevalue(request.param)
    return found


def test_every_answer_has_its_row(recorded: Recorded) -> None:
    assert recorded.run.exit_code == 0, recorded.run.complaints[-3000:]
    assert {row["response_id"] for row in recorded.run.rows} == set(recorded.said)
    assert len(recorded.run.measured) == 6


def test_tokens_are_the_server_s_exactly(recorded: Recorded) -> None:
    for row, said in recorded.pairs():
        assert int(row["output_tokens"]) == said.usage["completion_tokens"] == said.timings["predicted_n"]
        assert int(row["input_tokens"]) == said.usage["prompt_tokens"]
        assert int(row["input_tokens"]) == said.timings["cache_n"] + said.timings["prompt_n"]
        assert int(row["cached_tokens"]) == said.timings["cache_n"]


def test_the_span_from_first_to_last_token_is_the_server_s(recorded: Recorded) -> None:
    for row, said in recorded.pairs():
        if int(row["chunks"]) < 2 or row["finish_reason"] != "length":
            continue  # the token that ends an answer takes time but brings no text
        ours_s = float(row["last_token_s"]) - float(row["ttft_s"])
        assert ours_s == pytest.approx(said.timings["predicted_ms"] / 1e3, rel=0.05, abs=2 * PROXY_S)


def test_the_first_token_comes_when_the_prompt_is_done(chat: Recorded) -> None:
    for row, said in chat.pairs():
        ours_s, prompt_s = float(row["ttft_s"]), said.timings["prompt_ms"] / 1e3
        assert prompt_s - PROXY_S <= ours_s <= prompt_s + BEFORE_PROMPT_S


def test_legacy_completions_are_known_by_their_name(completions: Recorded) -> None:
    assert {row["api"] for row in completions.run.rows} == {"openai-completions"}


def test_conversations_reach_the_template(conversation: Recorded) -> None:
    assert {row["api"] for row in conversation.run.rows} == {"openai-chat"}
    assert {row["user_class"] for row in conversation.run.rows} == {"Conversation"}
    # Three turns are far more than the last question alone.
    assert min(int(row["input_tokens"]) for row in conversation.run.rows) > 40
