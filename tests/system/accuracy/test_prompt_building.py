"""The cost of building prompts: loose bounds, and the command that prints it."""

from __future__ import annotations

import pytest

from llm_users.prompts import load_tokenizer
from tests.system.accuracy.prompt_building import LENGTHS_TO_BUILD, main, measure_building, measure_loop, source_of


@pytest.mark.alone
def test_prompts_of_550_tokens_are_built_for_thousands_of_requests_per_second() -> None:
    # On two quiet cores: 2,000 prompts per second, and 0.12 ms with the interpreter lock.
    tokenizer = load_tokenizer(None)
    cost = measure_building(tokenizer, "550,150", 1.0)
    loop = measure_loop(source_of(tokenizer, "550,150"), 2000.0, 2.0)
    print(
        f"{cost.locked_ms:.3f} ms with the lock, {loop.taken_per_s:.0f} prompts/s, p99 of delays {loop.p99_ms:.2f} ms"
    )
    assert cost.locked_ms < 0.5
    assert loop.taken_per_s > 1400


@pytest.mark.alone
def test_the_command_prints_every_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0.2"]) == 0
    first_words = [line.split()[:1] for line in capsys.readouterr().out.splitlines()]
    for lengths in LENGTHS_TO_BUILD:
        assert first_words.count([lengths]) >= 2
