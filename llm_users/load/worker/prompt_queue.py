"""A queue of prompts, or conversations, for one worker. A thread builds them in advance, so nothing is tokenized while
response streams arrive.

Each worker has its own part of the seeded sequence and takes every index of it once in the whole run. Of the W workers
at the start of a run, worker w takes i = w (mod W). A worker that joins later has a separate range.

The number of tokens in ready prompts is limited. A stage whose prompts are below the limit has all of them before it
starts, so that nothing is built while it measures. A larger stage starts when the first requests of its users are
ready. One greenlet builds the rest in small batches as the users take prompts.
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
"""Maximum number of ready prompts."""

MOST_TOKENS_AHEAD = 8_000_000
"""Maximum tokens in ready prompts: about 32 MB of text. Building them takes 0.4 s (0.04 us per token), or 10 s if they
are encoded completely, for example to count the prompts of a file."""

MOST_BUILDING_S = 15.0
"""After this time, a stage waits only for the prompts of the first requests of its users."""

_CHARACTERS_PER_TOKEN = 4
"""For English text. Images and other content that is not counted in tokens is converted from characters too."""

_BATCH_TOKENS = 4000
_MOST_BATCH = 16
_LOW = 64


class _Entry(Protocol):
    @property
    def index(self) -> int: ...


EntryT = TypeVar("EntryT", bound=_Entry)
_EntryT_co = TypeVar("_EntryT_co", bound=_Entry, covariant=True)


class _Source(Protocol[_EntryT_co]):
    """``prompts.PromptSource``, or the corresponding class for conversations."""

    @property
    def different(self) -> int | None: ...

    def prompt(self, index: int) -> _EntryT_co: ...


class PromptQueue(Generic[EntryT]):
    """The prompts of this process, in order.

    ``characters`` returns the length of a prompt; ``what`` is the name of the prompts in notes.
    """

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
        self._mean_tokens = 0.0  # mean tokens of the prompts that were built
        self._built = 0
        self._starting = False  # before a stage: the queue may exceed its limit, with one prompt for each user
        self._target = self._least = 0
        self._foreseen = 0  # number of prompts that the stage will still take
        self._endless = False  # that number is unknown
        self._waiting = 0
        self.waits: list[float] = []
        """How long users waited for prompts since the last ``expect``, in seconds, for each user that waited."""
        self._changed = Event()
        self._builder: gevent.Greenlet[[], None] | None = None
        self._error: Exception | None = None
        self._closed = False

    def expect(self, count: int, *, least: int = 0, counted: bool = False) -> None:
        """Block until a stage that takes ``count`` prompts can start.

        The stage can start when all prompts are ready, or the queue is full, or after ``MOST_BUILDING_S`` when two
        prompts for each of ``least`` users are ready. One prompt for each user is ready in any case. ``counted``: the
        stage takes at most ``count`` prompts. Raises what the source raises. Returns early when the process ends.
        """
        self.waits.clear()
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

    def change_source(self, source: _Source[EntryT]) -> None:
        """Build all further prompts with another source. Prompts that are ready are built again.

        Call it between two stages, when no user takes prompts.
        """
        self._foreseen, self._endless = 0, False
        if self._builder is not None:
            self._builder.join()
        self._next_index -= len(self._ready) * self._step
        self._ready.clear()
        self._source, self._different = source, source.different
        self._held_tokens = self._built = 0
        self._mean_tokens = 0.0

    def entries_of(self, requests: int) -> int:
        """Return the average number of prompts (or conversations) in this number of requests."""
        return requests

    def foresee(self, more: int) -> None:
        """Build more prompts for the stage, because this worker has taken over requests of another one."""
        self._foreseen += more
        self._build_on()

    def next(self) -> EntryT:
        """Return the next prompt."""
        if not self._ready:
            self._await_one()
        entry, tokens = self._ready.popleft()
        self._held_tokens -= tokens
        self._foreseen = max(0, self._foreseen - 1)
        self._build_on()
        if self._different is not None and entry.index >= self._different:
            self._note(
                f"the dataset has {self._different} {self._what} and the run asked for more, so they were repeated: a "
                "server that caches prefixes answers repeated prompts faster (--llm-cache-bust prevents that)"
            )
            self._different = None
        return entry

    def take(self, index: int) -> EntryT:
        """Return the prompt with this index and skip the prompts before it."""
        while True:
            entry = self.next()
            if entry.index >= index:
                return entry

    def close(self) -> None:
        """Build only prompts for requests that already wait. A batch in progress ends in its thread."""
        self._closed = True
        self._changed.set()

    @property
    def progress(self) -> tuple[int, int]:
        """Return (prompts ready, prompts wanted before the stage starts)."""
        wanted = self._target
        if self._mean_tokens:
            wanted = min(wanted, max(self._least, int(MOST_TOKENS_AHEAD / self._mean_tokens) + 1))
        return min(len(self._ready), wanted), wanted

    # Internal methods.

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
        self.waits.append(time.monotonic() - began_s)

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
        except Exception as error:  # the request that waits for the prompt gets the error
            self._error = error
            self._changed.set()
        finally:
            self._builder = None

    def _room(self) -> int:
        """Return how many prompts to build now."""
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
        indices = [self._next_index + offset * self._step for offset in range(count)]
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
    """The conversations of this process.

    Create it in a thread, because it reads files. ``part`` is its (first index, step).
    """

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
        """Create the source. ``has_prompts``: whether users also take prompts outside of conversations."""
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

    def entries_of(self, requests: int) -> int:
        return math.ceil(requests / max(1.0, self._mean_turns))


def trace_of(options: Options) -> Trace | None:
    """Read the trace, if the run has one. Takes seconds for a million rows, so do not call it in the event loop."""
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
    """The prompts of a trace's arrivals, with one queue for each of this worker's shares of the trace."""

    def __init__(self, times_s: Sequence[float], make: MakeQueue) -> None:
        self._times_s = times_s
        self._make = make
        self._queues: dict[ArrivalShare, PromptQueue[Prompt]] = {}

    def begin(self, part: ArrivalShare, queue: PromptQueue[Prompt]) -> None:
        """Set the worker's first share and its queue."""
        self._queues = {part: queue}

    def change(self, parts: Iterable[ArrivalShare], requests: int | None) -> None:
        """Replace the worker's shares. The prompts of new shares are built in the background.

        ``requests``: the number of arrivals in the stage, or None if it takes the whole trace.
        """
        end = len(self._times_s) if requests is None else min(len(self._times_s), requests)
        for part in parts:
            if part not in self._queues:
                skipped = max(0, bisect_left(self._times_s, part.from_s) - part.first)
                numbers = range(part.first, end, part.step)[math.ceil(skipped / part.step) :]
                if numbers:
                    self._queues[part] = self._make(numbers[0], part.step)
                    self._queues[part].foresee(len(numbers))

    def of(self, number: int) -> Prompt:
        """Return the prompt of arrival ``number``."""
        at_s = self._times_s[number]
        queue = next(queue for part, queue in self._queues.items() if part.has(number, at_s))
        return queue.take(number)

    def close(self) -> None:
        """Stop building."""
        for queue in self._queues.values():
            queue.close()
