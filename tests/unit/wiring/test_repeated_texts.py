"""Which texts of a run count as given, and at which endpoints: what decides about the note of repeated texts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_users.options.command_line import read_options
from llm_users.wiring.repeated_texts import RepeatedTexts


class Asks:
    """What is looked at of a user class."""

    prepare_process, holds_conversations = None, False
    host: str | None = None
    model: str | None = None


class Talks(Asks):
    holds_conversations = True


class OfOthers:
    """A user class that is not an LLM user."""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def repeated(*classes: type, host: str | None = "https://one/v1", **options: Any) -> RepeatedTexts:
    parsed = SimpleNamespace(**{f"llm_{name}": value for name, value in options.items()})
    return RepeatedTexts(read_options(parsed), classes or (Asks, OfOthers), host)


def notes(*classes: type, **options: Any) -> list[bool]:
    """Whether a first run and the second one have a note."""
    found = []
    for _ in range(2):
        run = repeated(*classes, **options)
        found.append(run.note() is not None)
        run.remember()
    return found


def test_given_texts_are_noted_from_the_second_run_on(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\nb\n")
    (tmp_path / "talks.jsonl").write_text('{"turns": ["a"]}\n')
    assert notes(prompt="a") == [False, True]
    assert notes(prompts=str(tmp_path / "p.txt")) == [False, True]
    assert notes(Talks, conversations=str(tmp_path / "talks.jsonl")) == [False, True]


def test_generated_texts_are_noted_only_when_they_repeat(tmp_path: Path) -> None:
    lengths = tmp_path / "lengths.jsonl"
    lengths.write_text(json.dumps({"input_length": 40}) + "\n")
    for options in ({}, {"prompts": str(lengths)}, {"prompt": "a", "shared_prefix": "50x2"}, {"images": "1x8x8"}):
        assert notes(**options) == [False, False], options
        assert notes(**options, repeat_prompts=True) == [True, True], options
    assert notes(Talks) == [False, False]
    assert "last on" not in str(repeated(run_key="first").note())


def test_heads_against_caches_and_a_simulator_of_the_run_need_no_note() -> None:
    assert notes(prompt="a", cache_bust=True) == [False, False]
    assert notes(repeat_prompts=True, cache_bust=True) == [False, False]
    assert notes(prompt="a", simulator="default") == [False, False]


def test_another_endpoint_or_model_is_another_cache() -> None:
    repeated(prompt="a").remember()
    assert repeated(prompt="a").note()
    assert not repeated(prompt="a", host="https://two/v1").note()
    assert not repeated(prompt="a", model="m").note()
    assert not repeated(prompt="b").note()
    targets = "small@https://two/v1=1,large@https://three/v1=1"
    repeated(prompt="a", targets=targets).remember()
    assert repeated(prompt="a", model="large", host="https://three/v1").note()

    class Own(Asks):
        host, model = "https://user:secret@four/v1/", "m"

    repeated(Own, prompt="a").remember()
    assert repeated(prompt="a", model="m", host="https://four/v1").note()


def test_the_register_holds_neither_texts_nor_addresses(tmp_path: Path) -> None:
    repeated(prompt="tell nobody").remember()
    (file,) = tmp_path.rglob("*.json")
    assert not any(word in file.read_text() for word in ("nobody", "one", "https"))
