"""The chunks of one answer and what follows from their stamps: the timing columns of the record.

Knows stamps and pieces of text; not where they come from.
"""

from __future__ import annotations

from itertools import pairwise

from llm_users.quantile import quantile
from llm_users.record import RequestRecord

_NS = 1_000_000_000


class Chunks:
    """Content chunks in order of arrival: two stamps and a piece of text each."""

    __slots__ = ("clocks_ns", "first_answer", "reasoning_at", "stamps_ns", "texts")

    def __init__(self) -> None:
        self.stamps_ns: list[int] = []  # kernel receive stamps on the monotonic clock, 0 where the kernel gave none
        self.clocks_ns: list[int] = []  # the monotonic clock when the read returned
        self.texts: list[str] = []  # what each chunk added to the answer
        self.reasoning_at: dict[int, str] = {}  # what a chunk added to the reasoning, by its index
        self.first_answer = -1  # index of the first chunk that is not reasoning

    def add(self, stamp_ns: int, clock_ns: int, answer: str, reasoning: str) -> None:
        """One chunk; at least one of the texts is not empty."""
        if reasoning:
            self.reasoning_at[len(self.texts)] = reasoning
        if answer and self.first_answer < 0:
            self.first_answer = len(self.texts)
        self.stamps_ns.append(stamp_ns)
        self.clocks_ns.append(clock_ns)
        self.texts.append(answer)

    def piece(self, index: int) -> str:
        """The text of one chunk, reasoning and answer."""
        return self.reasoning_at.get(index, "") + self.texts[index]

    @property
    def answer(self) -> str:
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        return "".join(self.reasoning_at.values())

    @property
    def coalesced(self) -> int:
        """Chunks that shared a read with an earlier one."""
        return sum(earlier == later for earlier, later in pairwise(self.clocks_ns))

    def trusted_stamps_ns(self, *, clock_moved: bool) -> tuple[list[int], str]:
        """The stamps to compute with and their source: the kernel's only if all chunks have one."""
        if self.stamps_ns and all(self.stamps_ns) and not clock_moved:
            return self.stamps_ns, "kernel"
        return self.clocks_ns, "user"


def time_chunks(record: RequestRecord, chunks: Chunks, stamps_ns: list[int], sent_ns: int) -> list[float]:
    """Fill the columns that follow from the arrival stamps; returns the chunk gaps in seconds."""
    record.chunks = len(stamps_ns)
    record.coalesced = chunks.coalesced
    if not stamps_ns:
        return []
    record.ttft_s = (stamps_ns[0] - sent_ns) / _NS
    record.last_token_s = (stamps_ns[-1] - sent_ns) / _NS
    if chunks.first_answer >= 0:
        record.ttfat_s = (stamps_ns[chunks.first_answer] - sent_ns) / _NS
    gaps_s = [(later - earlier) / _NS for earlier, later in pairwise(stamps_ns)]
    if gaps_s:
        ordered = sorted(gaps_s)
        record.gap_p50_s = quantile(ordered, 0.50)
        record.gap_p95_s = quantile(ordered, 0.95)
        record.gap_p99_s = quantile(ordered, 0.99)
        record.gap_max_s = ordered[-1]
    return gaps_s


def time_tokens(record: RequestRecord, window_chunks: int) -> None:
    """Fill the columns that need the number of output tokens as well."""
    tokens = record.output_tokens
    if tokens is None:
        return
    if record.end_to_end_latency_s:
        record.request_output_throughput_token_per_s = tokens / record.end_to_end_latency_s
    if record.chunks:
        record.window_tokens = tokens * window_chunks / record.chunks
    # Without further knowledge the first chunk is taken to hold one token.
    if record.chunks > 1 and tokens > 1 and record.ttft_s is not None and record.last_token_s is not None:
        record.tpot_s = (record.last_token_s - record.ttft_s) / (tokens - 1)
