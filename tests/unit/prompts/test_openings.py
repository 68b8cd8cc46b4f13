"""Shared texts and heads against caches: exact lengths, who shares what, and that they change nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any

import pytest

from llm_users.distributions import LENGTHS, Distribution
from llm_users.prompts import Prefixes, PromptError, PromptSource, Tokenizer, make_source


def source(tokenizer: Tokenizer | None, lengths: str = "200,60", seed: int = 4, **more: Any) -> PromptSource:
    return make_source(
        tokenizer=tokenizer,
        input_lengths=Distribution.parse(lengths, LENGTHS),
        output_lengths=Distribution.parse("50", LENGTHS),
        seed=seed,
        **more,
    )


def texts_of(prompts: PromptSource, count: int) -> list[str]:
    return [prompts.prompt(index).text or "" for index in range(count)]


def common(sequences: Sequence[Any]) -> Any:
    """What all of them begin with."""
    alike = takewhile(lambda each: len(set(each)) == 1, zip(*sequences, strict=False))
    return sequences[0][: sum(1 for _ in alike)]


@pytest.mark.parametrize(
    ("text", "prefixes"), [("1000x8", Prefixes(1000, 8)), (" 7 x 1 ", Prefixes(7, 1)), ("250", Prefixes(250, 1))]
)
def test_parses(text: str, prefixes: Prefixes) -> None:
    assert Prefixes.parse(text) == prefixes


@pytest.mark.parametrize("text", ["", "x", "0x8", "8x0", "1000x", "-5x1", "1000x8x2", "1.5x2"])
def test_refuses_what_is_no_number_of_shared_texts(text: str) -> None:
    with pytest.raises(PromptError, match="is not TOKENSxCOUNT; write for example 1000x8"):
        Prefixes.parse(text)


def test_prompts_are_longer_by_the_shared_text_to_the_token(tokenizer: Tokenizer) -> None:
    prompts, plain = source(tokenizer, prefixes=Prefixes(300, 3)), source(tokenizer)
    for index in range(30):
        prompt = prompts.prompt(index)
        assert tokenizer.count(prompt.text or "") == prompt.input_tokens
        assert prompt.input_tokens == 300 + (plain.prompt(index).input_tokens or 0)
        assert prompt.max_tokens == plain.prompt(index).max_tokens


def test_every_third_prompt_shares_its_text_and_no_other_does(tokenizer: Tokenizer) -> None:
    texts = texts_of(source(tokenizer, prefixes=Prefixes(300, 3)), 9)
    groups = [texts[number::3] for number in range(3)]
    shared = [common(group) for group in groups]
    assert len(set(shared)) == 3
    for text in shared:
        body = text.partition("\n\n")[0]  # behind it each prompt has its unique line
        assert tokenizer.count(body) == 300
        assert len(text) <= len(body) + 12  # two line breaks, and the letters that unique lines may share
    for one, other in combinations(groups, 2):
        assert len(common([one[0], other[0]])) < 12  # lines that begin alike: "When I", "And "


def test_three_hundred_shared_texts_are_all_different(default_tokenizer: Tokenizer) -> None:
    texts = texts_of(source(default_tokenizer, "30", prefixes=Prefixes(60, 300)), 300)
    assert len({text.split("\n\n")[0] for text in texts}) == 300
    assert len({text.split("\n")[0] for text in texts[:280]}) == 280  # as many as there are lines


def test_shared_texts_of_two_runs_have_nothing_in_common(tokenizer: Tokenizer) -> None:
    one, two = (texts_of(source(tokenizer, prefixes=Prefixes(100, 8), run_key=key), 24) for key in ("one", "two"))
    shared = [{text.partition("\n\n")[0] for text in texts} for texts in (one, two)]
    assert [len(texts) for texts in shared] == [8, 8]
    assert {tokenizer.count(text) for text in shared[0] | shared[1]} == {100}
    for texts in (one, two):
        assert [text.partition("\n\n")[0] for text in texts] == [text.partition("\n\n")[0] for text in texts[:8]] * 3
    longest = max(len(common([first, second])) for first in shared[0] for second in shared[1])
    assert longest <= 20  # letters: two words at most, where sixteen beginnings are compared


def test_a_head_separates_the_prompts_that_share_a_text(default_tokenizer: Tokenizer) -> None:
    busted = texts_of(source(default_tokenizer, prefixes=Prefixes(300, 1), cache_bust="id", run_key="key"), 100)
    ids = [tuple(default_tokenizer.encode(text[:60])) for text in busted]
    assert max(len(common([one, other])) for one, other in combinations(ids, 2)) <= 4
    again = texts_of(source(default_tokenizer, prefixes=Prefixes(300, 1), cache_bust="other", run_key="key"), 100)
    assert {text[:16] for text in busted}.isdisjoint({text[:16] for text in again})
    # The run key repeats what is behind the head; heads differ in tokens, so the ends may too.
    assert [text[17:600] for text in busted] == [text[17:600] for text in again]


def test_short_shared_texts_and_short_prompts(tokenizer: Tokenizer) -> None:
    for tokens in (1, 5, 40):
        for length in (1, 2, 3, 8, 25, 60):
            for run in (None, "run"):
                prompts = source(tokenizer, str(length), prefixes=Prefixes(tokens, 2), cache_bust=run)
                for index in range(4):
                    prompt = prompts.prompt(index)
                    assert tokenizer.count(prompt.text or "") == prompt.input_tokens == tokens + length
                    assert (prompt.text or " ")[-1] not in " \n"


def test_a_shared_text_is_whole_in_the_shortest_prompt(default_tokenizer: Tokenizer) -> None:
    plain = source(default_tokenizer, prefixes=Prefixes(200, 2))
    shared = [(plain.prompt(index).text or "").partition("\n\n")[0] for index in range(2)]
    assert [default_tokenizer.count(text) for text in shared] == [200, 200]
    for length in (1, 2, 3, 10):
        prompts = source(default_tokenizer, str(length), prefixes=Prefixes(200, 2))
        for index in range(6):
            assert (prompts.prompt(index).text or "").startswith(shared[index % 2])
            busted = source(default_tokenizer, str(length), prefixes=Prefixes(200, 2), cache_bust="run").prompt(index)
            assert len(common([busted.text or "", shared[index % 2]])) < 16
            assert int((busted.text or "")[:16], 16) >= 0  # its own head


def test_the_head_is_dropped_only_where_it_does_not_fit(tokenizer: Tokenizer) -> None:
    kept = []
    for length in range(1, 60):
        prompt = source(tokenizer, str(length), cache_bust="run").prompt(2)
        assert tokenizer.count(prompt.text or "") == prompt.input_tokens == length
        kept.append(re.match("[0-9a-f]{16}", prompt.text or "") is not None)
    assert not kept[0]
    assert kept == sorted(kept)  # from some length on always
    head = (source(tokenizer, "300", cache_bust="run").prompt(2).text or "")[:16]
    assert kept.count(False) <= tokenizer.count(head) + 2


def test_heads_make_every_prompt_begin_differently_and_keep_its_length(tokenizer: Tokenizer) -> None:
    plain = source(tokenizer)
    prompts = [source(tokenizer, cache_bust=run).prompt(index) for run in ("one", "two") for index in range(40)]
    for prompt in prompts:
        assert tokenizer.count(prompt.text or "") == prompt.input_tokens == plain.prompt(prompt.index).input_tokens
    assert len({(prompt.text or "")[:16] for prompt in prompts}) == 80


def test_heads_leave_no_more_than_two_tokens_in_common(default_tokenizer: Tokenizer) -> None:
    texts = texts_of(source(default_tokenizer, cache_bust="run"), 200)
    ids = [tuple(default_tokenizer.encode(text)) for text in texts]
    shared = max(len(common([one, other])) for one, other in combinations(ids, 2))
    assert shared <= 4  # of hundreds; a cache keeps blocks of 16 and more
    assert Counter(each[:5] for each in ids).most_common(1)[0][1] == 1
    heads = [default_tokenizer.count(text.split("\n")[0] + "\n") for text in texts]
    assert 6 <= min(heads) <= max(heads) <= 18


def test_a_head_stands_before_the_shared_text(default_tokenizer: Tokenizer) -> None:
    both = source(default_tokenizer, prefixes=Prefixes(100, 2), cache_bust="run")
    plain = source(default_tokenizer, prefixes=Prefixes(100, 2))
    for index in range(8):
        one, other = both.prompt(index), plain.prompt(index)
        assert one.input_tokens == other.input_tokens == default_tokenizer.count(one.text or "")
        head, _, rest = (one.text or "").partition("\n")
        assert len(head) == 16
        assert rest.split("\n\n")[0] == (other.text or "").split("\n\n")[0]


def test_fixed_texts_and_files_get_them_too(tmp_path: Path, default_tokenizer: Tokenizer) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    entries = [
        {"prompt": "Name a river."},
        {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Name a sea."}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]},
        {"messages": [{"role": "user", "content": [{"text": "as Bedrock writes it"}]}]},
        {"input_length": 40},
    ]
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, entries)))
    more: dict[str, Any] = {"prefixes": Prefixes(50, 1), "cache_bust": "run"}
    prompts = source(default_tokenizer, file=file, in_order=True, **more)
    text, chat, seen, bedrock, made = (prompts.prompt(index) for index in range(5))
    count = default_tokenizer.count

    opening = (text.text or "").removesuffix("Name a river.")
    assert count(opening.split("\n", 1)[1].removesuffix("\n\n")) == 50
    assert text.input_tokens == count(text.text or "")
    assert chat.messages
    assert chat.messages[0]["content"].endswith("\n\nBe short.")
    assert chat.messages[1] == entries[1]["messages"][1]  # type: ignore[index]
    assert chat.input_tokens == count(chat.messages[0]["content"]) + count("Name a sea.")
    assert seen.messages
    assert [part["type"] for part in seen.messages[0]["content"]] == ["text", "text", "image_url"]
    assert seen.input_tokens is None
    assert bedrock.messages
    assert [list(part) for part in bedrock.messages[0]["content"]] == [["text"], ["text"]]
    assert made.input_tokens == count(made.text or "") == 90
    heads = {(text.text or "")[:16], chat.messages[0]["content"][:16], (made.text or "")[:16]}
    assert len(heads) == 3

    fixed = source(default_tokenizer, text="Why?", **more)
    assert [fixed.prompt(index).input_tokens for index in range(3)] == [count(text) for text in texts_of(fixed, 3)]
    assert len(set(texts_of(fixed, 100))) == 100
    assert {text.split("\n\n")[-1] for text in texts_of(fixed, 5)} == {"Why?"}


def test_a_pure_function_of_seed_run_and_index(default_tokenizer: Tokenizer) -> None:
    more: dict[str, Any] = {"prefixes": Prefixes(120, 5), "cache_bust": "run"}
    expected = [source(default_tokenizer, **more).prompt(index) for index in range(30)]
    shared = source(default_tokenizer, **more)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shared.prompt, reversed(range(30)))) == expected[::-1]
    assert source(default_tokenizer, seed=5, **more).prompt(0) != expected[0]


def test_shared_texts_need_a_tokenizer() -> None:
    with pytest.raises(PromptError, match="need a tokenizer"):
        source(None, text="a", prefixes=Prefixes(10))
