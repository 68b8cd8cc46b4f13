"""Store the chunks of one answer, limit their number and size, and compute the columns of the row from their stamps.

A chunk is two stamps and a piece of text. The module does not depend on an API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import eq, sub
from typing import TypeVar

from llm_users.quantile import SortedRuns, in_runs, quantile
from llm_users.record import RequestRecord
from llm_users.transport.errors import BadResponse

_NS = 1_000_000_000

MOST_CHARACTERS = 16 * 1024 * 1024
MOST_CHUNKS = 1_000_000

_LOOK_BYTES = 1024 * 1024
_LEAST_LOOK_BYTES = 4096
_LEAST_CHUNK_BYTES = 16  # the shortest possible event with output

_MOST_BYTES, _MOST_BYTES_PER_CHUNK = 32 * 1024 * 1024, 16 * 1024
"""Limits on a body, because data that is not output, such as usage, comments and probabilities, must end too."""

OPENING_CHARACTERS = 1000
"""The length of the text that is kept of an answer that exceeded a limit."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ending:
    """The finish reason of one choice, and the two stamps of its event."""

    reason: str
    stamp_ns: int
    clock_ns: int


@dataclass(slots=True)
class RunningCount:
    """The token counts of one choice, from a server that sends its usage with every chunk."""

    first: int | None = None  # count with the first chunk or right after it; 0 if there was none
    last: int = -1  # the highest count
    stamp_ns: int = 0  # the stamps of the first event with the highest count
    clock_ns: int = 0


