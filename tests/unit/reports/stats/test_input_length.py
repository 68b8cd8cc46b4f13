"""The warning about prompts whose length by the server's usage is not the requested one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.content import content_of
from llm_users.record import RequestRecord


@pytest.mark.parametrize(
    ("tokens", "source", "more", "warns"),
    [
        (766, "usage", {}, True),
        (920, "usage", {}, False),
        (1110, "usage", {}, True),
        (766, "tokenizer", {}, False),
        (766, "usage", {"llm_prompts": "prompts.jsonl"}, False),
    ],
)
def test_a_difference_of_more_than_ten_percent_causes_a_warning(
    write_run: Callable[..., Path],
    make_record: Callable[..., RequestRecord],
    tokens: int,
    source: str,
    more: dict[str, str],
    warns: bool,
) -> None:
    rows = [make_record(i, input_tokens=tokens, input_tokens_source=source) for i in range(20)]
    options = {"llm_input_tokens": "1000,0", **more}
    content = content_of([llm_reports.load(write_run(rows, manifest={"options": options}))])
    text = f"the server counted {tokens} input tokens per request on average, but --llm-input-tokens asked for 1000"
    assert any(text in warning for warning in content.warnings) == warns
