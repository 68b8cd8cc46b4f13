"""Prompts, or conversations, for one worker: built ahead, in a thread: no tokenizing between tokens.

Each worker has its own part of the seeded sequence and takes every index of it once in the whole run: of the W
that a run begins with, worker w takes i = w (mod W); one that joins later has a range of its own.

What is held ready is bounded by its tokens. A stage whose prompts are below the bound has all of them before it starts,
so that nothing is built while it measures. A larger one starts when the first requests of its users are ready; one
greenlet builds the rest, in small batches, as the users take what is there.
"""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

import gevent
from gevent.event import Event

from llm_users.load.protocol.arrivals import ArrivalShare
from llm_users.load.worker.thread_pool import in_thread
from llm_users.options.table import Options
from llm_users.prompts import Conversation, Prompt, Tokenizer, Trace, make_conversations, read_trace

logger = logging.getLogger(__name__)

MOST_AHEAD = 5000
"""Prompts held at most."""

MOST_TOKENS_AHEAD = 8_000_000
"""Tokens in prompts that are held: about 32 MB of text, which takes 10 s to build (1.3 us a token)."""

MOST_BUILDING_S = 15.0
"""A stage does not wait longer for more prompts than the first requests of its users need."""

_CHARACTERS_PER_TOKEN = 4
"""Of English text. Images and what else is not counted in tokens is held as characters too."""

_BATCH_TOKENS = 4000
_MOST_BATCH = 16
_LOW = 64


class _Entry(Protocol):
    @property
    def index(self) -> int: ...


EntryT = TypeVar("EntryT", bound=_Entry)
_EntryT_co = TypeVar("_EntryT_co", bound=_Entry, covariant=True)


class _Source(Protocol[_EntryT_co]):
    """``prompts.PromptSource``, or its like for conversations."""

    @property
    def different(self) -> int | None: ...

    def prompt(self, index: int) -> _EntryT_co: ...


