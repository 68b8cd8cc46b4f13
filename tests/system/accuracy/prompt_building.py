"""Measure what prompts of an exact length cost: building them, taking them from the queue, and encoding them.

    python -m tests.system.accuracy.prompt_building

The first table shows one thread that builds prompts. The second table shows a gevent loop that takes prompts from the
queue at a fixed rate while the queue builds them, and how late a timer of the loop is meanwhile. The third table shows
the time for which encoding the body of a request blocks the loop, and the CPU time of a thread that counts the tokens
of an answer. Use a quiet machine. ``PATH/.venv/bin/python prompt_building.py`` measures another checkout.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent

from llm_users.distributions import LENGTHS, Distribution
from llm_users.load.worker.prompt_queue import PromptQueue
from llm_users.prompts import Prompt, PromptSource, Tokenizer, load_tokenizer, make_source
from llm_users.transport.clock import now_ns
from llm_users.transport.precise_timer import PreciseTimer

LENGTHS_TO_BUILD = ("100", "550,150", "8000", "32000", "128000")
TAKEN_PER_S = (("550,150", 2000.0), ("8000", 800.0), ("128000", 80.0))
"""Prompts per second that the loop takes from the queue, by their length."""

SWITCH_S = 0.0005
"""The switch interval of a worker (``load.worker.process``)."""

_FIRST = 300  # prompts before the measurement, which fill the caches of the source
_FIRST_TOKENS = 300_000
_PROBE_NS = 1_000_000


class TimedTokenizer:
    """Adds up the CPU time of the tokenizer's calls, during which it does not hold the interpreter lock."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.name, self.digest = tokenizer.name, tokenizer.digest
        self.cpu_s = 0.0

    def count(self, text: str) -> int:
        return int(self._timed(self._tokenizer.count, text))

    def encode(self, text: str) -> list[int]:
        return list(self._timed(self._tokenizer.encode, text))

    def _timed(self, call: Callable[[str], Any], text: str) -> Any:
        began_s = time.thread_time()
        result = call(text)
        self.cpu_s += time.thread_time() - began_s
        return result


@dataclass
class Cost:
    """The cost of one prompt in the thread that builds it: means, and the longest."""

    first_ms: float
    cpu_ms: float
    locked_ms: float
    longest_ms: float
    kilobytes: float


@dataclass
class Loop:
    """A gevent loop beside the queue's thread."""

    taken_per_s: float
    cpu_share: float
    p50_ms: float
    p99_ms: float
    longest_ms: float


def source_of(tokenizer: Tokenizer, lengths: str) -> PromptSource:
    """Return the source of a run with prompts of these lengths."""
    return make_source(
        tokenizer=tokenizer,
        input_lengths=Distribution.parse(lengths, LENGTHS),
        output_lengths=Distribution.parse("150,80", LENGTHS),
        seed=11111,
        run_key="prompt building",
    )


