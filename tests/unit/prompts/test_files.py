"""Fixed prompts and files of prompts: what is read, in which order, and how a bad file is refused."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_users.distributions import LENGTHS, Distribution
from llm_users.prompts import PromptError, PromptSource, Tokenizer, make_source
from llm_users.prompts.files import read_items
from llm_users.prompts.hub import parse_hub_name

INPUT, OUTPUT = Distribution.parse("550,150", LENGTHS), Distribution.parse("150,80", LENGTHS)


def source(
    tokenizer: Tokenizer | None, file: Path | str | None = None, text: str | None = None, seed: int = 1, **more: Any
) -> PromptSource:
    return make_source(
        tokenizer=tokenizer, input_lengths=INPUT, output_lengths=OUTPUT, seed=seed, text=text, file=file, **more
    )


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
    assert [item.text for item in read_items(str(file)).items] == texts
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
    told = {"role": "tool", "content": "4"}
    for messages in ([{"role": "user", "content": [{"type": "text", "text": "this?"}, image]}], [called, told]):
        file = write(tmp_path, "p.jsonl", json.dumps({"messages": messages}))
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
        ("p.json", "[\n", r"p\.json', line 2: not JSON \(it is incomplete\)"),
        ("p.json", '["a",\n"b" "c"]', r"p\.json', line 2: not JSON \(.*, column 5\)"),
        ("p.jsonl", '{"prompt": "a\\ud83d"}', r"line 1: \\ud83d is half of a character"),
        ("p.json", b'["\xff"]', "line 1: not UTF-8"),
        ("p.jsonl", '"a"\n'.encode("utf-16"), "is UTF-16 text. Save it as UTF-8"),
        ("p.txt", b"a\n\x00\x01\n", "line 2: contains null characters, so it is not text"),
        ("p.jsonl", b"\x28\xb5\x2f\xfd....", "is compressed with Zstandard"),
        ("p.jsonl", b"PK\x03\x04....", "is compressed as a ZIP archive"),
        ("p.parquet.gz", b"\x1f\x8b", "Parquet files have internal compression"),
        ("p.jsonl", '{"body": {"model": "m"}}', 'line 1: "body" has model, but not "messages"'),
        ("p.jsonl", '{"url": "/v1/embeddings", "body": {"input": "a"}}', "is a request to .*has no answer to measure"),
        ("p.csv", "prompt,max_tokens\na," + "9" * 5000, 'line 2: "max_tokens" must be .* not "999'),
        ("p.csv", '"a\nb\x1b[2J",c\n1,2\n', r"line 3: has a\?b\?\[2J, c; an entry"),
        ("p.json", '["a", 1]', r"p\.json', entry 2: is 1; an entry has one of \"prompt\""),
        ("p.jsonl", "[1]", r'line 1: is \[1\]; an entry has one of "prompt"'),
        ("p.jsonl", '{"text": "a"}', "line 1: has text; an entry has .* name the field: FILE:FIELD"),
        ("p.jsonl", "{}", "line 1: has no fields; an entry"),
        ("p.jsonl", '{"prompt": "a", "messages": []}', 'line 1: has "prompt" and "messages"; an entry has one of'),
        ("p.jsonl", '{"conversations": 1}', 'line 1: "conversations" must be a list of objects with "from"'),
        ("p.jsonl", '{"conversations": [1]}', 'line 1: "conversations" must be a list of objects with "from"'),
        ("p.jsonl", '{"conversations": [{"from": "gpt", "value": "Hi"}]}', "no prompts: its only entry is empty"),
        ("p.jsonl", '{"input_length": 0}', 'line 1: "input_length" must be a whole number .* not 0'),
        ("p.jsonl", '{"input_length": 2.5}', 'line 1: "input_length" must be a whole number .* not 2.5'),
        ("p.csv", "question,max_tokens\na,5\n", "line 2: has question, max_tokens; an entry"),
        ("p.csv", "prompt,max_tokens\na,five\n", 'line 2: "max_tokens" must be .* not "five"'),
        ("p.csv", "prompt\n  \n \n", "has no prompts: all of its 2 entries are empty"),
        ("p.csv", "prompt\na,b\n", "line 2: the number of cells differs from the first line"),
        ("p.csv", 'prompt\n"a\n', "line 1: not a table"),
        ("p.csv", b"prompt\nfine\n\xff\n", "line 3: not UTF-8"),
        ("p.csv", "prompt\n", "has no prompts"),
        ("p.parquet", "no table", "cannot be read as Parquet: "),
        ("p.jsonl", '{"prompt": 3}', 'line 1: "prompt" must be a text'),
        ("p.jsonl", '" "\n{"prompt": null}\n{"messages": []}', "has no prompts: all of its 3 entries are empty"),
        ("p.jsonl", '{"messages": "a"}', 'line 1: "messages" must be a list'),
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
    with pytest.raises(PromptError, match=r"cannot be read as Parquet: .*No such file"):
        source(None, tmp_path / "nix.parquet")
    with pytest.raises(PromptError, match="set only one of a fixed prompt, a prompts file and a trace"):
        source(None, write(tmp_path, "p.txt", "a"), text="a")
    with pytest.raises(PromptError, match="empty"):
        source(None, text=" \n")


# Recorded conversations, and entries that are only lengths.


def test_the_first_turn_of_recorded_conversations(tmp_path: Path, default_tokenizer: Tokenizer) -> None:
    answer = "The Rhine, the Danube and the Elbe."
    entries = [
        {"id": "a", "conversations": [{"from": "human", "value": "Name rivers."}, {"from": "gpt", "value": answer},
                                      {"from": "human", "value": "Longer ones."}]},
        {"id": "b", "conversations": [{"from": "gpt", "value": "Hello."}, {"from": "human", "value": "Name a sea."}]},
        {"id": "c", "conversations": [{"from": "gpt", "value": "Nobody answers."}]},
        {"id": "d", "conversations": []} | {"conversations": [{"from": "system", "value": "Be short."},
                                                              {"from": "human", "value": "Name a lake."}]},
        {"id": "e", "conversations": [{"role": "user", "content": "Name a hill."},
                                      {"role": "assistant", "content": "K2."}], "max_tokens": 9},
    ]  # fmt: skip
    files = [
        write(tmp_path, "share.json", json.dumps(entries, indent=1)),
        write(tmp_path, "share.jsonl", "\n".join(map(json.dumps, entries))),
    ]
    for file in files:
        prompts = source(default_tokenizer, file, in_order=True)
        assert prompts.notes == (f"{file}: 1 of 5 prompts is empty and is skipped",)
        assert prompts.different == 4
        seen = [prompts.prompt(index) for index in range(4)]
        assert [prompt.text for prompt in seen] == ["Name rivers.", "Name a sea.", None, "Name a hill."]
        system = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Name a lake."}]
        assert seen[2].messages == system
        # As long as the recorded answer, else as drawn.
        assert (seen[0].max_tokens, seen[3].max_tokens) == (default_tokenizer.count(answer), 9)
        assert seen[1].max_tokens == source(default_tokenizer).prompt(1).max_tokens


def test_recorded_messages_are_sent_without_the_final_answer(tmp_path: Path, default_tokenizer: Tokenizer) -> None:
    """What is measured is another answer; the recorded one says how long an answer is."""
    ask, answer, more = (
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello there, you."},
        {"role": "user", "content": "again"},
    )  # fmt: skip
    system = {"role": "system", "content": "Be short."}
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    told = {"role": "tool", "tool_call_id": "c", "content": "4"}
    begun = {"role": "assistant", "content": "Well", "prefix": True}
    # (recorded, sent, the answer that gives the cap)
    cases = [
        ({"messages": [ask, answer]}, [ask], answer),
        ({"messages": [system, ask, answer, more, answer, answer]}, [system, ask, answer, more], answer),
        ({"messages": [ask, called, told, answer]}, [ask, called, told], answer),
        ({"messages": [ask, called]}, [ask], None),
        ({"messages": [ask, begun]}, [ask, begun], None),
        ({"messages": [ask, answer, more]}, [ask, answer, more], None),
        ({"conversation": [{**ask, "language": "English"}, {**answer, "toxic": False}]}, [ask], answer),
        (
            {"conversation": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "Yes."}]},
            "hi",
            {"content": "Yes."},
        ),
    ]
    skipped = [{"messages": [system, answer]}, {"messages": [answer]}]
    entries = [entry for entry, _, _ in cases]
    file = write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, [*entries, *skipped])))
    prompts = source(default_tokenizer, file, in_order=True)
    drawn = source(default_tokenizer)
    for index, (_, sent, recorded) in enumerate(cases):
        prompt = prompts.prompt(index)
        assert (prompt.text or prompt.messages) == sent
        cap = drawn.prompt(index).max_tokens if recorded is None else default_tokenizer.count(str(recorded["content"]))
        assert prompt.max_tokens == cap
    assert prompts.different == len(cases)
    assert prompts.notes == (
        f"{file}: 2 of 10 prompts are empty and are skipped",
        f"{file}: 5 of 10 prompts end with a recorded answer, which is not sent",
    )


def test_empty_entries_are_skipped_and_counted(tmp_path: Path) -> None:
    blank = {"role": "user", "content": " "}
    empty = [{"prompt": ""}, {"prompt": None}, " ", {"messages": []}, {"messages": [blank]}, {"conversations": []}]
    file = write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, ["one", *empty, "two"])))
    prompts = source(None, file, in_order=True)
    assert [prompts.prompt(index).text for index in range(3)] == ["one", "two", "one"]
    assert prompts.notes == (f"{file}: 6 of 8 prompts are empty and are skipped",)
    table = source(None, write(tmp_path, "p.csv", "prompt,max_tokens\na,5\n,7\nb,\n"), in_order=True)
    assert [table.prompt(index).text for index in range(2)] == ["a", "b"]
    assert "1 of 3 prompts is empty and is skipped" in table.notes[0]


def test_lines_of_batch_files(tmp_path: Path) -> None:
    """OpenAI's (chat completions, completions, responses) and Anthropic's, by the fields of their documentation."""
    ask = {"role": "user", "content": "a"}
    line = {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions"}
    bodies = [
        ({**line, "body": {"model": "m", "messages": [ask], "max_tokens": 3, "temperature": 1}}, [ask], 3),
        ({**line, "body": {"messages": [ask], "max_completion_tokens": 4}}, [ask], 4),
        ({**line, "url": "/v1/completions", "body": {"prompt": "b", "max_tokens": 5}}, "b", 5),
        ({**line, "url": "/v1/responses", "body": {"input": "c", "max_output_tokens": 6}}, "c", 6),
        ({**line, "url": "/v1/responses", "body": {"input": [ask], "instructions": "s", "max_output_tokens": 7}},
         [{"role": "system", "content": "s"}, ask], 7),
        ({"custom_id": "r-2", "params": {"model": "m", "max_tokens": 8, "system": "s", "messages": [ask]}},
         [{"role": "system", "content": "s"}, ask], 8),
    ]  # fmt: skip
    prompts = source(
        None, write(tmp_path, "p.jsonl", "\n".join(json.dumps(each) for each, _, _ in bodies)), in_order=True
    )
    for index, (_, sent, cap) in enumerate(bodies):
        prompt = prompts.prompt(index)
        assert (prompt.text or prompt.messages, prompt.max_tokens) == (sent, cap)


@pytest.mark.parametrize(("ending", "packed"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed_files(tmp_path: Path, ending: str, packed: Callable[[bytes], bytes]) -> None:
    texts = {"p.jsonl": '{"prompt": "a"}\n', "p.json": '["a"]', "p.csv": "prompt\na\n", "p.txt": "\ufeffa\n"}
    for name, text in texts.items():
        assert source(None, write(tmp_path, name + ending, packed(text.encode()))).prompt(0).text == "a"
    cut = write(tmp_path, "p.jsonl" + ending, packed(b'{"prompt": "a"}\n' * 200)[:-9])
    with pytest.raises(PromptError, match=r"its compressed data is damaged or incomplete.*Copy or download it again"):
        source(None, cut)


def test_entries_that_are_lengths_get_texts_of_them(tmp_path: Path, default_tokenizer: Tokenizer) -> None:
    lengths = [(31, 7), (4000, 500), (120, None)]
    file = write(
        tmp_path,
        "lengths.jsonl",
        "\n".join(json.dumps({"timestamp": 1, "input_length": i, "output_length": o}) for i, o in lengths),
    )
    prompts = source(default_tokenizer, file, in_order=True)
    seen = [prompts.prompt(index) for index in range(6)]
    assert [default_tokenizer.count(prompt.text or "") for prompt in seen] == [31, 4000, 120] * 2
    assert [prompt.input_tokens for prompt in seen] == [31, 4000, 120] * 2
    assert [prompt.max_tokens for prompt in seen[:2]] == [7, 500]
    assert len({prompt.text for prompt in seen}) == 6  # lengths come again, texts do not
    assert prompts.different is None
    with pytest.raises(PromptError, match="need a tokenizer"):
        source(None, file).prompt(0)


# Tables.


def test_csv(tmp_path: Path, default_tokenizer: Tokenizer) -> None:
    rows = '\ufeffid,prompt,max_tokens,question\n1,"Two\nlines, ""quoted""",12,a\n2,' + "x" * 200_000 + ",,b\n"
    file = write(tmp_path, "p.csv", rows)
    prompts = source(default_tokenizer, file, in_order=True)
    first, second = prompts.prompt(0), prompts.prompt(1)
    assert (first.text, first.max_tokens) == ('Two\nlines, "quoted"', 12)
    assert len(second.text or "") == 200_000
    assert second.max_tokens == source(default_tokenizer).prompt(1).max_tokens
    named = source(default_tokenizer, f"{file}:question", in_order=True)
    assert [(named.prompt(index).text, named.prompt(index).max_tokens) for index in (0,)] == [("a", 12)]
    with pytest.raises(PromptError, match=r'line 3: has no field "answer"; it has id, prompt, max_tokens, question'):
        source(None, f"{file}:answer")


