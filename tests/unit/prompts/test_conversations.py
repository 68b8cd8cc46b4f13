"""Where conversations come from: files of both shapes, and made ones of exact lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_users.distributions import LENGTHS, Distribution
from llm_users.prompts import (
    Conversation,
    PromptError,
    Tokenizer,
    load_tokenizer,
    make_conversations,
    make_source,
)
from llm_users.prompts.conversations import MOST_TURNS, script_of

SHAREGPT = [
    {"id": "a1", "conversations": [{"from": "gpt", "value": "left over"}, {"from": "system", "value": "Be short."},
                                   {"from": "human", "value": "One?"}, {"from": "gpt", "value": "One, two, three."},
                                   {"from": "human", "value": "Two?"}]},
    {"id": "b2", "conversations": [{"from": "gpt", "value": "nobody asks"}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(None)


def source(tokenizer: Tokenizer, file: Path | None = None, **more: Any) -> Any:
    lengths = {"turn_counts": "uniform:2,4", "input_lengths": "uniform:40,60", "output_lengths": "fixed:9"}
    parsed = {name: Distribution.parse(more.pop(name, text), LENGTHS) for name, text in lengths.items()}
    return make_conversations(tokenizer=tokenizer, seed=5, file=file, **parsed, **more)


def texts(conversation: Conversation) -> list[str]:
    return [str(message["content"]) for turn in conversation.turns for message in turn.messages]


def test_made_conversations_are_exact_and_always_the_same(tokenizer: Tokenizer) -> None:
    made, again = source(tokenizer), source(tokenizer)
    talks = [made.prompt(index) for index in range(30)]
    assert [again.prompt(index) for index in reversed(range(30))] == talks[::-1]
    assert {len(talk.turns) for talk in talks} == {2, 3, 4}
    lengths = [tokenizer.count(text) for talk in talks for text in texts(talk)]
    assert min(lengths) >= 40
    assert max(lengths) <= 60
    assert {turn.max_tokens for talk in talks for turn in talk.turns} == {9}
    said = [text for talk in talks for text in texts(talk)]
    assert len(set(said)) == len(said)
    assert len({talk.id for talk in talks}) == 30


def test_conversations_of_two_runs_have_the_same_lengths_and_no_common_text(tokenizer: Tokenizer) -> None:
    one, two = ([source(tokenizer, run_key=key).prompt(index) for index in range(30)] for key in ("one", "two"))
    lengths = [[[tokenizer.count(text) for text in texts(talk)] for talk in talks] for talks in (one, two)]
    assert lengths[0] == lengths[1]
    said = [{text for talk in talks for text in texts(talk)} for talks in (one, two)]
    assert said[0].isdisjoint(said[1])
    beginnings = [text[:25] for talks in (one, two) for talk in talks for text in texts(talk)]
    assert len(set(beginnings)) == len(beginnings)


def test_made_conversations_have_no_text_of_the_prompts(tokenizer: Tokenizer) -> None:
    """Their turns are numbered from 0 like prompts, and a run may have users of both kinds."""
    length, cap = Distribution.parse("fixed:50", LENGTHS), Distribution.parse("fixed:9", LENGTHS)
    prompts = make_source(tokenizer=tokenizer, input_lengths=length, output_lengths=cap, seed=5, run_key="key")
    first = [texts(source(tokenizer, run_key="key", input_lengths="fixed:50").prompt(index))[0] for index in range(10)]
    beginnings = {(prompts.prompt(index).text or "")[:25] for index in range(0, 10 * MOST_TURNS, MOST_TURNS)}
    assert beginnings.isdisjoint({text[:25] for text in first})


def test_what_opens_a_conversation_is_not_said_again_in_it(tokenizer: Tokenizer) -> None:
    first, *others = texts(source(tokenizer, cache_bust="run-1").prompt(0))
    assert len(first.split("\n")[0]) == 16
    assert not any(len(text.split("\n")[0]) == 16 and " " not in text.split("\n")[0] for text in others)


def test_sharegpt_keeps_what_people_said_and_the_length_of_what_was_answered(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for name, text in {
        "list.json": json.dumps(SHAREGPT),
        "lines.jsonl": "\n".join(map(json.dumps, SHAREGPT)),
    }.items():
        (tmp_path / name).write_text(text)
        found = source(tokenizer, tmp_path / name)
        talk = found.prompt(0)
        assert talk.id == "0:a1"
        assert found.prompt(1).id == "1:a1"  # the other one is empty, so this one comes again, by another name
        assert [turn.messages for turn in talk.turns] == [
            ({"role": "system", "content": "Be short."}, {"role": "user", "content": "One?"}),
            ({"role": "user", "content": "Two?"},),
        ]
        assert [turn.max_tokens for turn in talk.turns] == [tokenizer.count("One, two, three."), 9]
        assert found.notes == (f"{tmp_path / name}: 1 of 2 conversations is empty and is skipped",)
        assert found.different == 1


def test_our_own_lines(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    said = [("user", "b"), ("assistant", "long"), ("user", "c")]
    messages = [{"role": role, "content": text} for role, text in said]
    file.write_text('{"turns": ["a", "b"], "max_tokens": 4}\n' + json.dumps({"id": 7, "messages": messages}) + "\n")
    made = source(tokenizer, file, in_order=True)
    first, second = made.prompt(0), made.prompt(1)
    assert (first.id, texts(first), [turn.max_tokens for turn in first.turns]) == ("0", ["a", "b"], [4, 4])
    assert (second.id, texts(second)) == ("1:7", ["b", "c"])
    shuffled = [source(tokenizer, file).prompt(index) for index in range(4)]
    assert {tuple(texts(each)) for each in shuffled[:2]} == {tuple(texts(each)) for each in shuffled[2:]}
    assert len({tuple(texts(each)) for each in shuffled}) == 2


def test_what_others_record(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """LMSYS-Chat-1M's "conversation", and a line of an OpenAI batch file."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    batch = {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions"}
    entries = [{"conversation": messages}, {**batch, "body": {"model": "m", "messages": messages, "max_tokens": 3}}]
    file = tmp_path / "recorded.jsonl"
    file.write_text("\n".join(map(json.dumps, entries)))
    made = source(tokenizer, file, in_order=True)
    assert [texts(made.prompt(index)) for index in range(2)] == [["a"], ["a"]]
    assert made.prompt(1).turns[0].max_tokens == 3


