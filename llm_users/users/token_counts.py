"""Token counts as servers send them: what is one, and OpenAI's usage as columns of a row.

Knows the record; no transport and no Locust.
"""

from __future__ import annotations

from typing import Any

from llm_users.record import RequestRecord

MOST_TOKENS = 2**53
"""A larger value, such as infinity, is not a count."""


def count(value: Any) -> int | None:
    """A token count, if this is one (some servers send 12.0)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS:
        return int(value)
    return None


def fill_openai_usage(record: RequestRecord, usage: dict[str, Any], asked: str, given: str) -> None:
    """Put the counts of OpenAI's usage into the row. ``asked`` and ``given`` are what this API calls the two sides.

    xAI counts reasoning apart from the output: there ``total_tokens`` is prompt + output + reasoning. Other totals that
    are higher than prompt + output have something else in them, such as cached tokens.
    """
    output, prompt = count(usage.get(f"{given}_tokens")), count(usage.get(f"{asked}_tokens"))
    # SGLang and Perplexity have the count of the reasoning beside the others.
    reasoning = _highest(_inside(usage, f"{given}_tokens_details", "reasoning_tokens"), usage.get("reasoning_tokens"))
    if output is not None and prompt is not None and reasoning:
        outside = count(usage.get("total_tokens")) == prompt + output + reasoning
        output += reasoning if outside else 0
    if output is not None and (output or not record.chunks):
        record.output_tokens, record.output_tokens_source = output, "usage"
    if prompt is not None:
        record.input_tokens, record.input_tokens_source = prompt, "usage"
    record.cached_tokens = _highest(  # OpenAI, Moonshot, DeepSeek
        _inside(usage, f"{asked}_tokens_details", "cached_tokens"),
        usage.get("cached_tokens"),
        usage.get("prompt_cache_hit_tokens"),
    )
    record.reasoning_tokens = reasoning


def _highest(*values: Any) -> int | None:
    """The highest of the counts among these; None when there is none."""
    return max((found for value in values if (found := count(value)) is not None), default=None)


def _inside(usage: dict[str, Any], group: str, name: str) -> Any:
    details = usage.get(group)
    return details.get(name) if isinstance(details, dict) else None
