"""Counts of the output tokens of all answers with the local tokenizer, beside the usage of the server.

A request waits for the count of its answer before its row is made, so a row is complete when it is published, and the
texts that wait are those of requests in flight. One thread at a time counts: counting takes at most one core, and the
event loop continues, because the tokenizer releases the interpreter lock.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gevent.lock import Semaphore

from llm_users.options.table import Options
from llm_users.prompts import Tokenizer
from llm_users.prompts.sonnets import sonnets

STREAM_TOKENS_PER_S = 100.0
"""The assumed output of one user in a closed loop, in tokens/s. It is an estimate for a stage whose speed is unknown:
published speeds of hosted models are mostly between 30 and 150 tokens/s per answer."""

MOST_WAITING_CHARACTERS = 4_000_000
"""The texts that may wait for their count. They have about 1e6 tokens, which one core counts in about a second."""

_SAMPLE_POEMS, _SAMPLES = 10, 5  # about 1,500 tokens, 1.5 ms with the packaged tokenizer

logger = logging.getLogger(__name__)

ON_LOG = (
    "the client counts the output tokens of each answer with tokenizer %s: one core counts %.0f tokens/s, and the "
    "largest stage needs up to %.0f tokens/s per worker"
)
OFF_NOTE = (
    "output tokens are not counted by the client: this run needs up to {needed:,.0f} tokens/s per worker, and one core "
    "of this machine counts {rate:,.0f} tokens/s with tokenizer {name}. Use more workers, or give --llm-count to count "
    "anyway"
)
SLOW_NOTE = (
    "--llm-count tokenizer: this run needs up to {needed:,.0f} tokens/s per worker, and one core of this machine "
    "counts {rate:,.0f} tokens/s with tokenizer {name}: requests may wait for their counts. Use more workers"
)
SKIPPED_NOTE = (
    "some answers have no output_tokens_counted: they ended faster than one core of the worker counts them; use more "
    "workers, or --llm-count tokenizer, which waits for each count"
)


class OutputCounts:
    """Decides which answers a worker counts, one answer at a time. Use it from greenlets of one thread."""

    def __init__(self, *, divides: bool, note: Callable[[str], None]) -> None:
        self.divides = divides
        """Whether the local count is ``output_tokens``, which rates and times per token are computed with."""
        self.turns = Semaphore()
        """Held during a count."""
        self._note = note
        self._waiting_characters = 0

    @contextmanager
    def waiting(self, characters: int) -> Iterator[bool]:
        """Yield whether to count an answer with this many characters, which waits inside the context.

        If the limit is reached, the answer is not counted. A count that divides is never left out: the request waits.
        """
        total = self._waiting_characters + characters
        if not self.divides and self._waiting_characters and total > MOST_WAITING_CHARACTERS:
            self._note(SKIPPED_NOTE)
            yield False
            return
        self._waiting_characters = total
        try:
            yield True
        finally:
            self._waiting_characters -= characters


def tokens_per_s(tokenizer: Tokenizer) -> float:
    """Return how many tokens/s one core of this machine counts, measured with English text for some milliseconds.

    Do not call it in an event loop.
    """
    text = "\n".join(line for number in sorted(sonnets())[:_SAMPLE_POEMS] for line in sonnets()[number])
    tokens = tokenizer.count(text)
    times_s = []
    for _ in range(_SAMPLES):
        began_s = time.perf_counter()
        tokenizer.count(text)
        times_s.append(time.perf_counter() - began_s)
    return tokens / statistics.median(times_s)


def needed_tokens_per_s(options: Options, users: int, workers: int) -> float:
    """Return how many output tokens/s the largest stage sends to each worker at most, as far as the options say.

    ``users`` is the number of users of a run without stages.
    """
    if options.trace is not None:
        return 0.0
    if options.rate:
        lengths = [lengths.output_tokens for lengths in options.length_sweep]
        if options.length_mix is not None:
            lengths.append(round(options.length_mix[1].mean))
        tokens = max(lengths, default=options.output_tokens.mean)
        return tokens * max(max(rate.start_per_s, rate.end_per_s) for rate in options.rate) / workers
    return STREAM_TOKENS_PER_S * (options.most_users or users) / workers


def output_counts_of(
    options: Options, tokenizer: Tokenizer, *, users: int, workers: int, note: Callable[[str], None]
) -> OutputCounts | None:
    """Return the counts of a worker; None if its answers are not counted in addition to the usage of the server.

    They are counted if the user gives ``--llm-count``, or a tokenizer that one core of this machine can count with.
    ``note`` gets a text for the manifest. The function measures the tokenizer: do not call it in an event loop.
    """
    if options.count is None and options.tokenizer is None:
        return None
    rate, needed = tokens_per_s(tokenizer), needed_tokens_per_s(options, users, workers)
    figures = {"needed": needed, "rate": rate, "name": tokenizer.name}
    if needed > rate:
        if options.count is None:
            note(OFF_NOTE.format(**figures))
            return None
        if options.count == "tokenizer":
            note(SLOW_NOTE.format(**figures))
    logger.info(ON_LOG, tokenizer.name, rate, needed)
    return OutputCounts(divides=options.count == "tokenizer", note=note)
