"""The chunks of one answer and what follows from their stamps: the timing columns of the record.

Knows stamps and pieces of text; not where they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from llm_users.quantile import quantile
from llm_users.record import RequestRecord

_NS = 1_000_000_000
T = TypeVar("T")


class Chunks:
    """Content chunks in order of arrival: two stamps and a piece of text each."""

    __slots__ = ("choice_at", "clocks_ns", "first_answer", "reasoning_at", "stamps_ns", "texts")

    def __init__(self) -> None:
        self.stamps_ns: list[int] = []  # kernel receive stamps on the monotonic clock, 0 where the kernel gave none
        self.clocks_ns: list[int] = []  # the monotonic clock when the read returned
        self.texts: list[str] = []  # what each chunk added to the answer
        self.reasoning_at: dict[int, str] = {}  # what a chunk added to the reasoning, by its index
        self.choice_at: dict[int, int] = {}  # which choice a chunk belongs to, by its index, unless it is the first
        self.first_answer = -1  # index of the first chunk that is not reasoning

    def add(self, stamp_ns: int, clock_ns: int, answer: str, reasoning: str, choice: int = 0) -> None:
        """One chunk of one choice; at least one of the texts is not empty."""
        if choice:
            self.choice_at[len(self.texts)] = choice
        if reasoning:
            self.reasoning_at[len(self.texts)] = reasoning
        if answer and self.first_answer < 0:
            self.first_answer = len(self.texts)
        self.stamps_ns.append(stamp_ns)
        self.clocks_ns.append(clock_ns)
        self.texts.append(answer)

    def piece(self, index: int) -> str:
        """The text of one chunk, reasoning and answer. Half a character that came alone is a replacement mark."""
        return joined([self.reasoning_at.get(index, "") + self.texts[index]])

    @property
    def answer(self) -> str:
        """The text of the first choice."""
        return joined(self.texts) if not self.choice_at else self.choices[0]

    @property
    def reasoning(self) -> str:
        """The reasoning of the first choice."""
        return joined(text for index, text in self.reasoning_at.items() if index not in self.choice_at)

    @property
    def choices(self) -> list[str]:
        """The texts of all choices, the first one first, the others by their number."""
        return [joined(texts) for texts in self.by_choice(self.texts)]

    @property
    def everything(self) -> str:
        """All that the server wrote: reasoning and answers of all choices."""
        return joined([*self.reasoning_at.values(), *self.texts])

    def by_choice(self, values: Sequence[T]) -> list[list[T]]:
        """One value per chunk, apart by choice; the first choice is always there."""
        if not self.choice_at:
            return [list(values)]
        apart: dict[int, list[T]] = {choice: [] for choice in (0, *sorted(set(self.choice_at.values())))}
        for index, value in enumerate(values):
            apart[self.choice_at.get(index, 0)].append(value)
        return list(apart.values())

    @property
    def coalesced(self) -> int:
        """Chunks that shared a read with an earlier one of the same choice."""
        return sum(earlier == later for clocks in self.by_choice(self.clocks_ns) for earlier, later in pairwise(clocks))

    @property
    def first_coalesced(self) -> int:
        """Chunks of the first choice that were read with its first one: the kernel's stamp is then the last one's."""
        clocks_ns = self.by_choice(self.clocks_ns)[0]
        return clocks_ns.count(clocks_ns[0]) - 1 if clocks_ns else 0

    def trusted_stamps_ns(self, *, clock_moved: bool) -> tuple[list[int], str]:
        """The stamps to compute with and their source: the kernel's only if all chunks have one."""
        if self.stamps_ns and all(self.stamps_ns) and not clock_moved:
            return self.stamps_ns, "kernel"
        return self.clocks_ns, "user"


def joined(texts: Iterable[str]) -> str:
    """One text. A character that came as two halves (UTF-16 surrogates) becomes whole, a half alone U+FFFD."""
    text = "".join(texts)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def time_chunks(record: RequestRecord, chunks: Chunks, stamps_ns: list[int], sent_ns: int) -> list[float]:
    """Fill the columns that follow from the arrival stamps; returns the chunk gaps in seconds."""
    record.chunks = len(stamps_ns)
    record.coalesced, record.first_coalesced = chunks.coalesced, chunks.first_coalesced
    if not stamps_ns:
        return []
    record.ttft_s = (stamps_ns[0] - sent_ns) / _NS
    record.last_token_s = (stamps_ns[-1] - sent_ns) / _NS
    if chunks.first_answer >= 0:
        record.ttfat_s = (stamps_ns[chunks.first_answer] - sent_ns) / _NS
    gaps_s = [(late - early) / _NS for stamps in chunks.by_choice(stamps_ns) for early, late in pairwise(stamps)]
    if gaps_s:
        ordered = sorted(gaps_s)
        record.gap_p50_s = quantile(ordered, 0.50)
        record.gap_p95_s = quantile(ordered, 0.95)
        record.gap_p99_s = quantile(ordered, 0.99)
        record.gap_max_s = ordered[-1]
    return gaps_s


def time_tokens(record: RequestRecord) -> None:
    """Fill the columns that need the number of output tokens as well."""
    tokens = record.output_tokens
    if tokens is None:
        return
    if record.end_to_end_latency_s:
        record.request_output_throughput_token_per_s = tokens / record.end_to_end_latency_s
    # Without further knowledge the first chunk is taken to hold one token.
    if record.chunks > 1 and tokens > 1 and record.ttft_s is not None and record.last_token_s is not None:
        record.tpot_s = (record.last_token_s - record.ttft_s) / (tokens - 1)
