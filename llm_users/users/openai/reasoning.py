"""Extract reasoning in all shapes that servers of OpenAI's APIs send: text, objects, typed parts, summaries.

The module handles JSON values; it does not depend on the transport or on Locust.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

REASONING_NAMES = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
"""Fields with reasoning. DeepSeek, SGLang, llama.cpp: the first; vLLM, OpenRouter, Groq, Ollama: the second."""

_TEXTS = ("text", "content", "thinking", "reasoning", "reasoning_text")
_DEEPEST = 8
"""Limit on the nesting of lists and objects. Parts in a list in a part have a depth of three."""

Reasoning = tuple[str, bool]
"""A piece of reasoning, and whether it is part of a summary."""

NO_REASONING: Reasoning = ("", False)


def list_of(value: Any) -> list[Any]:
    """Return the value if it is a list; otherwise an empty list."""
    return value if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """Return the value if it is text; otherwise an empty text."""
    return value if isinstance(value, str) else ""


def reasoning_of(values: Iterable[Any], details: Any = None) -> Reasoning:
    """Return the reasoning of a delta or a message: the first value with text, or else the text of the details.

    ``details``: OpenRouter's list of typed parts. It repeats the text of ``reasoning`` and tells whether it is a
    summary; encrypted parts have no text.
    """
    text, summary = "", False
    for value in values:
        if value:
            text, summary = text_of_reasoning(value)
            if text:
                break
    if details:
        detail_text, is_summary = text_of_reasoning(details)
        text, summary = text or detail_text, summary or is_summary
    return text, summary


def split_content(content: Any) -> tuple[str, Reasoning]:
    """Return (answer, reasoning) of content in typed parts (Mistral's reasoning models, Databricks)."""
    answer = ""
    reasoning_parts = []
    for part in content if isinstance(content, list) else [content]:
        if not isinstance(part, dict):
            continue
        if str(part.get("type")).startswith(("thinking", "reasoning", "summary")):
            reasoning_parts.append(part)
        elif isinstance(part.get("text"), str):
            answer += part["text"]
    return answer, text_of_reasoning(reasoning_parts)


def text_of_reasoning(value: Any, depth: int = 0) -> Reasoning:
    """Return the text in a value of any shape, which is a summary if all of its pieces are."""
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
