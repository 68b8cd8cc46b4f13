"""The row of a long answer: it equals the row of the direct computation, and the event loop runs while it is made."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import gevent
import pytest

from llm_users.load.worker.machine_cpu import CpuWait
from llm_users.quantile import quantile
from llm_users.record import RequestRecord
from llm_users.simulator.launch import Simulator, launch
from llm_users.users.chunks import Chunks, time_chunks
from llm_users.users.request import Request
from tests.unit.users.rig import Rig, at

TOKENS = 100_000


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with launch(f"ttft=20ms,itl=0ms,tokens={TOKENS}") as running:
        yield running


@pytest.mark.parametrize("choices", [1, 3])
def test_the_times_of_many_chunks_are_those_of_one_sort(choices: int) -> None:
    rng, chunks, now_ns = random.Random(choices), Chunks(), 10**12
    for _ in range(35_000):
        now_ns += rng.choice((0, rng.randrange(10**7)))
        chunks.add(now_ns, now_ns, "a", "", rng.randrange(choices))
    record = RequestRecord()
    gaps_ns = time_chunks(record, chunks, chunks.stamps_ns, 10**12 - 5)
    of_choices = [[chunks.stamps_ns[index] for index in indices] for _, indices in sorted(chunks.places.items())]
    expected_ns = [late - early for stamps in of_choices for early, late in pairwise(stamps)]
    assert gaps_ns == expected_ns
    assert record.coalesced == expected_ns.count(0)
    expected = [quantile(sorted(expected_ns), q) / 1e9 for q in (0.5, 0.95, 0.99, 1.0)]
    assert [record.gap_p50_s, record.gap_p95_s, record.gap_p99_s, record.gap_max_s] == expected


@pytest.mark.alone
def test_the_event_loop_goes_on_while_the_row_of_100_000_tokens_is_made(
    rig: Rig, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses_s: list[float] = []
    tickers: list[Any] = []
    make_row = Request._make_row

    def tick() -> None:
        while True:
            due_s = time.monotonic() + 0.001
            gevent.sleep(0.001)
            pauses_s.append(time.monotonic() - due_s)

    def watched(self: Any) -> Any:
        tickers.append(gevent.spawn(tick))
        return make_row(self)

    monkeypatch.setattr(Request, "_make_row", watched)
    answer = rig.call(at(simulator.url, lambda user: user.chat("hi", max_tokens=TOKENS)))
    gevent.sleep(0.05)  # the memory of the chunks is released
    gevent.killall(tickers)
    assert answer.record.output_tokens == answer.record.chunks == TOKENS
    print(f"longest pause: {max(pauses_s) * 1e3:.1f} ms")
    assert max(pauses_s) < 0.010


@pytest.mark.alone
def test_the_event_loop_goes_on_while_8_answers_of_10_000_tokens_arrive_and_end_together(
    make_rig: Callable[..., Rig],
) -> None:
    pauses_s: list[float] = []

    def tick() -> None:
        wait = CpuWait()
        while True:
            due_s, waited_s = time.monotonic() + 0.001, wait.seconds() or 0.0
            gevent.sleep(0.001)
            pauses_s.append(time.monotonic() - due_s - ((wait.seconds() or 0.0) - waited_s))

    with launch("ttft=20ms,itl=200us,tokens=10000") as server:
        rig = make_rig(users=8)
        rig.call(at(server.url, lambda user: user.chat("hi", max_tokens=10)))  # the first request of a process
        results = [rig.send(at(server.url, lambda user: user.chat("hi", max_tokens=10_000))) for _ in range(8)]
        ticker = gevent.spawn(tick)
        answers = [result.get(timeout=60) for result in results]
        gevent.sleep(0.05)  # the memory of the chunks is released
        ticker.kill()
    assert [answer.record.chunks for answer in answers] == [10_000] * 8
    print(f"longest pause: {max(pauses_s) * 1e3:.1f} ms")
    assert max(pauses_s) < 0.015  # 20 ms or more if parts of several answers are decoded in one iteration of the loop
