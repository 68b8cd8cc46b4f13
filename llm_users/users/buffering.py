"""Answers that something on the way kept back: until they were complete, or until a buffer was full or a timer ran out.

- ``buffered``: the answer came all at once although a stream was asked for. It is a success, but when its tokens were
  made cannot be seen. ``chunks_came_at_once`` has the rule for chunked bodies, ``body_came_at_once`` for others.
- Held back (``RequestRecord.burst_chunks``): the answer came in a few large bursts. ``mark_held_back`` has the rule.

Knows chunks and the row; no wire format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from llm_users.outcome import BUFFERED
from llm_users.record import HELD_BACK_FROM, RequestRecord
from llm_users.users.chunks import Chunks

_NS = 1_000_000_000

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

_LARGE_BURST = 12
"""Chunks. A step of speculative decoding with 8 drafted tokens makes at most 9, and a buffer of 4 KiB holds 12 to 30
events of 130 to 330 bytes."""

_BORDER_S = 0.010
"""A pause from which on a new burst begins. The segments of one flush follow each other faster, on slow lines too."""

_SILENCE_S = 0.050
"""The shortest mean pause between bursts. A client whose event loop stands still for less than a period of the lag
probe (20 ms) can be late without being seen, and Nagle's algorithm with a delayed acknowledgement pauses for 40 ms."""

_TOO_LONG_FOR_A_STEP_S = 0.5
"""No decoding step takes so long, so a burst after such a mean pause was not made by one step (of speculative
decoding with more drafted tokens, 16 in llama.cpp by default)."""

_WHOLE_SHARE = 0.02
"""Chunks of one burst that span less than this share of TTFT: a long answer takes some round trips to be sent, 1 % of
TTFT for 1,000 chunks over loopback."""

_HELD_SHARE = 0.75
"""The least share of the chunks in large bursts. A server that stalls now and then stays below it."""


_TURNS = 2
"""Turns of the event loop that a read can wait for; the lag probe sees the longest turn. Seen here: a client that
blocked its loop for 0.5 s at a time read a stream each 1.0 s."""


def chunks_came_at_once(record: RequestRecord, chunks: Chunks, client_delay_s: Callable[[], float]) -> bool:
    """True when a chunked answer was buffered on its way.

    All chunks came in one read, or within 5 ms and 1 % of TTFT. ``client_delay_s()`` is the longest time that the
    client's event loop was late since one second before the first chunk: a late client, too, finds many chunks in one
    read.
    """
    if record.chunks < _FEWEST_CHUNKS or record.ttft_s is None or record.last_token_s is None:
        return False
    clocks_ns, span_s = chunks.clocks_ns, record.last_token_s - record.ttft_s
    if clocks_ns[0] != clocks_ns[-1] and span_s >= min(_AT_ONCE_S, _AT_ONCE_SHARE * record.ttft_s):
        return False
    if max(map(len, chunks.places.values())) < _FEWEST_CHUNKS:  # of one choice
        return False
    delay_s = max(client_delay_s(), _read_late_s(chunks, 0))
    return span_s + delay_s < _FASTEST_CHUNK_S * record.chunks


def body_came_at_once(record: RequestRecord, *, announced: bool, one_read: bool) -> bool:
    """True when an answer without chunked framing was not streamed. ``announced``: its length was in the headers."""
    if record.ttft_s is None or record.last_token_s is None:
        return False
    # A body whose length was announced existed before it was sent; a large one comes in several reads.
    return one_read or (announced and record.last_token_s - record.ttft_s < _ANNOUNCED_SHARE * record.ttft_s)


