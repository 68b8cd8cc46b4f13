"""Fixed prompts and files of prompts: what is read, in which order, and how a bad file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_users.prompts import LengthLaw, PromptError, PromptSource, Tokenizer, make_source
from llm_users.prompts.files import read_items

INPUT, OUTPUT = LengthLaw(550, 150), LengthLaw(150, 80)


def source(
    tokenizer: Tokenizer | None, file: Path | None = None, text: str | None = None, seed: int = 1
) -> PromptSource:
    return make_source(tokenizer=tokenizer, input_law=INPUT, output_law=OUTPUT, seed=seed, text=text, file=file)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_a_fixed_text_for_every_index(default_tokenizer: Tokenizer) -> None:
    prompts = source(default_tokenizer, text="Why is the sky blue?\n")
    seen = [prompts.prompt(index) for index in range(50)]
    assert {prompt.text for prompt in seen} == {"Why is the sky blue?\n"}
    assert {prompt.input_tokens for prompt in seen} == {default_tokenizer.count("Why is the sky blue?\n")}
    assert [prompt.index for prompt in seen] == list(range(50))
    assert len({prompt.max_tokens for prompt in seen}) > 20
    sonnets = source(default_tokenizer)
    assert [prompt.max_tokens for prompt in seen[:5]] == [sonnets.prompt(index).max_tokens for index in range(5)]


def test_plain_text_one_prompt_per_line(tmp_path: Path, default_tokenizer: Tokenizer) -> None:
    file = write(tmp_path, "p.txt", '\ufeffone\r\n\r\n  two\u2028still two \n{"prompt": 1}\n\nVögel 🐦')
    texts = ["one", "two\u2028still two", '{"prompt": 1}', "Vögel 🐦"]
    assert [item.text for item in read_items(file)] == texts
    prompts = source(default_tokenizer, file)
    for index in range(4):
        prompt = prompts.prompt(index)
        assert prompt.text
        assert prompt.input_tokens == default_tokenizer.count(prompt.text)
        assert prompt.messages is None


@pytest.mark.parametrize("name", ["p.jsonl", "p.json-lines", "P.JSONL", "p.ndjson"])
def test_json_lines(tmp_path: Path, default_tokenizer: Tokenizer, name: str) -> None:
    parts = [{"type": "text", "text": "What is this?"}]
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": [{"text": "as Bedrock writes it"}]},
    ]
    entries = ["bare", {"prompt": "p", "max_tokens": 7, "id": 3}, {"messages": messages, "output_tokens": 9}]
    file = write(tmp_path, name, "\ufeff" + "\n\n".join(map(json.dumps, entries)) + "\n")
    prompts = source(default_tokenizer, file)
    seen = {prompt.text: prompt for prompt in map(prompts.prompt, range(3))}
    assert set(seen) == {"bare", "p", None}
    assert seen["p"].max_tokens == 7
    assert seen["bare"].max_tokens not in (None, 7, 9)
    chat = seen[None]
    assert chat.messages == messages
    assert chat.max_tokens == 9
    contents = ("Be short.", "What is this?", "as Bedrock writes it")
    assert chat.input_tokens == sum(map(default_tokenizer.count, contents))


def test_what_is_not_text_is_left_to_the_server_to_count(tmp_path: Path, default_tokenizer: Tokenizer) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    for message in ({"role": "user", "content": [{"type": "text", "text": "this?"}, image]}, called):
        file = write(tmp_path, "p.jsonl", json.dumps({"messages": [message]}))
        assert source(default_tokenizer, file).prompt(0).input_tokens is None


def test_all_are_used_before_any_comes_again(tmp_path: Path) -> None:
    file = write(tmp_path, "p.txt", "\n".join(f"prompt {number}" for number in range(23)))
    prompts = source(None, file)
    rounds = [[prompts.prompt(23 * turn + index).text for index in range(23)] for turn in range(3)]
    assert all(len(set(texts)) == 23 for texts in rounds)
    assert rounds[0] == rounds[1] == rounds[2]
    assert rounds[0] != [f"prompt {number}" for number in range(23)]
    assert [source(None, file).prompt(index).text for index in (22, 0)] == [rounds[0][22], rounds[0][0]]
    assert [source(None, file, seed=2).prompt(index).text for index in range(23)] != rounds[0]


def test_without_a_tokenizer_the_count_is_unknown(tmp_path: Path) -> None:
    file = write(tmp_path, "p.jsonl", '"a"')
    assert source(None, file).prompt(0).input_tokens is None
    assert source(None, text="a").prompt(0).input_tokens is None
    with pytest.raises(PromptError, match="need a tokenizer"):
        source(None)


def test_changing_the_messages_of_a_prompt_does_not_change_the_source(tmp_path: Path) -> None:
    prompts = source(None, write(tmp_path, "p.jsonl", '{"messages": [{"role": "user", "content": "a"}]}'))
    messages = prompts.prompt(0).messages
    assert messages
    messages[0]["content"] = "b"
    messages.append({})
    assert prompts.prompt(1).messages == [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("p.jsonl", '"a"\n{"prompt": "b"', r"p\.jsonl', line 2: not JSON"),
        ("p.jsonl", "\n\nhello", "line 3: not JSON"),
        ("p.json", "[\n", "line 1: not JSON"),
        ("p.jsonl", "[1]", 'line 1: needs either "prompt" or "messages"'),
        ("p.jsonl", '{"text": "a"}', "line 1: needs either"),
        ("p.jsonl", '{"prompt": "a", "messages": []}', "line 1: needs either"),
        ("p.jsonl", '{"prompt": 3}', 'line 1: "prompt" must be a text'),
        ("p.jsonl", '"a"\n" "', 'line 2: "prompt" must be a text'),
        ("p.jsonl", '{"messages": []}', 'line 1: "messages" must be a list'),
        ("p.jsonl", '{"messages": [{"content": "a"}]}', 'line 1: "messages" must be a list'),
        ("p.jsonl", '{"prompt": "a", "max_tokens": 0}', 'line 1: "max_tokens" must be a whole number .* not 0'),
        ("p.jsonl", '{"prompt": "a", "output_tokens": "9"}', 'line 1: "output_tokens" must be .* not "9"'),
        ("p.jsonl", '{"prompt": "a", "max_tokens": true}', "line 1: .* not true"),
        ("p.jsonl", "", "has no prompts"),
        ("p.txt", " \n\r\n", "has no prompts"),
        ("p.txt", b"fine\nbad \xff byte\n", "line 2: not UTF-8 .byte 5 of the line"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, name: str, content: str | bytes, complaint: str) -> None:
    with pytest.raises(PromptError, match=complaint):
        source(None, write(tmp_path, name, content))


def test_a_missing_file_and_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"nix\.txt' cannot be read: No such file"):
        source(None, tmp_path / "nix.txt")
    with pytest.raises(PromptError, match="cannot be read"):
        source(None, tmp_path)
    with pytest.raises(PromptError, match="leave one out"):
        source(None, write(tmp_path, "p.txt", "a"), text="a")
    with pytest.raises(PromptError, match="empty"):
        source(None, text=" \n")
