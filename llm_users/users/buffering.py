"""Detect answers that were buffered between the model and the client, as a whole or in bursts.

- ``buffered``: the answer arrived all at once although the request asked for a stream. It is a success, but the times
  of its tokens cannot be observed. ``chunks_came_at_once`` has the rule for chunked bodies, ``body_came_at_once`` for
  others.
- Held back (``RequestRecord.burst_chunks``): the answer arrived in a few large bursts, because a buffer had to be full
  or a timer had to expire. ``mark_held_back`` has the rule.

The module does not depend on a wire format.
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
"""With fewer chunks, all of them can arrive together: a fast model, speculative decoding or a busy network."""

_AT_ONCE_S = 0.005
_AT_ONCE_SHARE = 0.01
"""Chunks whose span is below both limits (the share is of TTFT) were not generated one after the other."""

_ANNOUNCED_SHARE = 0.05
"""An answer with a Content-Length whose chunks span less than this share of its TTFT was not streamed."""

_FASTEST_CHUNK_S = 0.0003
"""No server generates 3,300 chunks per second for one answer. A client that was late by less than this per chunk did
not collect the chunks itself: 8 chunks in one read of a client that was 4 ms late can come from a fast model, 100
chunks cannot."""

_LARGE_BURST = 12
"""In chunks. A step of speculative decoding with 8 drafted tokens yields at most 9 chunks, and a buffer of 4 KiB holds
12 to 30 events of 130 to 330 bytes."""

_BORDER_S = 0.010
"""The shortest pause that starts a new burst. The segments of one flush arrive faster, also on slow networks."""

_SILENCE_S = 0.050
"""The shortest mean pause between bursts. The lag probe (period 20 ms) does not detect an event loop that blocks for
less than one period, and Nagle's algorithm with a delayed acknowledgement pauses for 40 ms."""

_TOO_LONG_FOR_A_STEP_S = 0.5
"""No decoding step takes this long, so one step did not generate a burst after such a mean pause (speculative decoding
can draft more tokens per step, 16 in llama.cpp by default)."""

_WHOLE_SHARE = 0.02
"""Limit on the span of a single burst, as a share of TTFT: a long answer takes several round trips to send, 1 % of
TTFT for 1,000 chunks over loopback."""

_HELD_SHARE = 0.75
"""The minimum share of the chunks in large bursts. A server that stalls occasionally stays below it."""


_TURNS = 2
"""Iterations of the event loop that a read can wait for; the lag probe measures the longest iteration. Measured: a
client that blocked its loop for 0.5 s at a time read a stream every 1.0 s."""


