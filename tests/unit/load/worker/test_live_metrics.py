"""Heartbeats: what a worker reports of its streams once a second, and which messages are refused."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from llm_users.load.protocol.messages import Live
from llm_users.load.worker.admission_gate import AdmissionGate
from llm_users.load.worker.live_metrics import LiveReporter
from llm_users.quantile import DurationHistogram
from llm_users.record import RequestRecord
from llm_users.users.chunks import Chunks

_NS = 1_000_000_000


def reporting(sent: list[Live]) -> LiveReporter:
    return LiveReporter(AdmissionGate(), sent.append, "run", 0)


def test_tokens_count_when_they_arrive_each_once() -> None:
    sent: list[Live] = []
    reporter, stream = reporting(sent), Chunks()
    t0 = time.monotonic_ns()
    reporter.began("a", stream, t0, lambda: None)
    for place in range(5):
        stream.add(t0 + (place + 1) * _NS // 10, 1, "x", "")
    reporter._look()
    reporter._report()
    stream.add(t0 + _NS, 1, "x", "")
    record = RequestRecord(chunks=6, output_tokens=12, tpot_s=0.1, measured=1, stage=2)
    reporter.ended("a", record)
    reporter._report()
    second = Chunks()
    reporter.began("b", second, t0, lambda: None)
    second.add(t0 + _NS, 1, "x", "")
    reporter._look()
    reporter._report()
    first, ended, scaled = (live.metrics for live in sent)
    assert (first.tokens, first.requests) == (5, 0)
    assert DurationHistogram(first.ttft).quantile(0.5) == pytest.approx(0.1, rel=0.002)
    assert DurationHistogram(first.gap).total == 4
    assert (ended.tokens, ended.requests, ended.done) == (2, 1, {2: 1})  # a chunk holds two tokens, as is known now
    assert DurationHistogram(ended.gap).quantile(0.5) == pytest.approx(0.5, rel=0.002)
    assert not ended.ttft
    assert scaled.tokens == 2
    assert DurationHistogram(scaled.ttft).total == 1


def test_the_clock_stands_in_where_the_kernel_gave_no_stamp() -> None:
    sent: list[Live] = []
    reporter, stream = reporting(sent), Chunks()
    reporter.began("a", stream, _NS, lambda: None)
    for second in (3, 5):
        stream.add(0, second * _NS, "x", "")
    reporter._look()
    reporter._report()
    assert DurationHistogram(sent[0].metrics.ttft).quantile(0.5) == pytest.approx(2, rel=0.002)
    assert DurationHistogram(sent[0].metrics.gap).quantile(0.5) == pytest.approx(2, rel=0.002)


def test_gaps_are_of_one_choice() -> None:
    sent: list[Live] = []
    reporter, stream = reporting(sent), Chunks()
    reporter.began("a", stream, _NS, lambda: None)
    for tenth in range(20):
        stream.add(2 * _NS + tenth * _NS // 10, 1, "x", "", choice=tenth % 2)
        if tenth == 9:
            reporter._look()
    reporter._look()
    reporter._report()
    gaps = DurationHistogram(sent[0].metrics.gap)
    assert gaps.total == 18
    assert gaps.quantiles((0, 1)) == pytest.approx([0.2, 0.2], rel=0.002)


def test_an_aborted_request_is_no_request_that_ended_and_a_buffered_one_has_no_times() -> None:
    sent: list[Live] = []
    reporter, stream = reporting(sent), Chunks()
    stream.add(2 * _NS, 1, "x", "")
    reporter.began("a", stream, _NS, lambda: None)
    reporter.ended("a", RequestRecord(error_code="buffered", chunks=1, output_tokens=9))
    reporter.ended("b", RequestRecord(error_code="aborted", chunks=1, output_tokens=9))
    reporter.ended("c", RequestRecord(error_code="429", http_status=429))
    reporter._report()
    made = sent[0].metrics
    assert (made.requests, made.failed, made.throttled, made.ttft) == (2, 1, 1, {})


def test_tokens_of_an_answer_that_is_not_streamed_count_at_its_end() -> None:
    sent: list[Live] = []
    reporter = reporting(sent)
    reporter.began("a", Chunks(), _NS, lambda: None)
    reporter._look()
    reporter._report()
    reporter.ended("a", RequestRecord(streamed=0, output_tokens=9))
    reporter._report()
    reporter._report()
    assert [message.metrics.tokens for message in sent] == [0, 9, 0]
    assert (sent[1].metrics.requests, sent[1].metrics.ttft, sent[1].metrics.tpot) == (1, {}, {})


def test_an_answer_that_came_at_once_is_timed_when_its_row_says_that_it_was_a_stream() -> None:
    """Its TTFT and gaps are not counted while it may turn out to be buffered."""
    sent: list[Live] = []
    reporter, now_ns = reporting(sent), time.monotonic_ns()
    streams = [Chunks(), Chunks(), Chunks()]
    for stream, ago_ns in zip(streams, (0, 0, _NS), strict=True):
        for _ in range(9):
            stream.add(now_ns - ago_ns, now_ns - ago_ns, "x", "")
        reporter.began(id(stream), stream, now_ns - 3 * _NS, lambda: None)
    reporter._look()  # the third one came a second ago: its row is not to be waited for
    reporter.ended(id(streams[0]), RequestRecord(error_code="buffered", chunks=9, output_tokens=9))
    reporter.ended(id(streams[1]), RequestRecord(chunks=9, output_tokens=9))
    reporter._report()
    made = sent[0].metrics
    assert sum(made.ttft.values()) == 2
    assert sum(made.gap.values()) == 16


def live_message() -> dict[str, Any]:
    sent: list[Live] = []
    reporting(sent)._report()
    return sent[0].encoded()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run", 5), ("run", ""), ("run", "x" * 65), ("phase", "asleep"), ("phase", ["ramp"]), ("worker", -1),
        ("worker", "0"), ("worker", True), ("in_flight", 10**12), ("tokens", float("nan")), ("tokens", float("inf")),
        ("cpu", -0.1), ("measured_s", "1"), ("gap", [1]), ("gap", {"1": 1}), ("gap", {1: 0}), ("gap", {1: 1.5}),
        ("gap", {-2: 1}), ("gap", {10**6: 1}), ("gap", dict.fromkeys(range(30_000), 1)),
        ("done", dict.fromkeys(range(17), 1)), ("stage", None),
    ],
)  # fmt: skip
def test_invalid_live_metrics_are_refused(field: str, value: object) -> None:
    good = live_message()
    assert msgspec.convert(good, Live).run == "run"
    bad = {**good, field: value} if field in good else {**good, "metrics": {**good["metrics"], field: value}}
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert(bad, Live)


def test_no_message_at_all() -> None:
    for data in (None, [], "x", 5):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(data, Live)
