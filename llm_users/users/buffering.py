"""Answers that were not streamed although a stream was asked for: a proxy kept them until they were complete.

Such an answer is a success, but when its tokens were made cannot be seen. Knows chunks and the row; no wire format.
"""

from __future__ import annotations

from collections.abc import Callable

from llm_users.record import RequestRecord
from llm_users.users.chunks import Chunks

_NS = 1_000_000_000

BUFFERED = "buffered"

_FEWEST_CHUNKS = 8
"""With fewer chunks, a fast model, speculative decoding or a busy network can bring all of them at one moment."""

_AT_ONCE_S = 0.005
_AT_ONCE_SHARE = 0.01
"""Chunks that span less than both (the share is of TTFT) were not made one after the other."""

_ANNOUNCED_SHARE = 0.05
"""An answer of announced length whose chunks span less than this share of its TTFT was not streamed."""

_FASTEST_CHUNK_S = 0.0003
"""No server makes 3,300 chunks a second for one answer. A client that was late by less than this for each chunk did not
collect them itself: 8 chunks in one read of a client that was 4 ms late can be a fast model's, 100 chunks cannot."""


def chunks_came_at_once(record: RequestRecord, chunks: Chunks, client_delay_s: Callable[[], float]) -> bool:
    """True when a chunked answer was buffered on its way.

    All chunks came in one read, or within 5 ms and 1 % of TTFT. ``client_delay_s()`` is the longest time that the
    client's event loop was late in the last second: a late client, too, finds many chunks in one read.
    """
    if record.chunks < _FEWEST_CHUNKS or record.ttft_s is None or record.last_token_s is None:
        return False
    clocks_ns, span_s = chunks.clocks_ns, record.last_token_s - record.ttft_s
    if clocks_ns[0] != clocks_ns[-1] and span_s >= min(_AT_ONCE_S, _AT_ONCE_SHARE * record.ttft_s):
        return False
    if max(map(len, chunks.places.values())) < _FEWEST_CHUNKS:  # of one choice
        return False
    read_late_ns = clocks_ns[0] - chunks.stamps_ns[0] if chunks.stamps_ns[0] else 0
    delay_s = max(client_delay_s(), read_late_ns / _NS)
    return span_s + delay_s < _FASTEST_CHUNK_S * record.chunks


def body_came_at_once(record: RequestRecord, *, announced: bool, one_read: bool) -> bool:
    """True when an answer without chunked framing was not streamed. ``announced``: its length was in the headers."""
    if record.ttft_s is None or record.last_token_s is None:
        return False
    # A body whose length was announced existed before it was sent; a large one comes in several reads.
    return one_read or (announced and record.last_token_s - record.ttft_s < _ANNOUNCED_SHARE * record.ttft_s)


def mark_buffered(record: RequestRecord) -> None:
    """Make the row that of a buffered answer: no time that the stream would have shown."""
    record.error_code = BUFFERED
    record.error_message = "the answer came all at once although a stream was asked for: no first token was seen"
    record.ttft_s = record.ttfat_s = record.tpot_s = None
    record.gap_p50_s = record.gap_p95_s = record.gap_p99_s = record.gap_max_s = None