def chunks_came_at_once(record: RequestRecord, chunks: Chunks, client_delay_s: Callable[[], float]) -> bool:
    """Return True if an answer with chunked framing was buffered between the model and the client.

    That is the case if all chunks arrived in one read, or within 5 ms and 1 % of TTFT. ``client_delay_s()`` is the
    maximum lag of the client's event loop since one second before the first chunk, because a late client also reads
    many chunks at once.
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
    """Return True if an answer without chunked framing was not streamed.

    ``announced``: the response has a Content-Length. ``one_read``: one read of the socket contained the whole body.
    """
    if record.ttft_s is None or record.last_token_s is None:
        return False
    # A body with a Content-Length existed before it was sent; a large one arrives in several reads.
    return one_read or (announced and record.last_token_s - record.ttft_s < _ANNOUNCED_SHARE * record.ttft_s)


def may_be_held_back(record: RequestRecord) -> bool:
    """Return False for a normal answer: it is short, or most of its chunks arrived one by one."""
    return record.chunks >= HELD_BACK_FROM and record.gap_p50_s is not None and record.gap_p50_s < _FASTEST_CHUNK_S


def mark_held_back(record: RequestRecord, chunks: Chunks, stamps_ns: Sequence[int], client_delay_s: float) -> None:
    """Set ``burst_chunks`` of a streamed answer that ``may_be_held_back`` if it was; otherwise it stays 0.

    A burst is a run of chunks without a pause of 10 ms. It is large if it has at least 12 chunks at less than 0.3 ms
    per chunk: no model generates chunks this fast, so they were generated earlier and held back. The answer was held
    back if its longest choice has at least 24 chunks, and

    - all of them are one large burst within 2 % of TTFT (then ``tpot_s`` becomes empty, because the time between the
      first and the last token was not observed); or
    - at least two bursts are large and have at least three quarters of the chunks, not counting the remainder in the
      last burst; the first burst is large or the mean pause is 0.5 s or more; and the mean pause is at least 50 ms and
      at least four times the delay of the client itself, from the lag of its event loop (``client_delay_s``) or from
      the kernel's stamps. The reasons: prefill sends a server's first token alone, so speculative decoding never
      begins with a large burst, and none of its steps takes 0.5 s. A client that collects chunks is late by the whole
      pause, or by half of it if a read waits for two iterations of the loop.

    ``stamps_ns``: the arrival stamps from which the times of the row are computed.
    """
    places = max(chunks.places.values(), key=len)
    if len(places) < HELD_BACK_FROM:
        return
    bursts = _bursts(places, stamps_ns)
    large = [burst for burst in bursts if burst.is_large]
    if not large:
        return
    delay_s = max(client_delay_s, *(_read_late_s(chunks, burst.first) for burst in large))
    if len(bursts) == 1:
        span_s = bursts[0].span_s
        held_back = record.ttft_s is not None and span_s < _WHOLE_SHARE * record.ttft_s
        if held_back and span_s + _TURNS * delay_s < _FASTEST_CHUNK_S * bursts[0].chunks:
            record.burst_chunks, record.tpot_s = bursts[0].chunks, None
        return
    remainder = bursts[-1].chunks if bursts[-1].came_at_once and not bursts[-1].is_large else 0
    if len(large) < 2 or sum(burst.chunks for burst in large) < _HELD_SHARE * (len(places) - remainder):
        return
    pause_s = sum(burst.pause_s for burst in bursts) / (len(bursts) - 1)
    is_no_decoding_step = bursts[0].is_large or pause_s >= _TOO_LONG_FOR_A_STEP_S
    if is_no_decoding_step and pause_s >= max(_SILENCE_S, 2 * _TURNS * delay_s):
        record.burst_chunks = round(median(burst.chunks for burst in large))


@dataclass(frozen=True, slots=True)
class _Burst:
    """Chunks of one choice without a pause in between. ``pause_s`` is the pause before the burst; 0 for the first."""

    first: int  # index of its first chunk in the answer
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
    """Split the chunks of a choice into bursts."""
    borders = [
        number
        for number, (earlier, later) in enumerate(pairwise(places), 1)
        if stamps_ns[later] - stamps_ns[earlier] >= _BORDER_S * _NS
    ]
    bursts: list[_Burst] = []
    for start, end in pairwise([0, *borders, len(places)]):
        first_ns, last_ns = stamps_ns[places[start]], stamps_ns[places[end - 1]]
        pause_ns = first_ns - stamps_ns[places[start - 1]] if start else 0
        bursts.append(_Burst(places[start], end - start, (last_ns - first_ns) / _NS, pause_ns / _NS))
    return bursts


def _read_late_s(chunks: Chunks, index: int) -> float:
    """Return the time in s between the arrival and the read of a chunk; 0 if the kernel gave no stamp."""
    stamp_ns = chunks.stamps_ns[index]
    return (chunks.clocks_ns[index] - stamp_ns) / _NS if stamp_ns else 0.0


def mark_buffered(record: RequestRecord) -> None:
    """Set the outcome of a row to buffered, and clear the times that only a stream can show."""
    record.error_code = BUFFERED
    record.error_message = (
        "the answer arrived all at once although the request asked for a stream; the first token was not observed"
    )
    record.ttft_s = record.ttfat_s = record.tpot_s = None
    record.gap_p50_s = record.gap_p95_s = record.gap_p99_s = record.gap_max_s = None