@dataclass(slots=True, eq=False)
class Chunks:
    """Content chunks in order of arrival: two stamps and a piece of text each."""

    stamps_ns: list[int] = field(default_factory=list)  # the kernel's, on the monotonic clock; 0 where it gave none
    clocks_ns: list[int] = field(default_factory=list)  # the monotonic clock when the read returned
    texts: list[str] = field(default_factory=list)  # text that each chunk added to the answer or to its tool calls
    text_at: dict[int, str] = field(default_factory=dict)  # without tool calls, by index, if a chunk is not only text
    reasoning_at: dict[int, str] = field(default_factory=dict)  # text that a chunk added to the reasoning, by its index
    choice_at: dict[int, int] = field(default_factory=dict)  # of a chunk, by its index, unless it is the first choice
    first_answer: int = -1  # index of the first chunk that is not reasoning
    endings: dict[int, Ending] = field(default_factory=dict)  # the event with the finish reason, by choice
    running_counts: dict[int, RunningCount] = field(default_factory=dict)  # by choice, when usage comes with chunks
    reasoning_is_summary: bool = False  # True if the API reports that it streamed only a summary

    def add(self, stamp_ns: int, clock_ns: int, answer: str, reasoning: str, choice: int = 0) -> None:
        """Add one chunk of one choice. At least one of the texts is not empty."""
        if choice:
            self.choice_at[len(self.texts)] = choice
        if reasoning:
            self.reasoning_at[len(self.texts)] = reasoning
        if answer and self.first_answer < 0:
            self.first_answer = len(self.texts)
        self.stamps_ns.append(stamp_ns)
        self.clocks_ns.append(clock_ns)
        self.texts.append(answer)

    def add_texts(self, stamps_ns: Sequence[int], clocks_ns: Sequence[int], texts: list[str]) -> None:
        """Add chunks of the first choice that are only text. No text is empty."""
        if texts and self.first_answer < 0:
            self.first_answer = len(self.texts)
        self.stamps_ns += stamps_ns
        self.clocks_ns += clocks_ns
        self.texts += texts

    def add_other(
        self, stamp_ns: int, clock_ns: int, text: str, other: str, reasoning: str = "", choice: int = 0
    ) -> None:
        """Add one chunk that is not only text. ``other`` is a piece of a tool call, or "" for audio.

        The chunk counts as output like any other chunk, but ``other`` is not part of the answer's text.
        """
        index = len(self.texts)
        self.text_at[index] = text
        if self.first_answer < 0:
            self.first_answer = index
        self.add(stamp_ns, clock_ns, text + other, reasoning, choice)

    def add_whole(self, text: str, reasoning: str = "", *, call: str | None = None, choice: int = 0) -> None:
        """Add a part of an answer that is not streamed. It has no stamps and is not a chunk. ``call``: a tool call."""
        index = len(self.texts)
        if choice:
            self.choice_at[index] = choice
        if reasoning:
            self.reasoning_at[index] = reasoning
        if call is not None:
            self.text_at[index] = text
        self.texts.append(text + (call or ""))

    def end(self, reason: str, stamp_ns: int, clock_ns: int, choice: int = 0) -> None:
        """Record the event with the finish reason of a choice. An earlier finish reason is kept."""
        if choice not in self.endings:
            self.endings[choice] = Ending(reason, stamp_ns, clock_ns)

    def go_on(self, choice: int = 0) -> None:
        """Remove the finish reason of a choice, because output followed it."""
        self.endings.pop(choice, None)

    def count_tokens(self, tokens: int, stamp_ns: int, clock_ns: int, choice: int = 0) -> None:
        """Record the running token count of a choice from an event whose chunk is already added."""
        running = self.running_counts.get(choice)
        if running is None:
            running = self.running_counts[choice] = RunningCount()
        if running.first is None and self.texts:
            chunks = len(self.places.get(choice, ())) if self.choice_at or choice else len(self.texts)
            if chunks:
                running.first = tokens if chunks == 1 and choice not in self.endings else 0
        if tokens > running.last:
            running.last, running.stamp_ns, running.clock_ns = tokens, stamp_ns, clock_ns

    def piece(self, index: int) -> str:
        """Return the reasoning and answer text of one chunk. Half of a character becomes a replacement character."""
        return joined([self.reasoning_at.get(index, "") + self.texts[index]])

    @property
    def answer(self) -> str:
        """The text of the first choice."""
        return joined(self._answer_texts) if not self.choice_at else self.choices[0]

    def text_of(self, choice: int) -> str:
        """Return the text of one choice."""
        texts = self._answer_texts
        return joined(texts[index] for index in self.places.get(choice, ()))

    @property
    def opening(self) -> str:
        """The beginning of an answer that exceeded a limit, from all choices."""
        pieces: list[str] = []
        remaining = OPENING_CHARACTERS
        for text in self._answer_texts:
            pieces.append(text[:remaining])
            remaining -= len(text)
            if remaining <= 0:
                break
        return joined(pieces)

    @property
    def reasoning(self) -> str:
        """The reasoning of the first choice."""
        return joined(text for index, text in self.reasoning_at.items() if index not in self.choice_at)

    @property
    def choices(self) -> list[str]:
        """The texts of all choices, the first one first, the others by their number."""
        return [joined(texts) for texts in self.by_choice(self._answer_texts)]

    @property
    def _answer_texts(self) -> list[str]:
        """The texts without tool calls."""
        if not self.text_at:
            return self.texts
        return [self.text_at.get(index, text) for index, text in enumerate(self.texts)]

    @property
    def everything(self) -> str:
        """The complete output: reasoning, answers and tool calls of all choices."""
        return joined([*self.reasoning_at.values(), *self.texts])

    @property
    def outputs(self) -> list[str]:
        """The visible output in parts: of each choice, its reasoning, and its answer with its tool calls."""
        reasoning = [self.reasoning_at.get(index, "") for index in range(len(self.texts))]
        parts = [joined(texts) for values in (reasoning, self.texts) for texts in self.by_choice(values)]
        return [part for part in parts if part]

    def by_choice(self, values: list[T]) -> list[list[T]]:
        """Group values, one per chunk, by choice. The first choice is always included."""
        if not self.choice_at:
            return [values]
        grouped: dict[int, list[T]] = {choice: [] for choice in (0, *sorted(set(self.choice_at.values())))}
        for index, value in enumerate(values):
            grouped[self.choice_at.get(index, 0)].append(value)
        return list(grouped.values())

    @property
    def places(self) -> Mapping[int, Sequence[int]]:
        """The chunk indices of each choice that has chunks."""
        if not self.choice_at:
            return {0: range(len(self.texts))}
        indices: dict[int, list[int]] = {}
        for index in range(len(self.texts)):
            indices.setdefault(self.choice_at.get(index, 0), []).append(index)
        return indices

    @property
    def coalesced(self) -> int:
        """The number of chunks that arrived in the same read as an earlier chunk of the same choice."""
        count = 0
        for clocks in self.by_choice(self.clocks_ns):
            for run in in_runs(clocks, overlap=1):
                count += sum(map(eq, run, islice(run, 1, None)))
        return count

    @property
    def first_coalesced(self) -> int:
        """The number of later chunks in the same read as the first choice's first chunk.

        The kernel's stamp of such a read is that of the last chunk.
        """
        clocks_ns = self.by_choice(self.clocks_ns)[0]
        return clocks_ns.count(clocks_ns[0]) - 1 if clocks_ns else 0

    def trusted_stamps_ns(self, *, clock_moved: bool) -> tuple[list[int], str]:
        """Return the stamps for the timing columns and their source: the kernel's only if all chunks have one."""
        if self.stamps_ns and all(self.stamps_ns) and not clock_moved:
            return self.stamps_ns, "kernel"
        return self.clocks_ns, "user"