def measure_building(tokenizer: Tokenizer, lengths: str, seconds: float) -> Cost:
    """Build prompts in this thread for some time, and return their cost."""
    timed = TimedTokenizer(tokenizer)
    source = source_of(timed, lengths)
    began_s = time.thread_time()
    first = source.prompt(0)
    first_ms = (time.thread_time() - began_s) * 1e3
    count = min(_FIRST, _FIRST_TOKENS // (first.input_tokens or 1))
    for index in range(1, count + 1):
        source.prompt(index)
    times_s: list[float] = []
    kilobytes: list[float] = []
    timed.cpu_s = 0.0
    while sum(times_s) < seconds or len(times_s) < 3:
        count += 1
        began_s = time.thread_time()
        prompt = source.prompt(count)
        times_s.append(time.thread_time() - began_s)
        kilobytes.append(sys.getsizeof(prompt.text) / 1e3)
    cpu_s = statistics.fmean(times_s)
    locked_s = cpu_s - timed.cpu_s / len(times_s)
    return Cost(first_ms, cpu_s * 1e3, locked_s * 1e3, max(times_s) * 1e3, statistics.fmean(kilobytes))


def measure_loop(source: PromptSource | None, rate_per_s: float, seconds: float) -> Loop:
    """Take prompts from a queue at a fixed rate, and return how late a timer of the loop is meanwhile.

    Without a source, the loop wakes up at the same rate and takes nothing.
    """
    queue = None if source is None else PromptQueue(source, 0, 1, print, Prompt.characters)
    if queue is not None:
        queue.expect(1)  # a stage of a given time: the queue builds more whenever few prompts are ready
    timer = PreciseTimer()  # the loop's own timers are rounded to milliseconds
    late_ns: list[int] = []
    taken = 0

    def probe() -> None:
        while True:
            due_ns = now_ns() + _PROBE_NS
            timer.wait_until(due_ns)
            late_ns.append(now_ns() - due_ns)

    def take() -> None:
        nonlocal taken
        due_ns = now_ns()
        while True:
            due_ns += round(1e9 / rate_per_s)
            timer.wait_until(due_ns)
            if queue is not None:
                queue.next()
            taken += 1

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # as a worker does
    taker = gevent.spawn(take)
    gevent.sleep(min(1.0, seconds))  # so that the caches of the source are filled
    prober = gevent.spawn(probe)
    taken_before, began_s, cpu_s = taken, time.monotonic(), time.process_time()
    gevent.sleep(seconds)
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    taken_per_s = (taken - taken_before) / wall_s
    gevent.killall([taker, prober])
    timer.close()
    sys.setswitchinterval(switch_s)
    gc.unfreeze()
    percentiles = statistics.quantiles(late_ns, n=100)
    return Loop(taken_per_s, cpu_s / wall_s, percentiles[49] / 1e6, percentiles[98] / 1e6, max(late_ns) / 1e6)


def mean_ms(call: Callable[[], object], seconds: float) -> float:
    """Return the mean CPU time of a call in milliseconds."""
    began_s, calls = time.thread_time(), 0
    while time.thread_time() - began_s < seconds:
        call()
        calls += 1
    return (time.thread_time() - began_s) / calls * 1e3


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.accuracy.prompt_building",
        description="Measure the cost of building, taking and encoding prompts of an exact length.",
    )
    parser.add_argument("--tokenizer", metavar="NAME", help="as --llm-tokenizer (default: the packaged tokenizer)")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each measurement (default: 3)")
    options = parser.parse_args(argv)
    tokenizer, seconds = load_tokenizer(options.tokenizer), options.seconds
    print("One thread that builds prompts; 'locked' is the CPU time with the interpreter lock:")
    print(
        f"{'tokens':>10} {'prompts/s':>10} {'CPU ms':>8} {'locked ms':>10} {'longest':>8} {'first':>8} {'kB each':>8}"
    )
    for lengths in LENGTHS_TO_BUILD:
        cost = measure_building(tokenizer, lengths, seconds)
        print(
            f"{lengths:>10} {1000 / cost.cpu_ms:10.0f} {cost.cpu_ms:8.3f} {cost.locked_ms:10.3f} "
            f"{cost.longest_ms:8.2f} {cost.first_ms:8.2f} {cost.kilobytes:8.1f}",
            flush=True,
        )
    print("\nA loop that takes prompts while the queue builds them; delays of a timer of 1 ms in ms:")
    print(f"{'tokens':>10} {'asked/s':>10} {'taken/s':>8} {'CPU share':>10} {'p50':>8} {'p99':>8} {'longest':>8}")
    for lengths, rate_per_s in TAKEN_PER_S:
        sources = {"none": None, lengths: source_of(tokenizer, lengths)}
        for name, source in sources.items():
            loop = measure_loop(source, rate_per_s, seconds)
            print(
                f"{name:>10} {rate_per_s:10.0f} {loop.taken_per_s:8.0f} {loop.cpu_share:10.1%} "
                f"{loop.p50_ms:8.2f} {loop.p99_ms:8.2f} {loop.longest_ms:8.2f}",
                flush=True,
            )
    print("\nMean CPU ms for one text: encoding the body of a request, and counting the tokens of an answer:")
    print(f"{'tokens':>10} {'json':>10} {'count':>10}")
    for lengths in LENGTHS_TO_BUILD:
        text = source_of(tokenizer, lengths).prompt(0).text or ""
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 150}
        encode_ms = mean_ms(lambda body=body: json.dumps(body, ensure_ascii=False).encode(), seconds / 10)
        count_ms = mean_ms(lambda text=text: tokenizer.count(text), seconds / 10)
        print(f"{lengths:>10} {encode_ms:10.4f} {count_ms:10.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