def test_tsv_and_a_name_with_a_colon(tmp_path: Path) -> None:
    file = write(tmp_path, "a:b.tsv", "prompt\tinput_length\none, two\t5\n")
    assert source(None, file).prompt(0).text == "one, two"
    assert source(None, f"{file}:prompt").prompt(0).text == "one, two"


def test_a_named_field_of_json_lines(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "b"}]
    turns = [{"from": "human", "value": "c"}]
    file = write(
        tmp_path, "p.jsonl", "\n".join(json.dumps({"q": each, "prompt": "x"}) for each in ("a", messages, turns))
    )
    prompts = source(None, f"{file}:q", in_order=True)
    assert [prompts.prompt(index).text for index in range(3)] == ["a", None, "c"]
    assert prompts.prompt(1).messages == messages
    with pytest.raises(PromptError, match="read as text with one prompt per line: it has no column 'q'"):
        source(None, f"{write(tmp_path, 'p.txt', 'a')}:q")


def test_parquet(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    chat = [{"role": "system", "content": "s", "name": "n"}, {"role": "user", "content": "u"}]
    rows = [
        {"prompt": "a", "max_tokens": 5, "messages": None, "picture": b"\x00" * 1000},
        {"prompt": None, "max_tokens": None, "messages": chat, "picture": b""},
    ]
    file = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    prompts = source(None, file, in_order=True)
    assert (prompts.prompt(0).text, prompts.prompt(0).max_tokens) == ("a", 5)
    assert prompts.prompt(1).messages == chat  # without "name": null in the second
    pq.write_table(pa.table({"question": ["q"], "n": [1]}), file)
    assert source(None, f"{file}:question").prompt(0).text == "q"
    for name, wanted in (
        (str(file), "conversation, conversations, input_length, messages, prompt"),
        (f"{file}:answer", "answer"),
    ):
        with pytest.raises(PromptError, match=f"its columns are question, n; expected one of {wanted}. Name"):
            source(None, name)
    pq.write_table(pa.table({"input_length": [40.0, None], "prompt": pa.nulls(2, pa.string())}), file)
    assert source(None, file).notes == (f"{file}: 1 of 2 prompts is empty and is skipped",)
    pq.write_table(pa.table({"input_length": [40.0, 0.5]}), file)
    with pytest.raises(PromptError, match=r"row 2: "):
        source(None, file)


def test_without_the_packages_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pyarrow", "datasets"):
        monkeypatch.setitem(sys.modules, package, None)  # how Python marks what cannot be imported
    with pytest.raises(
        PromptError, match=r"p\.parquet': reading Parquet needs the package pyarrow.*pip install '\.\[parquet"
    ):
        source(None, write(tmp_path, "p.parquet", "PAR1"))
    with pytest.raises(PromptError, match=r"'hf:org/name:test': .* need the package datasets.*pip install datasets"):
        source(None, "hf:org/name:test")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf:org/name", ("org/name", None, "train", None)),
        ("hf:name:test", ("name", None, "test", None)),
        ("hf:org/name/small:test:question", ("org/name", "small", "test", "question")),
        ("hf:org/name::question", ("org/name", None, "train", "question")),
        ("hf:org/name:train[:1000]:my text", ("org/name", None, "train[:1000]", "my text")),
        ("hf:org/name:train[10:20]", ("org/name", None, "train[10:20]", None)),
    ],
)
def test_names_of_hub_data_sets(name: str, parts: tuple[str | None, ...]) -> None:
    assert parse_hub_name(name) == parts


