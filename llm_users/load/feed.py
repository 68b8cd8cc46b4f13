"""Prompts for one load process: built ahead, in a thread, so that no tokenizing happens between tokens.

Worker w of W takes the indices i = w (mod W) of the seeded sequence, each once in the whole run.
"""

from __future__ import annotations

import logging
from collections import deque

import gevent

from llm_users.prompts import Prompt, PromptSource

logger = logging.getLogger(__name__)

MOST_AHEAD = 5000
"""Prompts held at most (about 15 MB of long ones); a longer stage builds the rest while it runs."""

_BATCH = 16
_LOW = 64


class PromptFeed:
    """The prompts of this process, in order."""

    def __init__(self, source: PromptSource, worker: int, workers: int) -> None:
        self._source = source
        self._next_index = worker
        self._step = workers
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
        if not self._ready:
            self._build(1)
        prompt = self._ready.popleft()
        if len(self._ready) < _LOW // 2 and self._wanted > len(self._ready) and self._refilling is None:
            self._refilling = gevent.spawn(self._refill)
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
