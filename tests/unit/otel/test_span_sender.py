"""The queue of finished spans: batches, failed exports, a limit, and a receiver that does not answer."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest

from llm_users.otel.span_sender import SpanSender


def test_spans_are_sent_in_batches_from_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    batches: list[list[Any]] = []
    sender = SpanSender(lambda batch: batches.append(list(batch)) or True)
    spans: list[Any] = list(range(10))
    for span in spans:
        sender.add(span)
    assert sender.flush(5)
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert (sender.lost, sender.unsent) == (0, 0)


def test_a_failed_export_and_a_full_queue_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "5")
    sender = SpanSender(lambda _batch: False)
    spans: list[Any] = list(range(8))
    for span in spans:
        sender.add(span)
    assert sender.lost == 3
    assert sender.flush(5)
    assert sender.lost == 8


def test_a_flush_ends_in_time_and_the_loop_goes_on_meanwhile() -> None:
    sleep = gevent.monkey.get_original("time", "sleep")
    sender = SpanSender(lambda _batch: sleep(1.0) is None)
    span: Any = 1
    sender.add(span)
    started_s = time.monotonic()
    ticks = []
    ticker = gevent.spawn(lambda: [ticks.append(1) or gevent.sleep(0.01) for _ in range(10)])
    assert not sender.flush(0.3)
    assert time.monotonic() - started_s < 0.8
    assert sender.unsent == 1
    ticker.join()
    assert len(ticks) == 10
    assert sender.flush(5)
