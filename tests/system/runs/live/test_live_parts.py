"""The parts of the live view by themselves: beats, windows, history."""

from __future__ import annotations

import csv
import io
import random
import time
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_reports.follow import stage as figures_of
from llm_users.load.protocol.messages import Live
from llm_users.load.worker.admission_gate import AdmissionGate
from llm_users.load.worker.live_metrics import LiveReporter
from llm_users.quantile import DurationHistogram, quantile
from llm_users.record import REQUEST_COLUMNS, RequestRecord
from llm_users.users.chunks import Chunks
from llm_users.web.cpu_lines import COLUMNS, MOST_LINES, CpuLines
from llm_users.web.history import MOST_SAMPLES, History
from llm_users.web.html_section import append_to_file, with_section
from llm_users.web.stage_series import StageSeries
from llm_users.web.windows import Rate, SlidingHistogram
from tests.unit.reports.open_loop_on_disk import write_rates

_NS = 1_000_000_000


def reporting(sent: list[Live]) -> LiveReporter:
    return LiveReporter(AdmissionGate(), sent.append, "run", 0)


def test_tokens_count_when_they_arrive_each_once() -> None:
    sent: list[Live] = []
    reporter, stream = reporting(sent), Chunks()
    t0 = time.monotonic_ns()
    reporter.began("a", stream, t0)
    for place in range(5):
        stream.add(t0 + (place + 1) * _NS // 10, 1, "x", "")
    reporter._look()
    reporter._report()
    stream.add(t0 + _NS, 1, "x", "")
    record = RequestRecord(chunks=6, output_tokens=12, tpot_s=0.1, measured=1, stage=2)
    reporter.ended("a", record)
    reporter._report()
    second = Chunks()
    reporter.began("b", second, t0)
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
    reporter.began("a", stream, _NS)
    for second in (3, 5):
        stream.add(0, second * _NS, "x", "")
    reporter._look()
    reporter._report()
    assert DurationHistogram(sent[0].metrics.ttft).quantile(0.5) == pytest.approx(2, rel=0.002)
    assert DurationHistogram(sent[0].metrics.gap).quantile(0.5) == pytest.approx(2, rel=0.002)


def test_gaps_are_of_one_choice() -> None:
    sent: list[Live] = []
    reporter, stream = reporting(sent), Chunks()
    reporter.began("a", stream, _NS)
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
    reporter.began("a", stream, _NS)
    reporter.ended("a", RequestRecord(error_code="buffered", chunks=1, output_tokens=9))
    reporter.ended("b", RequestRecord(error_code="aborted", chunks=1, output_tokens=9))
    reporter.ended("c", RequestRecord(error_code="429", http_status=429))
    reporter._report()
    made = sent[0].metrics
    assert (made.requests, made.failed, made.throttled, made.ttft) == (2, 1, 1, {})


def test_an_answer_that_came_at_once_is_timed_when_its_row_says_that_it_was_a_stream() -> None:
    """Its TTFT and gaps are not counted while it may turn out to be buffered."""
    sent: list[Live] = []
    reporter, now_ns = reporting(sent), time.monotonic_ns()
    streams = [Chunks(), Chunks(), Chunks()]
    for stream, ago_ns in zip(streams, (0, 0, _NS), strict=True):
        for _ in range(9):
            stream.add(now_ns - ago_ns, now_ns - ago_ns, "x", "")
        reporter.began(id(stream), stream, now_ns - 3 * _NS)
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


def test_a_sliding_window_knows_the_last_ticks_only() -> None:
    window = SlidingHistogram(ticks=3)
    rng = random.Random(4)
    seconds = [[rng.lognormvariate(-3, 1) for _ in range(300)] for _ in range(9)]
    for place, values in enumerate(seconds):
        for part in (values[:100], values[100:]):  # as from two processes
            counts = DurationHistogram()
            for value in part:
                counts.add(value)
            window.merge(counts.counts)
        window.tick()
        known = sorted(chain.from_iterable(seconds[max(0, place - 2) : place + 1]))
        want = [quantile(known, q) for q in (0.5, 0.95, 0.99)]
        assert window.quantiles((0.5, 0.95, 0.99)) == pytest.approx(want, rel=0.0025)
    for _ in range(3):
        window.tick()
    assert window.quantiles((0.5,)) == [None]


def test_a_rate_is_the_mean_of_its_ticks() -> None:
    rate = Rate(ticks=2)
    assert rate.per_s == 0.0
    for amount in (100, 10, 20):
        rate.add(amount)
        rate.tick(0.5)
    assert rate.per_s == 30.0


def test_the_history_of_eight_hours_is_bounded_and_goes_back_to_the_beginning() -> None:
    history = History()
    sizes = set()
    for second in range(8 * 3600):
        history.add({"t": float(second), "users": 4, "ttft_p50": float("nan")})
        sizes.add(len(history))
    assert max(sizes) == MOST_SAMPLES
    reset, samples = history.after(None)
    assert reset
    assert samples["t"][0] == 0
    assert samples["t"] == sorted(set(samples["t"]))
    assert samples["t"][-600:] == [float(second) for second in range(8 * 3600 - 600, 8 * 3600)]
    assert set(samples["ttft_p50"]) == {None}
    assert {len(values) for values in samples.values()} == {len(history)}


def test_few_processes_have_a_cpu_line_each() -> None:
    lines = CpuLines()
    assert lines.sample({0: 0.2}, 1.0) == {"cpu_0": 0.2, "cpu_rest": None}
    assert lines.sample({0: 0.3, 1: 0.9}, 2.0) == {"cpu_0": 0.3, "cpu_1": 0.9, "cpu_rest": None}
    assert lines.sample({1: 0.8}, 3.0) == {"cpu_0": None, "cpu_1": 0.8, "cpu_rest": None}, "the first one is gone"
    assert [(line["worker"], line["since_s"]) for line in lines.legend()] == [(0, 1.0), (1, 2.0)]
    assert lines.unused == {*COLUMNS[2:], "cpu_rest"}


def test_of_many_processes_the_busiest_have_the_lines_and_keep_them() -> None:
    lines = CpuLines()
    shares = {worker: 0.2 + 0.001 * worker for worker in range(20)}
    for second in range(5):
        made = lines.sample(shares, float(second))
    assert len(lines.legend()) == MOST_LINES
    assert made["cpu_rest"] == shares[19]
    assert {line["worker"] for line in lines.legend()} == set(range(8)), "equals do not swap"
    assert not lines.unused
    shares |= {2: 0.1, 15: 0.9, 16: 0.8}
    for second in range(5, 35):
        made = lines.sample(shares, float(second))
    owners = {line["worker"]: line for line in lines.legend()}
    assert set(owners) == {1, 3, 4, 5, 6, 7, 15, 16}
    assert made[str(owners[15]["column"])] == 0.9
    assert float(owners[15]["since_s"]) >= 5, "what was drawn before was another one's"
    assert made["cpu_rest"] == shares[19]
    del shares[15]
    shares[18] = 0.01
    lines.sample(shares, 40.0)
    assert 15 not in {line["worker"] for line in lines.legend()}, "who is gone makes room, for the idle too"


def test_a_page_gets_what_it_does_not_know() -> None:
    history = History()
    for second in range(5):
        history.add({"t": float(second)})
    assert history.after(history.seq) == (False, {name: [] for name in history.after(None)[1]})
    assert history.after(history.seq - 2)[1]["t"] == [3.0, 4.0]
    assert history.after(history.seq + 1)[0]
    old = history.seq
    history.forget()
    assert history.after(old)[0]
    history.add({"t": 0.0})
    assert history.after(old) == history.after(None)


def test_a_running_stage_reads_as_its_rows_do() -> None:
    series = StageSeries(1, 4)
    rng = random.Random(2)
    times = [rng.lognormvariate(-2, 0.7) for _ in range(500)]
    for value in times:
        series.add(RequestRecord(ttft_s=value, end_to_end_latency_s=2 * value), throttled=False)
    series.add(RequestRecord(error_code="429", ttft_s=99.0), throttled=True)
    series.add(RequestRecord(error_code="aborted"), throttled=False)
    row = series.row()
    assert (row["requests"], row["ok"], row["failed"], row["throttled"], row["aborted"]) == (502, 500, 1, 1, 1)
    times.sort()
    assert row["ttft"]["median"] == pytest.approx(quantile(times, 0.5), rel=0.0025)
    assert row["ttft"]["p99"] == pytest.approx(quantile(times, 0.99), rel=0.0025)
    assert (row["ttft"]["min"], row["ttft"]["max"]) == (times[0], times[-1])
    assert row["ttft"]["mean"] == pytest.approx(sum(times) / 500)
    assert row["tpot"]["median"] is None


def test_a_running_stage_of_an_open_loop_reads_as_its_rows_do_when_it_is_over(tmp_path: Path) -> None:
    prefix = write_rates(tmp_path / "open", rates=(20,), policy="drop")
    rows = Path(f"{prefix}_llm_requests.csv")
    series = StageSeries(1, 0, 20.0)
    columns = {column.name: column.type for column in REQUEST_COLUMNS}
    for line in csv.DictReader(io.StringIO(rows.read_text())):
        values = {name: columns[name](value) for name, value in line.items() if value}
        series.add(RequestRecord(**values), throttled=False)
    asked = {"rows": rows, "stages": f"{prefix}_llm_stages.csv", "stage": 1, "from": 0, "to": rows.stat().st_size}
    (over,), running = figures_of(asked)["stages"], series.row()
    load = ("stage", "concurrency", "rate_per_s")
    assert [over[name] for name in load] == [running[name] for name in load] == [1, None, 20.0]
    counts = ("requests", "ok", "failed", "throttled", "aborted")
    assert [over[name] for name in counts] == [running[name] for name in counts]
    assert over["failed"] > 20
    for metric in ("ttft", "e2e", "corrected_ttft", "corrected_e2e"):
        assert running[metric] == pytest.approx(over[metric], rel=0.003)
    assert over["corrected_ttft"]["median"] > over["ttft"]["median"]


def test_the_section_goes_into_the_file_of_this_run_once(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("<html><body><p>&lt;/body&gt; Ü</p></body></html>", encoding="utf-8")
    written_at = file.stat().st_mtime
    section = '<section id="llm-section"></section>'
    assert not append_to_file(str(file), section, not_before=written_at + 1), "it is of an earlier run"
    assert section not in file.read_text(encoding="utf-8")
    for _ in range(2):
        assert append_to_file(str(file), section, not_before=written_at)
    assert file.read_text(encoding="utf-8") == f"<html><body><p>&lt;/body&gt; Ü</p>{section}</body></html>"
    assert not append_to_file(str(tmp_path / "none.html"), section, not_before=0)
    assert with_section("no html at all", section) == f"no html at all{section}"
