"""A process parses its options once for a run, however many of its parts use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_users.options import command_line
from llm_users.wiring import coordinator
from tests.unit.users.rig import Rig


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The model name of each time that options are parsed."""
    seen: list[str] = []
    read = command_line.read_options

    def count(parsed: Any) -> Any:
        seen.append(parsed.llm_model)
        return read(parsed)

    monkeypatch.setattr(command_line, "read_options", count)
    monkeypatch.setattr(coordinator, "read_options", count)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    return seen


def test_the_only_process_of_a_run_parses_them_once(tmp_path: Path, parses: list[str]) -> None:
    rig = Rig(tmp_path)
    try:
        assert rig.call(lambda user: user.run_context.options.model) == "tiny"
    finally:
        rig.stop()
    assert parses == ["tiny"]


def test_options_that_changed_before_the_start_are_parsed_again(tmp_path: Path, parses: list[str]) -> None:
    rig = Rig(tmp_path)
    try:
        rig.call(lambda _user: None)
        rig.runner.stop()
        rig.environment.parsed_options.llm_model = "large"  # type: ignore[union-attr]
        rig.runner.start(1, spawn_rate=100)
        assert rig.call(lambda user: user.run_context.options.model) == "large"
    finally:
        rig.stop()
    assert parses == ["tiny", "large"]