def joined(texts: Iterable[str]) -> str:
    """Join texts. Two halves of a character (UTF-16 surrogates) become one character, a single half U+FFFD."""
    text = "".join(texts)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def time_chunks(
    record: RequestRecord, chunks: Chunks, stamps_ns: list[int], sent_ns: int, with_gaps: bool = True
) -> list[int]:
    """Fill the columns that depend on the arrival stamps. Return the chunk gaps in ns.

    In a thread, the function does not delay the event loop: it has no step that keeps the interpreter for 2 ms.
    """
    if not stamps_ns:
        return []
    record.ttft_s = (stamps_ns[0] - sent_ns) / _NS
    record.last_token_s = (stamps_ns[-1] - sent_ns) / _NS
    if chunks.first_answer >= 0:
        record.ttfat_s = (stamps_ns[chunks.first_answer] - sent_ns) / _NS
    if not with_gaps:
        return []
    record.coalesced, record.first_coalesced = chunks.coalesced, chunks.first_coalesced
    gaps_ns: list[int] = []
    for stamps in chunks.by_choice(stamps_ns):
        for run in in_runs(stamps, overlap=1):
            gaps_ns += map(sub, islice(run, 1, None), run)
    if gaps_ns:
        ordered = SortedRuns(gaps_ns)
        record.gap_p50_s = quantile(ordered, 0.50) / _NS
        record.gap_p95_s = quantile(ordered, 0.95) / _NS
        record.gap_p99_s = quantile(ordered, 0.99) / _NS
        record.gap_max_s = ordered[-1] / _NS
    return gaps_ns


class AnswerTooLong(BadResponse):
    """The answer was aborted because it exceeded a limit."""


class Bounds:
    """The limits of one answer, because a faulty server must not be able to exhaust memory or time.

    They are checked once per MiB of received bytes, not per chunk.
    """

    def __init__(self, chunks: Chunks, most_chunks: int, most_characters: int) -> None:
        self._chunks = chunks
        self._most_chunks = most_chunks
        self._most_characters = most_characters
        self._checked_texts = self._checked_reasoning = self._characters = 0
        self.look_at = min(_LOOK_BYTES, max(_LEAST_LOOK_BYTES, most_characters, most_chunks * _LEAST_CHUNK_BYTES))
        """The number of received bytes at which to call ``look`` next."""

    def look(self, received: int) -> None:
        """Check the limits after ``received`` bytes. Raises ``AnswerTooLong``."""
        chunks = self._chunks
        texts, reasoning = chunks.texts, chunks.reasoning_at
        self._characters += sum(map(len, texts[self._checked_texts :]))
        self._characters += sum(map(len, islice(reasoning.values(), self._checked_reasoning, None)))
        count, self._checked_reasoning = len(texts), len(reasoning)
        self._checked_texts = count
        if count > self._most_chunks:
            raise AnswerTooLong(
                f"the answer has more than {self._most_chunks:,} chunks, the limit for one answer "
                "(set max_answer_chunks of the user class to change it)"
            )
        if self._characters > self._most_characters:
            raise AnswerTooLong(
                f"the text of the answer is longer than {self._most_characters:,} characters, the limit for one answer "
                "(set max_answer_characters of the user class to change it)"
            )
        if received > _MOST_BYTES + _MOST_BYTES_PER_CHUNK * count:
            raise AnswerTooLong(
                f"the answer does not end: {received >> 20} MiB arrived, with {count} chunks and {self._characters:,} "
                "characters of output"
            )
        remaining = min(self._most_characters - self._characters, (self._most_chunks - count) * _LEAST_CHUNK_BYTES)
        self.look_at = received + min(_LOOK_BYTES, max(_LEAST_LOOK_BYTES, remaining))
