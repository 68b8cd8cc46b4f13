"""The arrivals of a stage of an open loop, for workers and coordinator alike, and the prompts that belong to them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llm_users.load.protocol.arrivals import ArrivalShare, arrival_times_s
from llm_users.load.protocol.stage import StagePlan
from llm_users.load.worker.prompt_queue import PromptFeed
from llm_users.options.table import Options
from llm_users.prompts import Prompt

MakeFeed = Callable[[int, int], PromptFeed[Prompt]]


def stage_times_s(options: Options, plan: StagePlan, trace_times_s: Sequence[float] | None) -> Iterable[float]:
    """All arrivals of a stage, over all workers, in seconds from its origin: those of a trace, else drawn ones."""
    if trace_times_s is not None:
        return trace_times_s[: plan.requests]
    assert plan.load.rate_per_s is not None
    return arrival_times_s(options.arrivals, plan.load.rate_per_s, f"{options.seed}:{plan.stage}:arrivals")


def read_parts(parts: Any) -> list[ArrivalShare]:
    """Parts of a schedule as they come in a message."""
    return [ArrivalShare(int(first), int(step), float(from_s)) for first, step, from_s in parts]


class TracePrompts:
    """The prompts of a trace's arrivals: one feed for each part of the trace that is this worker's."""

    def __init__(self, times_s: Sequence[float], make: MakeFeed) -> None:
        self._times_s = times_s
        self._make = make
        self._feeds: dict[ArrivalShare, PromptFeed[Prompt]] = {}

    def begin(self, part: ArrivalShare, feed: PromptFeed[Prompt]) -> None:
        """The part that the worker has from the beginning, and the feed of it."""
        self._feeds = {part: feed}

    def change(self, parts: Iterable[ArrivalShare], requests: int) -> None:
        """From now on these parts are the worker's. Prompts of a new one are built in the background."""
        for part in parts:
            if part not in self._feeds:
                left_out = max(0, bisect_left(self._times_s, part.from_s) - part.first)
                numbers = range(part.first, requests, part.step)[math.ceil(left_out / part.step) :]
                if numbers:
                    self._feeds[part] = self._make(numbers[0], part.step)
                    self._feeds[part].foresee(len(numbers))

    def of(self, number: int) -> Prompt:
        """The prompt of arrival ``number``."""
        at_s = self._times_s[number]
        feed = next(feed for part, feed in self._feeds.items() if part.has(number, at_s))
        return feed.take(number)

    def close(self) -> None:
        """Build no more."""
        for feed in self._feeds.values():
            feed.close()
