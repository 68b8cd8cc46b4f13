"""Usage that cannot be true: the server's count stays in the row, and throughput comes from a local count.

Knows the chunks of an answer and the token counts of its row; no wire format, no transport and no Locust.
"""

from __future__ import annotations

from collections.abc import Callable

from llm_users.record import RequestRecord
from llm_users.users.chunks import Chunks
from llm_users.users.token_time import exceeds

MOST_OUTPUT_TOKENS = 100_000_000
"""Of one answer; reports leave out what is beyond it. The longest contexts of models have 1e7 tokens."""

_FEW_TIMES, _FEW_TOKENS = 2, 20
"""A text has more tokens than usage says when the local count is above this multiple, and by more than this many."""

_OVER_CAP = 1.1
"""Usage up to this multiple of the cap is believed: some servers count stop tokens or the first token of a template."""

_NOT_USED = (
    "it is not used: output tokens of these answers are counted here, and usage_output_tokens has the server's figure"
)
MANY_NOTE = "{model}: usage has more output tokens than any model can write; " + _NOT_USED
FEW_NOTE = "{model}: usage has less than half the tokens that the text of the answer has; " + _NOT_USED
CAP_NOTE = (
    "{model}: usage has more output tokens than the cap that was sent, and neither the text nor reasoning explains "
    "them; " + _NOT_USED
)


def doubt_usage(
    record: RequestRecord,
    chunks: Chunks,
    *,
    failed: bool,
    count: Callable[[str], int],
    note: Callable[[str], None],
) -> None:
    """Replace the server's count of output tokens by a local one when it cannot be true.

    It cannot when it is beyond ``MOST_OUTPUT_TOKENS``; when the text has more than twice as many tokens, and more than
    20 more; and when, without any reasoning, it is above the cap that was sent while the text is not, or far above the
    text. A server that ignores the cap sends the text as well, and is believed. ``count`` counts the tokens of a text
    locally; it is called only for an answer that has far more chunks than tokens, or more tokens than its cap. ``note``
    takes a text for the manifest; a failed answer gives none, since its usage may be that of its first chunk.
    """
    tokens = record.output_tokens
    if tokens is None or record.output_tokens_source != "usage":
        return
    if tokens > MOST_OUTPUT_TOKENS:
        why, local = MANY_NOTE, count(chunks.everything)
    elif len(chunks.texts) > _FEW_TIMES * tokens + _FEW_TOKENS:
        why, local = FEW_NOTE, count(chunks.everything)
        if local <= _FEW_TIMES * tokens + _FEW_TOKENS:  # a server that sends its text in pieces of tokens
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
    """True when the server counts more than it was allowed to write, and neither reasoning nor the text explains it."""
    tokens, cap = (record.output_tokens or 0) - (record.reasoning_tokens or 0), record.requested_output_tokens
    if not cap or tokens <= _OVER_CAP * cap or chunks.reasoning_at:
        return False
    most = cap * len(chunks.places)
    if tokens <= _OVER_CAP * most:
        return False
    text = chunks.everything
    return exceeds(tokens, text, count) or (len(chunks.texts) <= most and count(text) <= most)
