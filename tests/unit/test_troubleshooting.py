"""Every message that docs/troubleshooting.md quotes is in the source, so that a search for a message finds the page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.documented import PAGES
from tests.project import ROOT

PAGE = PAGES["docs/troubleshooting.md"]
_BLOCKS = re.findall(r"^```text\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
QUOTES = [line for block in _BLOCKS for line in block.splitlines()]
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|%[sd]|%\.\d[fg]")


@cache
def texts() -> list[str]:
    """The texts of the product, with `…` in the place of every value."""
    folders = (ROOT / "llm_users", ROOT / "reports" / "llm_reports")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for folder in folders for path in folder.rglob("*.py")]
    return [text for tree in trees for text in _texts_of(tree)]


def _texts_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield _PLACEHOLDER.sub("…", node.value)


def is_in_the_source(quote: str) -> bool:
    return any(quote.rstrip(".") in text for text in texts())


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_message_is_in_the_source(quote: str) -> None:
    assert len(re.sub(r"\W", "", quote)) > 12, "too short to be found by chance only"
    assert is_in_the_source(quote)


def test_a_message_that_does_not_exist_is_found_out() -> None:
    assert not is_in_the_source("cannot connect to the moon")


@pytest.mark.parametrize(
    "symptom", ["Cannot connect", "401", "404", "429", "Buffered", "Truncated", "Saturated", "Disturbed", "Strained"]
)
def test_every_symptom_has_a_section_with_its_message_and_what_to_do(symptom: str) -> None:
    (section,) = (part for part in re.split(r"^##+ ", PAGE, flags=re.MULTILINE) if symptom in part.splitlines()[0])
    message, _, advice = section.partition("```text\n")[2].partition("\n```\n")
    assert message
    assert len(advice.split()) > 15


@pytest.mark.parametrize("tool", ["LLMPerf", "vllm bench serve", "AIPerf", "GuideLLM", "genai-bench"])
def test_differences_to_every_tool_are_explained(tool: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert any(tool in line.split("|")[1] for line in rows)
