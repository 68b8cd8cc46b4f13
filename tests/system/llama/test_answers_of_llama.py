"""Answer by answer: our rows against the `usage` and the `timings` that the server sent with each of them."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import pytest

from tests.system.llama.command import Counted, Recorded
from tests.system.llama.conftest import DIFFERENCES

PROXY_S = 0.005
"""Two hops over loopback through another interpreter, on a machine whose cores the model keeps busy."""

BEFORE_PROMPT_S = 0.25
"""From the request's arrival to the start of its prompt: reading, template, tokens, waiting for the current batch."""


AROUND_ANSWER_S = 0.05
"""The median of the client's times minus the server's: both hops, HTTP, template and tokens on shared cores."""


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
    """Most answers agree: on busy cores, a token can wait for its delivery, which the server's clock does not see."""
    late_s = [
        abs(float(row["last_token_s"]) - float(row["ttft_s"]) - said.timings["predicted_ms"] / 1e3)
        - 0.05 * said.timings["predicted_ms"] / 1e3
        for row, said in recorded.pairs()
        # The token that ends an answer takes time but brings no text.
        if int(row["chunks"]) >= 2 and row["finish_reason"] == "length"
    ]
    if late_s:
        assert median(late_s) < 2 * PROXY_S, late_s


def test_time_per_output_token_is_the_server_s(finished: Recorded) -> None:
    """``predicted_ms`` goes from the first token to the last one, the stop token included, ``predicted_n`` has both."""
    pairs = finished.pairs()
    assert len({row["finish_reason"] for row, _ in pairs}) == 1
    off = [
        abs(float(row["tpot_s"]) / (said.timings["predicted_ms"] / 1e3 / (said.timings["predicted_n"] - 1)) - 1)
        for row, said in pairs
    ]
    assert median(off) < 0.02, off


def test_the_first_token_comes_when_the_prompt_is_done(chat: Recorded) -> None:
    for row, said in chat.pairs():
        ours_s, prompt_s = float(row["ttft_s"]), said.timings["prompt_ms"] / 1e3
        assert prompt_s - PROXY_S <= ours_s <= prompt_s + BEFORE_PROMPT_S


def test_the_rows_have_the_server_s_own_times(recorded: Recorded) -> None:
    for row, said in recorded.pairs():
        prompt_s, predicted_s = said.timings["prompt_ms"] / 1e3, said.timings["predicted_ms"] / 1e3
        assert float(row["server_ttft_s"]) == pytest.approx(prompt_s)
        assert float(row["server_latency_s"]) == pytest.approx(prompt_s + predicted_s)


def test_the_client_s_times_are_the_server_s_plus_http_and_the_queue(
    chat: Recorded, pytestconfig: pytest.Config
) -> None:
    """One user, so that no request waits for a slot. The difference is two hops, parsing and the chat template."""
    rows = chat.run.measured
    off_first_s = [float(row["ttft_s"]) - float(row["server_ttft_s"]) for row in rows]
    off_whole_s = [float(row["end_to_end_latency_s"]) - float(row["server_latency_s"]) for row in rows]
    pytestconfig.stash[DIFFERENCES] = {"TTFT": off_first_s, "E2E": off_whole_s}
    assert min(off_first_s) > -PROXY_S
    assert median(off_first_s) < AROUND_ANSWER_S
    assert min(off_whole_s) > -PROXY_S
    assert median(off_whole_s) < AROUND_ANSWER_S


def test_legacy_completions_are_known_by_their_name(completions: Recorded) -> None:
    assert {row["api"] for row in completions.run.rows} == {"openai-completions"}


def test_turns_of_a_conversation_are_in_order_with_live_answers_before_them(conversation: Recorded) -> None:
    assert {row["api"] for row in conversation.run.rows} == {"openai-chat"}
    held: dict[str, list[dict[str, str]]] = {}
    for row in sorted(conversation.run.rows, key=lambda row: float(row["started_at"])):
        held.setdefault(row["conversation_id"], []).append(row)
    follow_ups = 0
    for turns in held.values():
        assert [int(row["turn"]) for row in turns] == list(range(1, len(turns) + 1))
        for before, after in pairwise(turns):
            follow_ups += 1
            # The question, the answer that came and the next question are in the server's own count.
            assert int(after["input_tokens"]) > int(before["input_tokens"]) + int(before["output_tokens"]) - 2
            assert float(after["think_s"]) == pytest.approx(0.1)
            # It had the history in its cache, which is only so when it is word for word what was said.
            assert int(after["cached_tokens"]) >= int(before["input_tokens"]) - 2
    assert follow_ups >= 3


def test_clients_that_hang_up_leave_a_server_that_goes_on(hung_up: Counted) -> None:
    rows = hung_up.run.measured
    assert hung_up.run.exit_code == 0, hung_up.run.complaints[-3000:]
    cancelled = [row for row in rows if row["error_code"] == "cancelled"]
    served = [row for row in rows if not row["error_code"]]
    assert len(cancelled) >= 2
    assert len(served) >= 2
    assert len(cancelled) + len(served) == 10
    for row in cancelled:
        assert float(row["end_to_end_latency_s"]) == pytest.approx(0.3, abs=0.1)
    assert {int(row["output_tokens"]) for row in served} == {100}
    # The fixture waited until the server was idle again: a client that left keeps no slot.
    assert hung_up.grown["requests_processing"] == 0
