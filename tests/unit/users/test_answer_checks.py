"""Answers that a locustfile checks: what its row says, and that no row is lost over it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import GreenletExit

from llm_users import Answer, AnswerCheck, OpenAIUser, Prompt, secrets
from tests.stream_bytes import chat_events, delta, reply, stream
from tests.unit.users.rig import Rig, eventually
from tests.wire_server import Wire


class Capitals(OpenAIUser):
    """Asks for capitals; what it checks with can be exchanged."""

    abstract = True
    check: Any = None

    def make_prompt(self) -> Prompt:
        return Prompt(self.next_prompt_index(), "What is the capital of France?")

    def check_answer(self, prompt: Prompt, answer: Answer) -> AnswerCheck | None:
        found: AnswerCheck | None = type(self).check(prompt, answer) if type(self).check else None
        return found


@pytest.fixture
def capitals(rig_with: Callable[..., Rig]) -> Iterator[Rig]:
    rig = rig_with(user_class=Capitals)
    rig.seen.records.clear()
    yield rig
    checks_with(rig, None)


def checks_with(rig: Rig, check: Any) -> None:
    rig.environment.user_classes[0].check = staticmethod(check) if check else None


def ask(rig: Rig, wire: Wire, *pieces: str) -> Answer:
    return rig.ask(wire.serve(stream(chat_events(*pieces))).url, None)


def test_the_row_says_what_the_check_found(capitals: Rig, wire: Wire) -> None:
    asked: list[Prompt] = []

    def check(prompt: Prompt, answer: Answer) -> AnswerCheck:
        asked.append(prompt)
        return AnswerCheck("Paris", "Paris" in answer.text, answer.text == "Paris")

    checks_with(capitals, check)
    record = ask(capitals, wire, "It", " is", " Paris").record
    assert (record.expected_answer, record.answer_excerpt) == ("Paris", "It is Paris")
    assert (record.answer_match, record.answer_strict_match) == (1, 0)
    assert (record.prompt_index, record.input_tokens) == (asked[0].index, 7)
    assert ask(capitals, wire, "Lyon").record.answer_match == 0
    assert asked[1].index == asked[0].index + 1
    assert capitals.seen.records[0].answer_match == 1  # as it left


def test_a_request_without_check_says_nothing(capitals: Rig, wire: Wire) -> None:
    record = ask(capitals, wire, "Paris").record
    assert (record.expected_answer, record.answer_excerpt, record.answer_match) == (None, None, None)
    checks_with(capitals, lambda _prompt, _answer: AnswerCheck("Paris", match=True))
    assert ask(capitals, wire, "Paris").record.answer_strict_match is None


def test_a_failed_request_is_not_checked(capitals: Rig, wire: Wire) -> None:
    def never(_prompt: Prompt, _answer: Answer) -> AnswerCheck:
        raise AssertionError("a failed request has no answer")

    checks_with(capitals, never)
    refused = capitals.ask(wire.serve(reply("500 No", {"error": "no"})).url, None).record
    cut = capitals.ask(wire.serve(stream([delta(content="Par")])).url, None).record
    assert (refused.error_code, cut.error_code) == ("500", "truncated")
    assert refused.answer_match is cut.answer_match is None


def test_tokens_of_an_own_prompt_are_counted_where_the_server_does_not(capitals: Rig, wire: Wire) -> None:
    events = [delta(content="Paris"), delta(finish="stop"), b"data: [DONE]\n\n"]
    record = capitals.ask(wire.serve(stream(events), stream(events), stream(events)).url, None).record
    assert record.error_code is None
    assert record.input_tokens_source == "tokenizer"
    assert record.input_tokens is not None
    assert 5 <= record.input_tokens <= 10


def test_a_check_that_fails_ends_the_task_and_keeps_the_row(capitals: Rig, wire: Wire) -> None:
    def broken(_prompt: Prompt, _answer: Answer) -> AnswerCheck:
        raise KeyError("no such capital")

    checks_with(capitals, broken)
    with pytest.raises(KeyError, match="no such capital"):
        ask(capitals, wire, "Paris")
    (record,) = capitals.seen.records
    assert (record.error_code, record.answer_match) == (None, None)


def test_a_user_that_is_killed_in_its_check_leaves_its_row(make_rig: Callable[..., Rig], wire: Wire) -> None:
    rig = make_rig(user_class=Capitals)
    inside: list[Any] = []

    def slow(_prompt: Prompt, _answer: Answer) -> AnswerCheck:
        inside.append(gevent.getcurrent())
        gevent.sleep(30)
        raise AssertionError("was not killed")

    checks_with(rig, slow)
    url = wire.serve(stream(chat_events("Paris"))).url
    result = rig.send(lambda user: setattr(user, "host", url) or user.chat())
    eventually(lambda: inside)
    inside[0].kill(GreenletExit)
    with pytest.raises(GreenletExit):
        result.get(timeout=5)
    (record,) = rig.seen.records
    assert (record.error_code, record.output_tokens) == (None, 1)


def test_an_excerpt_is_short_and_holds_no_secret(capitals: Rig, wire: Wire) -> None:
    secrets.remember("sesame-of-the-gateway")
    checks_with(capitals, lambda _prompt, answer: AnswerCheck(answer.text, match=True))
    record = ask(capitals, wire, "The key\nis sesame-of-the-gateway", " and" * 100).record
    for text in (record.answer_excerpt or "", record.expected_answer or ""):
        assert re.match(r"The key is \[redacted\] and and", text)
        assert len(text) == 200