def test_empty_conversations_are_skipped_and_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    entries = [
        {"turns": []},
        {"messages": []},
        {"turns": ["a", " "]},
        {"conversations": [{"from": "gpt", "value": "b"}]},
    ]
    file = tmp_path / "talks.jsonl"
    file.write_text("\n".join(map(json.dumps, entries)))
    found = source(tokenizer, file)
    assert texts(found.prompt(0)) == ["a"]
    assert found.notes == (f"{file}: 3 of 4 conversations are empty and are skipped",)
    file.write_text("\n".join(map(json.dumps, entries[:2])))
    with pytest.raises(PromptError, match=r"conversations file .*none of its 2 entries has a user message"):
        source(tokenizer, file)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([1], "is [1]; a conversation has"),
        ({"text": "x"}, "has text; a conversation has"),
        ({"turns": ["a"], "messages": []}, "has turns and messages"),
        ({"turns": "a"}, '"turns" must be a list, not "a"'),
        ({"turns": ["a", 5]}, 'in "turns" is 5, which is not a text'),
        ({"messages": ["a"]}, 'in "messages" is "a", which is not a message'),
        ({"turns": ["a"], "max_tokens": 0}, '"max_tokens" must be a whole number of 1 or more'),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_place(entry: Any, words: str) -> None:
    with pytest.raises(PromptError) as refused:
        script_of("line 3", entry)
    assert str(refused.value).startswith("line 3: ")
    assert words in str(refused.value)