class PromptQueue(Generic[EntryT]):
    """The prompts of this process, in order; ``characters`` is the length of one, ``what`` they are called in notes."""

    def __init__(
        self,
        source: _Source[EntryT],
        first: int,
        step: int,
        note: Callable[[str], None],
        characters: Callable[[EntryT], int],
        what: str = "prompts",
    ) -> None:
        self._source = source
        self._different = source.different
        self._note = note
        self._characters = characters
        self._what = what
        self._next_index = first
        self._step = step
        self._ready: deque[tuple[EntryT, int]] = deque()
        self._held_tokens = 0
        self._mean_tokens = 0.0  # of those that were built
        self._built = 0
        self._starting = False  # before a stage: more may be held than the bound, one for each user
        self._target = self._least = 0
        self._foreseen = 0  # prompts that the stage will still take
        self._endless = False  # how many it will take is not known
        self._waiting = 0
        self._waits: list[float] = []
        self._changed = Event()
        self._builder: gevent.Greenlet[[], None] | None = None
        self._error: Exception | None = None
        self._closed = False

    def expect(self, count: int, *, least: int = 0, counted: bool = False) -> None:
        """Block until a stage that takes ``count`` prompts can start.

        That is when all of them are ready, or as many as are ever held, or after ``MOST_BUILDING_S`` two for each of
        ``least`` users. One for each user is ready in any case. ``counted``: the stage takes no more than ``count``.
        Raises what the source raises. Returns early when the process ends.
        """
        self._waits.clear()
        self._target, self._least = min(count, MOST_AHEAD), min(least, count)
        self._foreseen, self._endless = count, not counted
        self._starting = True
        limit_s = time.monotonic() + MOST_BUILDING_S
        try:
            while not self._enough(limit_s):
                self._build_on()
                self._changed.clear()
                self._changed.wait(timeout=1.0)
                self._raise_error()
        finally:
            self._starting = False
        self._build_on()

    def foresee(self, more: int) -> None:
        """The stage needs more prompts: this worker has taken over requests of another one."""
        self._foreseen += more
        self._build_on()

    def next(self) -> EntryT:
        """The next prompt."""
        if not self._ready:
            self._await_one()
        entry, tokens = self._ready.popleft()
        self._held_tokens -= tokens
        self._foreseen = max(0, self._foreseen - 1)
        self._build_on()
        if self._different is not None and entry.index >= self._different:
            self._note(
                f"the data set has {self._different} {self._what} and the run asked for more, so they came again: a "
                "server that caches prefixes answers those faster (--llm-cache-bust prevents that)"
            )
            self._different = None
        return entry

    def take(self, index: int) -> EntryT:
        """The prompt of this index; those before it are left out."""
        while True:
            entry = self.next()
            if entry.index >= index:
                return entry

    def close(self) -> None:
        """Build no more than for requests that wait already; what is under way ends in its thread."""
        self._closed = True
        self._changed.set()

    @property
    def progress(self) -> tuple[int, int]:
        """(prompts ready, prompts wanted before the stage starts)."""
        wanted = self._target
        if self._mean_tokens:
            wanted = min(wanted, max(self._least, int(MOST_TOKENS_AHEAD / self._mean_tokens) + 1))
        return min(len(self._ready), wanted), wanted

    @property
    def waits(self) -> list[float]:
        """How long users waited for prompts since the stage was expected, in seconds, for each that waited."""
        return self._waits

    # Inside.

    def _enough(self, limit_s: float) -> bool:
        ready = len(self._ready)
        if self._closed or ready >= self._target:
            return True
        if self._held_tokens >= MOST_TOKENS_AHEAD:
            return ready >= self._least
        return time.monotonic() > limit_s and ready >= min(2 * self._least, self._target) > 0

    def _await_one(self) -> None:
        began_s = time.monotonic()
        self._waiting += 1
        try:
            while not self._ready:
                self._raise_error()
                self._build_on()
                self._changed.clear()
                self._changed.wait(timeout=1.0)
        finally:
            self._waiting -= 1
        self._waits.append(time.monotonic() - began_s)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _build_on(self) -> None:
        if self._builder is None and self._room() > 0:
            self._builder = gevent.spawn(self._build_ahead)

    def _build_ahead(self) -> None:
        try:
            while (room := self._room()) > 0:
                self._build(min(room, self._batch()))
                self._changed.set()
        except Exception as error:  # the request that waits for the prompt gets it
            self._error = error
            self._changed.set()
        finally:
            self._builder = None

    def _room(self) -> int:
        """How many prompts to build now."""
        ready = len(self._ready)
        if self._error is not None:
            return 0
        if self._closed:
            return self._waiting - ready
        if self._starting and self._held_tokens < MOST_TOKENS_AHEAD:
            return self._target - ready
        if self._starting:
            return self._least - ready
        if self._waiting > ready:
            return self._waiting - ready
        if self._held_tokens + self._batch() * self._mean_tokens > MOST_TOKENS_AHEAD:
            return 0
        wanted = self._foreseen
        if self._endless:
            low = _LOW if self._builder is not None else _LOW // 2
            wanted = max(_LOW, self._foreseen) if ready < low else 0
        room = min(wanted, MOST_AHEAD) - ready
        return room if room >= min(self._batch(), self._foreseen) or self._builder is not None else 0

    def _batch(self) -> int:
        return max(1, min(_MOST_BATCH, int(_BATCH_TOKENS / self._mean_tokens))) if self._mean_tokens else 1

    def _build(self, count: int) -> None:
        indices = [self._next_index + place * self._step for place in range(count)]
        self._next_index += count * self._step
        entries = in_thread(partial(self._make, indices))
        for _, tokens in entries:
            self._built += 1
            self._held_tokens += tokens
            self._mean_tokens += (tokens - self._mean_tokens) / self._built
        self._ready.extend(entries)

    def _make(self, indices: list[int]) -> list[tuple[EntryT, int]]:
        entries = [self._source.prompt(index) for index in indices]
        return [(entry, max(1, self._characters(entry) // _CHARACTERS_PER_TOKEN)) for entry in entries]


class ConversationQueue(PromptQueue[Conversation]):
    """The conversations of this process. Made in a thread: reads files. ``part`` is its (first index, step)."""

    def __init__(
        self,
        options: Options,
        tokenizer: Tokenizer,
        run_key: str,
        salt: str | None,
        part: tuple[int, int],
        note: Callable[[str], None],
        *,
        has_prompts: bool,
    ) -> None:
        """``has_prompts``: whether users of the process also take prompts that belong to no conversation."""
        source = make_conversations(
            tokenizer=tokenizer,
            turn_counts=options.turns,
            input_lengths=options.input_tokens,
            output_lengths=options.output_tokens,
            seed=options.seed,
            run_key=run_key,
            file=options.conversations,
            in_order=options.prompts_order == "file",
            prefixes=options.shared_prefix,
            cache_bust=salt,
        )
        super().__init__(source, *part, note, Conversation.characters, "conversations")
        for text in source.notes:
            note(text)
        self._mean_turns = source.mean_turns
        self.has_prompts = has_prompts

    def conversations_of(self, requests: int) -> int:
        """The average number of conversations in this number of requests."""
        return math.ceil(requests / max(1.0, self._mean_turns))


def trace_of(options: Options) -> Trace | None:
    """Read the trace, if the run has one. Takes seconds for a million rows: not for an event loop."""
    if options.trace is None:
        return None
    return read_trace(
        options.trace,
        speed=options.trace_speed,
        window=options.trace_window,
        unit=options.trace_unit,
        block_tokens=options.trace_block_size,
    )


MakeQueue = Callable[[int, int], PromptQueue[Prompt]]


class TracePrompts:
    """The prompts of a trace's arrivals: one queue for each part of the trace that is this worker's."""

    def __init__(self, times_s: Sequence[float], make: MakeQueue) -> None:
        self._times_s = times_s
        self._make = make
        self._queues: dict[ArrivalShare, PromptQueue[Prompt]] = {}

    def begin(self, part: ArrivalShare, queue: PromptQueue[Prompt]) -> None:
        """The part that the worker has from the beginning, and the queue of it."""
        self._queues = {part: queue}

    def change(self, parts: Iterable[ArrivalShare], requests: int) -> None:
        """From now on these parts are the worker's. Prompts of a new one are built in the background."""
        for part in parts:
            if part not in self._queues:
                left_out = max(0, bisect_left(self._times_s, part.from_s) - part.first)
                numbers = range(part.first, requests, part.step)[math.ceil(left_out / part.step) :]
                if numbers:
                    self._queues[part] = self._make(numbers[0], part.step)
                    self._queues[part].foresee(len(numbers))

    def of(self, number: int) -> Prompt:
        """The prompt of arrival ``number``."""
        at_s = self._times_s[number]
        queue = next(queue for part, queue in self._queues.items() if part.has(number, at_s))
        return queue.take(number)

    def close(self) -> None:
        """Build no more."""
        for queue in self._queues.values():
            queue.close()
