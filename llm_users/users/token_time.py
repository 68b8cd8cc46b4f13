"""Compute the time per output token (TPOT) of one answer. This module is the only definition of TPOT.

It uses the chunks of an answer and the token counts of its row, and does not depend on a wire format, on the transport
or on Locust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import dropwhile
from typing import NamedTuple

from llm_users.record import RequestRecord
from llm_users.users.chunks import Chunks, joined
from llm_users.users.token_counts import HIDDEN_TIMES, HIDDEN_TOKENS, exceeds

_NS = 1_000_000_000

NO_STOP_TOKEN = frozenset(
    (
        # The cap was reached: names of OpenAI, Anthropic, Converse, Responses, Mistral, vLLM and Cohere.
        "length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length",
        "model_context_window_exceeded", "error_limit",
        # A filter cut the answer.
        "content_filter", "content_filtered", "guardrail_intervened", "refusal", "error_toxic", "safety", "recitation",
        # The server aborted the answer.
        "error", "abort", "aborted", "cancelled", "incomplete",
    )
)  # fmt: skip
"""Finish reasons, in lower case, of answers that did not end with a stop token."""

LATE_FINISH = 2.0
"""A finish event more than this many mean gaps after the last chunk is not the stop token (moderation, gateways)."""

_LATE_FROM_CHUNKS = 3
"""With fewer chunks, the mean gap is not a usable reference."""

HIDDEN_NOTE = (
    "{model}: usage has more than twice the tokens of the received text, so hidden reasoning is assumed; TPOT uses "
    "the local count of the answer"
)
SUMMARY_NOTE = (
    "{model}: the streamed reasoning is only a summary; TPOT covers the answer from its first chunk, without the "
    "reasoning tokens"
)
LATE_NOTE = (
    "{model}: in some answers the finish reason arrived more than two mean gaps after the last chunk (moderation, a "
    "gateway or a pause of the server); their TPOT ends at the last chunk, without the stop token"
)


class _Visible(NamedTuple):
    """The tokens that TPOT covers: their number, their first chunk, and whether they include stop tokens."""

    tokens: int
    first: int  # index of the chunk where they begin
    stop_tokens: bool


class _Span(NamedTuple):
    """The stamps of the first and the last chunk of one choice, and the number of its chunks."""

    first_ns: int
    last_ns: int
    chunks: int

    def is_late(self, finish_ns: int) -> bool:
        """Return whether a finish event is too late to be the stop token."""
        if self.chunks < _LATE_FROM_CHUNKS:
            return False
        return finish_ns - self.last_ns > LATE_FINISH * (self.last_ns - self.first_ns) / (self.chunks - 1)


def time_per_output_token(
    chunks: Chunks,
    record: RequestRecord,
    *,
    failed: bool,
    count: Callable[[str], int],
    note: Callable[[str], None],
) -> float | None:
    """Return the TPOT of one answer in seconds per token: ``(tL - c1) / (N - n1)``; None if it is undefined.

    - c1: the stamp of the first chunk. n1: the tokens in it, 1 unless the server sends usage with every chunk.
    - N: the output tokens that reached the client: ``output_tokens`` without the reasoning tokens that were not
      streamed. If only a summary of the reasoning was streamed, c1 is the first chunk of the answer. Without a
      ``reasoning_tokens`` figure, hidden reasoning is assumed if usage exceeds twice the local count of the visible
      text and by more than 20 tokens; N is then the local count of the answer, and a note says so.
    - tL: the stamp of the event with the finish reason. Servers such as vLLM, llama.cpp, transformers and mlx count the
      stop token in usage, but send no content chunk for it: they send the finish event when the stop token is sampled.
      tL is the stamp of the last chunk, cK, if the answer did not end with a stop token (``NO_STOP_TOKEN``, errors), if
      each token has a chunk (as many chunks as tokens), or if N was counted locally.
      With usage in every chunk, tL is the first event with the final count.
      A finish event later than cK + 2 mean gaps, with 3 or more chunks, is not the stop token: tL is cK, the divisor
      does not include the stop token, and a note says so.
    - Several choices (``n``): the mean over the choices. The tokens of a choice are its own usage if the server sends
      it; otherwise its share, by chunks, of all tokens except the stop tokens, plus its own stop token.
    - None if N <= n1, if tL = c1, or with one chunk and more than two tokens.

    Source: ``vllm:request_time_per_output_token_seconds`` is (last token - first token) / (output tokens - 1), with
    the stop token as the last one (vllm/v1/metrics/stats.py, ``mean_time_per_output_token``); ``vllm bench serve``,
    genai-bench and inference-perf end at the end of the stream. Whether Bedrock, Anthropic and OpenAI count a stop
    token is unknown; the error is at most 1 / (N - 1).

    The stamps are from ``record.stamp_source``, or all from the user clock if the finish event has no kernel stamp.
    ``count`` counts the tokens of a text locally; it is called only for an answer with far more tokens than chunks and
    characters. ``note`` adds a text to the manifest. ``failed``: the answer ended with an error.
    """
    if not record.output_tokens or not chunks.stamps_ns:
        return None
    visible = _visible_tokens(chunks, record, count, note)
    if visible is None:
        return None
    kernel = record.stamp_source == "kernel" and all(ending.stamp_ns for ending in chunks.endings.values())
    stamps_ns = chunks.stamps_ns if kernel else chunks.clocks_ns
    places: Mapping[int, Sequence[int]] = chunks.places
    if visible.first:
        # The chunks of each choice from its first answer chunk on.
        answers = {
            choice: list(dropwhile(lambda index: not chunks.texts[index], indices))
            for choice, indices in places.items()
        }
        places = {choice: indices for choice, indices in answers.items() if indices}
    in_chunks = sum(map(len, places.values()))
    # A chunk has at least one token, so with as many chunks as tokens there is no stop token.
    ends = {
        choice: ending.stamp_ns if kernel else ending.clock_ns
        for choice, ending in chunks.endings.items()
        if visible.stop_tokens and not failed and in_chunks < visible.tokens
        if choice in places and ending.reason.lower() not in NO_STOP_TOKEN
    }
    counts = chunks.running_counts
    if visible.first or sum(running.last for running in counts.values()) != record.output_tokens:
        counts = {}  # they do not add up to the count of the whole answer
    times_s = []
    for choice, indices in places.items():
        span = _Span(stamps_ns[indices[0]], stamps_ns[indices[-1]], len(indices))
        running = counts.get(choice)
        if running is not None and running.first:
            counted_ns = running.stamp_ns if kernel else running.clock_ns
            time_s = _time_per_token(span, running.last, running.first, counted_ns or None)
        else:
            share = (visible.tokens - len(ends)) * len(indices) / in_chunks + (choice in ends)
            tokens = running.last if running is not None and len(places) > 1 else share
            stop_ns = ends.get(choice)
            if stop_ns is not None and span.is_late(stop_ns):
                note(LATE_NOTE.format(model=record.model))
                tokens, stop_ns = tokens - 1, None
            time_s = _time_per_token(span, tokens, 1, stop_ns)
        if time_s is not None:
            times_s.append(time_s)
    return sum(times_s) / len(times_s) if times_s else None


def _time_per_token(span: _Span, tokens: float, in_first: int, end_ns: int | None) -> float | None:
    """Return (tL - c1) / (N - n1) in seconds. If ``end_ns`` is None, tL is the last chunk."""
    span_ns = max(span.last_ns, end_ns or 0) - span.first_ns
    if tokens <= in_first or span_ns <= 0 or (span.chunks == 1 and tokens > 2):
        return None
    return span_ns / _NS / (tokens - in_first)


def _visible_tokens(
    chunks: Chunks, record: RequestRecord, count: Callable[[str], int], note: Callable[[str], None]
) -> _Visible | None:
    """Return the tokens that reached the client; None if no part of the answer did."""
    tokens, hidden, in_chunks = record.output_tokens or 0, record.reasoning_tokens, len(chunks.texts)
    if record.output_tokens_source != "usage":
        return _Visible(tokens, 0, stop_tokens=False)
    if not hidden:  # servers and routers that do not count reasoning separately may send 0
        return _visible_by_text(chunks, record, count, note)
    summary = chunks.reasoning_is_summary
    if chunks.reasoning_at and not summary and tokens > HIDDEN_TIMES * in_chunks + HIDDEN_TOKENS:
        summary = exceeds(hidden, joined(chunks.reasoning_at.values()), count)
    if chunks.reasoning_at and not summary:
        return _Visible(tokens, 0, stop_tokens=True)
    if chunks.first_answer < 0:
        return None
    # More chunks than remaining tokens: the reasoning is part of the text, or is not part of the count.
    if sum(map(bool, chunks.texts)) > tokens - hidden:
        return _Visible(tokens, 0, stop_tokens=True)
    if summary:
        note(SUMMARY_NOTE.format(model=record.model))
    return _Visible(tokens - hidden, chunks.first_answer, stop_tokens=True)


def _visible_by_text(
    chunks: Chunks, record: RequestRecord, count: Callable[[str], int], note: Callable[[str], None]
) -> _Visible | None:
    """Return the visible tokens if the server does not report its reasoning tokens, by comparison with the text."""
    tokens = record.output_tokens or 0
    hidden = chunks.reasoning_is_summary
    if not hidden and tokens > HIDDEN_TIMES * len(chunks.texts) + HIDDEN_TOKENS:
        hidden = exceeds(tokens, chunks.everything, count)
    if not hidden:
        return _Visible(tokens, 0, stop_tokens=True)
    note((SUMMARY_NOTE if chunks.reasoning_is_summary else HIDDEN_NOTE).format(model=record.model))
    if chunks.first_answer < 0:
        return None
    return _Visible(count(joined(chunks.texts)), chunks.first_answer, stop_tokens=False)