def mark_held_back(
    record: RequestRecord, chunks: Chunks, stamps_ns: Sequence[int], client_delay_s: Callable[[], float]
) -> None:
    """Fill ``burst_chunks`` of a streamed answer that something on the way held back; else it stays 0.

    A burst is a run of chunks without a pause of 10 ms. It is large when it has 12 chunks or more at less than 0.3 ms
    each: no model makes them so fast, so they were made before and waited. The answer was held back if it has at least
    24 chunks in its longest choice, and

    - all of them are one large burst within 2 % of TTFT (then ``tpot_s`` becomes empty: the time between the first
      token and the last was not seen); or
    - at least two bursts are large, with at least three quarters of the chunks, not counting what was left for the last
      burst, and the first burst is large or the mean pause is 0.5 s or more. A server's first token comes alone from
      prefill, so speculative decoding never begins with a large burst, and none of its steps takes 0.5 s; and the mean
      pause is at least 50 ms and four times the time that the client itself was late, by its event loop's lag
      (``client_delay_s()``) or by the kernel's stamps. A client that collects chunks is late by the whole pause, or by
      half of it where a read waits for two turns of the loop.

    ``stamps_ns``: the arrivals that the times of the row come from.
    """
    if record.chunks < HELD_BACK_FROM or record.gap_p50_s is None or record.gap_p50_s >= _FASTEST_CHUNK_S:
        return  # most chunks came one by one: nothing else is done for an ordinary answer
    places = max(chunks.places.values(), key=len)
    if len(places) < HELD_BACK_FROM:
        return
    bursts = _bursts(places, stamps_ns)
    large = [burst for burst in bursts if burst.is_large]
    if not large:
        return
    delay_s = max(client_delay_s(), *(_read_late_s(chunks, burst.first) for burst in large))
    if len(bursts) == 1:
        span_s = bursts[0].span_s
        waited = record.ttft_s is not None and span_s < _WHOLE_SHARE * record.ttft_s
        if waited and span_s + _TURNS * delay_s < _FASTEST_CHUNK_S * bursts[0].chunks:
            record.burst_chunks, record.tpot_s = bursts[0].chunks, None
        return
    rest = bursts[-1].chunks if bursts[-1].came_at_once and not bursts[-1].is_large else 0
    if len(large) < 2 or sum(burst.chunks for burst in large) < _HELD_SHARE * (len(places) - rest):
        return
    pause_s = sum(burst.pause_s for burst in bursts) / (len(bursts) - 1)
    no_step_made_it = bursts[0].is_large or pause_s >= _TOO_LONG_FOR_A_STEP_S
    if no_step_made_it and pause_s >= max(_SILENCE_S, 2 * _TURNS * delay_s):
        record.burst_chunks = round(median(burst.chunks for burst in large))


@dataclass(frozen=True, slots=True)
class _Burst:
    """Chunks of one choice without a pause between them. ``pause_s`` is the one before them, 0 for the first burst."""

    first: int  # the index of its first chunk in the answer
    chunks: int
    span_s: float
    pause_s: float

    @property
    def came_at_once(self) -> bool:
        return self.span_s < _FASTEST_CHUNK_S * self.chunks

    @property
    def is_large(self) -> bool:
        return self.chunks >= _LARGE_BURST and self.came_at_once


def _bursts(places: Sequence[int], stamps_ns: Sequence[int]) -> list[_Burst]:
    """The bursts that these chunks came in."""
    borders = [
        number
        for number, (earlier, later) in enumerate(pairwise(places), 1)
        if stamps_ns[later] - stamps_ns[earlier] >= _BORDER_S * _NS
    ]
    found: list[_Burst] = []
    for start, end in pairwise([0, *borders, len(places)]):
        first_ns, last_ns = stamps_ns[places[start]], stamps_ns[places[end - 1]]
        pause_ns = first_ns - stamps_ns[places[start - 1]] if start else 0
        found.append(_Burst(places[start], end - start, (last_ns - first_ns) / _NS, pause_ns / _NS))
    return found


def _read_late_s(chunks: Chunks, place: int) -> float:
    """How long after its arrival a chunk was read; 0 where the kernel gave no stamp."""
    stamp_ns = chunks.stamps_ns[place]
    return (chunks.clocks_ns[place] - stamp_ns) / _NS if stamp_ns else 0.0


def mark_buffered(record: RequestRecord) -> None:
    """Make the row that of a buffered answer: no time that the stream would have shown."""
    record.error_code = BUFFERED
    record.error_message = "the answer came all at once although a stream was asked for: no first token was seen"
    record.ttft_s = record.ttfat_s = record.tpot_s = None
    record.gap_p50_s = record.gap_p95_s = record.gap_p99_s = record.gap_max_s = None
