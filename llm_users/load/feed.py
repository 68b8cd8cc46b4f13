"""Prompts for one load process: built ahead, in a thread, so that no tokenizing happens between tokens.

Each load process has its own part of the seeded sequence and takes every index of it once in the whole run: of the W
that a run begins with, worker w takes i = w (mod W); one that joins later has a range of its own.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import gevent

from llm_users.prompts import Prompt, PromptSource

logger = logging.getLogger(__name__)

MOST_AHEAD = 5000
"""Prompts held at most (about 15 MB of long ones); a longer stage builds the rest while it runs."""

MOST_TOKENS_AHEAD = 750 * MOST_AHEAD
"""Tokens in prompts that are held, where they are known beforehand."""

_BATCH = 16
_LOW = 64


class PromptFeed:
    """The prompts of this process, in order."""

    def __init__(self, source: PromptSource, first: int, step: int, note: Callable[[str], None]) -> None:
        self._source = source
        self._different = source.different
        self._note = note
        self._next_index = first
        self._step = step
        self._ready: deque[Prompt] = deque()
        self._wanted = 0
        self._refilling: gevent.Greenlet[[], None] | None = None

    def expect(self, count: int) -> None:
        """Block until ``count`` prompts (or as many as are ever held) are ready."""
        self._wanted = min(max(count, _LOW), MOST_AHEAD)
        target = min(count, MOST_AHEAD)
        while len(self._ready) < target:
            self._build(min(_BATCH, target - len(self._ready)))

    def next(self) -> Prompt:
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
                f"the data set has {self._different} prompts and the run asked for more, so they came again: a server "
                "that caches prefixes answers those faster (--llm-cache-bust prevents that)"
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
