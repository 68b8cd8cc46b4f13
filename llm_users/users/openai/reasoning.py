"""Reasoning in the shapes that servers of OpenAI's APIs give it: text, objects, typed parts, summaries.

Knows values of JSON; no transport and no Locust.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

REASONING_NAMES = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
"""Where servers put reasoning: DeepSeek, SGLang, llama.cpp the first; vLLM, OpenRouter, Groq, Ollama the second."""

_TEXTS = ("text", "content", "thinking", "reasoning", "reasoning_text")
_DEEPEST = 8
"""Of lists and objects inside each other: parts in a list in a part are three deep."""

Reasoning = tuple[str, bool]
"""A piece of reasoning, and whether it is of a summary."""

NO_REASONING: Reasoning = ("", False)


def reasoning_of(values: Iterable[Any], details: Any = None) -> Reasoning:
    """The reasoning of a delta or a message: the first of the values that has text, else that of the details.

    ``details``: OpenRouter's list of typed parts. It repeats the text of ``reasoning`` and says whether that is a
    summary; encrypted parts have no text.
    """
    text, summary = "", False
    for value in values:
        if value:
            text, summary = text_of_reasoning(value)
            if text:
                break
    if details:
        detailed, of_summary = text_of_reasoning(details)
        text, summary = text or detailed, summary or of_summary
    return text, summary


def split_content(content: Any) -> tuple[str, Reasoning]:
    """(answer, reasoning) of content given as typed parts: Mistral's reasoning models, Databricks."""
    answer = ""
    thoughts = []
    for part in content if isinstance(content, list) else [content]:
        if not isinstance(part, dict):
            continue
        if str(part.get("type")).startswith(("thinking", "reasoning", "summary")):
            thoughts.append(part)
        elif isinstance(part.get("text"), str):
            answer += part["text"]
    return answer, text_of_reasoning(thoughts)


def text_of_reasoning(value: Any, depth: int = 0) -> Reasoning:
    """The text in a value of any shape. It is a summary when all of its pieces are."""
    if isinstance(value, str):
        return value, False
    if depth > _DEEPEST:
        return NO_REASONING
    if isinstance(value, list):
        pieces = [piece for part in value if (piece := text_of_reasoning(part, depth + 1))[0]]
        return "".join(text for text, _ in pieces), bool(pieces) and all(summary for _, summary in pieces)
    if not isinstance(value, dict):
        return NO_REASONING
    for name in _TEXTS:
        text, summary = text_of_reasoning(value.get(name), depth + 1)
        if text:
            return text, summary or "summary" in str(value.get("type"))
    text, _ = text_of_reasoning(value.get("summary"), depth + 1)
    return text, bool(text)
