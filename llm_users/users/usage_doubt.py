"""Replace implausible usage by a local token count. The row keeps the server's count in ``usage_output_tokens``.

The module uses the chunks of an answer and the token counts of its row; it does not depend on a wire format, on the
transport or on Locust.
"""

from __future__ import annotations

from collections.abc import Callable

from llm_users.record import RequestRecord
from llm_users.users.chunks import Chunks
from llm_users.users.token_time import exceeds

MOST_OUTPUT_TOKENS = 100_000_000
"""Limit per answer; reports ignore larger values. The longest contexts of models have 1e7 tokens."""

_FEW_TIMES, _FEW_TOKENS = 2, 20
"""Usage is too low if the local count is above this multiple of it, and by more than this many tokens."""

_OVER_CAP = 1.1
"""Usage up to this multiple of the cap is accepted: some servers count stop tokens or a template's first token."""

_NOT_USED = (
    "it is not used: the client counts the output tokens of these answers, and usage_output_tokens has the server's "
    "figure"
)
MANY_NOTE = "{model}: usage has more output tokens than any model can generate; " + _NOT_USED
FEW_NOTE = "{model}: usage has less than half the tokens of the answer's text; " + _NOT_USED
CAP_NOTE = (
    "{model}: usage has more output tokens than the requested cap, and neither the text nor reasoning explains them; "
    + _NOT_USED
)


def doubt_usage(
    record: RequestRecord,
    chunks: Chunks,
    *,
    failed: bool,
    count: Callable[[str], int],
    note: Callable[[str], None],
) -> None:
    """Replace the server's count of output tokens by a local count if it is implausible.

    It is implausible in three cases: it is above ``MOST_OUTPUT_TOKENS``; the text has more than twice as many tokens,
    and more than 20 more; or, without any reasoning, it is above the requested cap although the text is not, or is far
    above the text. A server that ignores the cap sends the text too, so its count is accepted. ``count`` counts the
    tokens of a text locally; it is called only for an answer with far more chunks than tokens, or more tokens than its
    cap. ``note`` adds a text to the manifest; a failed answer adds none, because its usage may be from its first chunk.
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
    record.usage_output_tokens = tokens
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
