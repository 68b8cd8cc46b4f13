"""Prompts, or conversations, for one load process: built ahead, in a thread: no tokenizing between tokens.

Each load process has its own part of the seeded sequence and takes every index of it once in the whole run: of the W
that a run begins with, worker w takes i = w (mod W); one that joins later has a range of its own.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import gevent

logger = logging.getLogger(__name__)

MOST_AHEAD = 5000
"""Prompts held at most (about 15 MB of long ones); a longer stage builds the rest while it runs."""

MOST_TOKENS_AHEAD = 750 * MOST_AHEAD
"""Tokens in prompts that are held, where they are known beforehand."""

_BATCH = 16
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


class PromptFeed(Generic[EntryT]):
    """The prompts of this process, in order; ``what`` they are called in notes."""

    def __init__(
        self, source: _Source[EntryT], first: int, step: int, note: Callable[[str], None], what: str = "prompts"
    ) -> None:
        self._source = source
        self._different = source.different
        self._note = note
        self._what = what
        self._next_index = first
        self._step = step
        self._ready: deque[EntryT] = deque()
        self._wanted = 0
        self._refilling: gevent.Greenlet[[], None] | None = None

    def expect(self, count: int) -> None:
        """Block until ``count`` prompts (or as many as are ever held) are ready."""
        self._wanted = min(max(count, _LOW), MOST_AHEAD)
        target = min(count, MOST_AHEAD)
        while len(self._ready) < target:
            self._build(min(_BATCH, target - len(self._ready)))

    def next(self) -> EntryT:
        """The next prompt."""
        while not self._ready:
            if self._refilling is None:
                self._build(1)
            else:  # what it builds comes first
                self._refilling.join()
        prompt = self._ready.popleft()
        if len(self._ready) < _LOW // 2 and self._wanted > len(self._ready) and self._refilling is None:
            self._refilling = gevent.spawn(self._refill)
        if self._different is not None and prompt.index >= self._different:
            self._note(
                f"the data set has {self._different} {self._what} and the run asked for more, so they came again: a "
                "server that caches prefixes answers those faster (--llm-cache-bust prevents that)"
            )
            self._different = None
        return prompt

    def stage_is_built(self) -> None:
        """Nothing beyond what is ready is foreseen: do not build in the background."""
        self._wanted = 0

    def _refill(self) -> None:
        try:
            while len(self._ready) < min(_LOW, self._wanted):
                self._build(4)
        finally:
            self._refilling = None

    def _build(self, count: int) -> None:
        indices = [self._next_index + place * self._step for place in range(count)]
        self._next_index += count * self._step
        prompt = self._source.prompt
        self._ready.extend(gevent.get_hub().threadpool.apply(lambda: [prompt(index) for index in indices]))
