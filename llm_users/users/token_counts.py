"""Read token counts from servers' usage, and fill the columns of a row from OpenAI's usage.

The module does not depend on the transport or on Locust.
"""

from __future__ import annotations

from typing import Any

from llm_users.record import RequestRecord

MOST_TOKENS = 2**53
"""Limit on a token count. A larger value, such as infinity, is not a count."""


def count(value: Any) -> int | None:
    """Return the value as a token count (some servers send 12.0); None if it is not a count."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS:
        return int(value)
    return None


def fill_openai_usage(record: RequestRecord, usage: dict[str, Any], asked: str, given: str) -> None:
    """Fill the token columns of the row from OpenAI's usage.

    ``asked`` and ``given`` are the API's names for the prompt and the output ("prompt" and "completion", or "input"
    and "output"). xAI counts reasoning separately from the output: its ``total_tokens`` is prompt + output +
    reasoning. Other totals above prompt + output contain other counts, such as cached tokens.
    """
    output, prompt = count(usage.get(f"{given}_tokens")), count(usage.get(f"{asked}_tokens"))
    # SGLang and Perplexity have the reasoning count at the top level of usage.
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
    """Return the highest count among the values; None if none is a count."""
    return max((tokens for value in values if (tokens := count(value)) is not None), default=None)


def _inside(usage: dict[str, Any], group: str, name: str) -> Any:
    details = usage.get(group)
    return details.get(name) if isinstance(details, dict) else None