def test_a_name_of_no_hub_data_set_is_refused() -> None:
    with pytest.raises(PromptError, match="is not the name of a dataset; write hf:ORG/NAME"):
        parse_hub_name("hf:")


def test_a_hub_data_set(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write(tmp_path, "train.jsonl", '{"question": "a", "other": 1}\n{"question": "b", "other": 2}\n')
    prompts = source(None, f"hf:{tmp_path}:train:question", in_order=True)
    assert [prompts.prompt(index).text for index in range(2)] == ["a", "b"]


# Order.


def test_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "p.txt", "\n".join(f"prompt {number}" for number in range(7)))
    prompts = source(None, file, in_order=True)
    assert [prompts.prompt(index).text for index in range(14)] == [f"prompt {number}" for number in range(7)] * 2
    assert prompts.different == 7
    assert source(None, file, cache_bust="run").different is None  # no two begin alike
    assert source(None, text="a").different is None


def test_workers_together_ask_each_entry_once(tmp_path: Path) -> None:
    file = write(tmp_path, "p.txt", "\n".join(f"prompt {number}" for number in range(23)))
    texts = [source(None, file).prompt(index).text or "" for worker in range(3) for index in range(worker, 23, 3)]
    assert sorted(texts) == sorted(f"prompt {number}" for number in range(23))
