"""Token counts: read them from servers' usage, and replace implausible usage by a local count.

The module does not depend on the transport or on Locust.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_users.record import RequestRecord
from llm_users.users.chunks import Chunks

MOST_TOKENS = 2**53
"""Limit on a token count. A larger value, such as infinity, is not a count."""

MOST_OUTPUT_TOKENS = 100_000_000
"""Limit per answer; reports ignore larger values. The longest contexts of models have 1e7 tokens."""

_FEW_TIMES, _FEW_TOKENS = 2, 20
"""Usage is too low if the local count is above this multiple of it, and by more than this many tokens."""

_OVER_CAP = 1.1
"""Usage up to this multiple of the cap is accepted: some servers count stop tokens or a template's first token."""

_NOT_USED = (
    "it is not used: the client counts the output tokens of these answers, and output_tokens_usage has the server's "
    "figure"
)
MANY_NOTE = "{model}: usage has more output tokens than any model can generate; " + _NOT_USED
FEW_NOTE = "{model}: usage has less than half the tokens of the answer's text; " + _NOT_USED
CAP_NOTE = (
    "{model}: usage has more output tokens than the requested cap, and neither the text nor reasoning explains them; "
    + _NOT_USED
)

HIDDEN_TIMES, HIDDEN_TOKENS = 2, 20
"""Usage above this multiple of the local count, and by more than this many tokens, includes hidden reasoning.

Two vocabularies rarely differ by a factor of 2 on one text; the second limit is for answers of a few tokens."""

_LONG_TOKEN = 4.0
"""In characters. Few vocabularies have longer tokens on average, so a text with this many per token has no hidden
reasoning."""


def count(value: Any) -> int | None:
    """Return the value as a token count (some servers send 12.0); None if it is not a count."""
    if value is None:
        return None
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
    highest = None
    for value in values:
        tokens = count(value)
        if tokens is not None and (highest is None or tokens > highest):
            highest = tokens
    return highest


def _inside(usage: dict[str, Any], group: str, name: str) -> Any:
    details = usage.get(group)
    return details.get(name) if isinstance(details, dict) else None


def doubt_usage(
    record: RequestRecord,
    chunks: Chunks,
    *,
    failed: bool,
    count: Callable[[str], int],
    note: Callable[[str], None],
) -> None:
    """Replace the server's count of output tokens by a local count if it is implausible.

    The row keeps the server's count in ``output_tokens_usage``. It is implausible in three cases: it is above
    ``MOST_OUTPUT_TOKENS``; the text has more than twice as many tokens, and more than 20 more; or, without any
    reasoning, it is above the requested cap although the text is not, or is far above the text. A server that ignores
    the cap sends the text too, so its count is accepted. ``count`` counts the tokens of a text locally; it is called
    only for an answer with far more chunks than tokens, or more tokens than its cap. ``note`` adds a text to the
    manifest; a failed answer adds none, because its usage may be from its first chunk.
    """
    tokens = record.output_tokens
    if tokens is None or record.output_tokens_source != "usage":
        return
    if tokens > MOST_OUTPUT_TOKENS:
        why, local = MANY_NOTE, count(chunks.everything)
    elif len(chunks.texts) > _FEW_TIMES * tokens + _FEW_TOKENS:
        why, local = FEW_NOTE, count(chunks.everything)
        if local <= _FEW_TIMES * tokens + _FEW_TOKENS:  # the server sends several chunks per token
            return
    elif _is_over_cap(record, chunks, count):
        why, local = CAP_NOTE, count(chunks.everything)
    else:
        return
    record.output_tokens_usage = tokens
    record.output_tokens, record.output_tokens_source = local, "tokenizer"
    if not failed:
        note(why.format(model=record.model))


def _is_over_cap(record: RequestRecord, chunks: Chunks, count: Callable[[str], int]) -> bool:
    """Return True if usage is above the requested cap and neither reasoning nor the text explains it."""
    tokens, cap = (record.output_tokens or 0) - (record.reasoning_tokens or 0), record.requested_output_tokens
    if not cap or tokens <= _OVER_CAP * cap or chunks.reasoning_at:
        return False
    most = cap * len(chunks.places)
    if tokens <= _OVER_CAP * most:
        return False
    text = chunks.everything
    return exceeds(tokens, text, count) or (len(chunks.texts) <= most and count(text) <= most)


def exceeds(tokens: int, text: str, count: Callable[[str], int]) -> bool:
    """Return True if ``tokens`` is more than twice the local count of the text, and by more than 20 tokens."""
    # Words and characters decide most cases without a tokenizer, because each word is at least one token.
    if len(text) >= _LONG_TOKEN * tokens or tokens <= HIDDEN_TIMES * len(text.split()):
        return False
    local = count(text)
    return tokens > HIDDEN_TIMES * local and tokens - local > HIDDEN_TOKENS
