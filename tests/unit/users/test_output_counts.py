"""Output tokens counted by both sides: a token of a simulated answer is a word, and the tokenizer counts words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import numpy as np
import pytest

from llm_reports.stats.count_difference import count_difference
from llm_users import RequestRecord
from llm_users.load.worker.output_counts import (
    MOST_WAITING_CHARACTERS,
    OutputCounts,
    needed_tokens_per_s,
    output_counts_of,
)
from llm_users.options.parsers import rates
from llm_users.options.table import Options
from llm_users.prompts import Tokenizer, load_tokenizer
from llm_users.simulator.launch import launch
from tests.stream_bytes import DONE, chat_events, delta, stream, usage
from tests.unit.prompts.tokenizers import word_level
from tests.unit.users.rig import Rig
from tests.wire_server import Wire

TOKENS = 40


@pytest.fixture(scope="module")
def words_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tokenizer.json of a tokenizer that counts the words between spaces."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    word_level().save(str(path))
    return str(path)


@pytest.fixture(scope="module")
def answered(rig_with: Callable[..., Rig], words_file: str) -> Callable[..., RequestRecord]:
    """Return a call with a spec of the simulator and a way to count; it returns the row of one answer of 40 tokens."""

    def ask(spec: str, count: str | None, **more: Any) -> RequestRecord:
        rig = rig_with(llm_tokenizer=words_file, llm_count=count)
        # Without a cap on the request: usage above the cap is not used at all.
        with launch(f"ttft=5ms,itl=1ms,tokens={TOKENS},{spec}") as simulator:
            return rig.ask(simulator.url, **more).record

    return ask


SPECS = {
    "honest": ("finish=length", TOKENS, TOKENS),
    "inflated": ("usage_factor=1.2", 48, TOKENS),
    "hidden reasoning": ("reasoning=30,reasoning_shown=none", TOKENS, 10),
    "hidden and not reported": ("reasoning=30,reasoning_shown=none,reasoning_counted=off", TOKENS, 10),
    "shown reasoning": ("reasoning=30", TOKENS, TOKENS),
    "stop token": ("finish=stop,stop_token=silent", TOKENS, TOKENS - 1),
}


@pytest.mark.parametrize("name", SPECS)
def test_rows_have_both_counts_and_usage_divides_by_default(answered: Callable[..., RequestRecord], name: str) -> None:
    spec, of_usage, of_count = SPECS[name]
    record = answered(spec, None)
    assert (record.output_tokens_usage, record.output_tokens_counted) == (of_usage, of_count)
    assert (record.output_tokens, record.output_tokens_source) == (of_usage, "usage")


@pytest.mark.parametrize("name", SPECS)
def test_the_local_count_divides_if_chosen(answered: Callable[..., RequestRecord], name: str) -> None:
    spec, of_usage, of_count = SPECS[name]
    record = answered(spec, "tokenizer")
    assert (record.output_tokens_usage, record.output_tokens_counted) == (of_usage, of_count)
    assert (record.output_tokens, record.output_tokens_source) == (of_count, "tokenizer")
    assert record.end_to_end_latency_s is not None
    throughput = of_count / record.end_to_end_latency_s
    assert record.request_output_throughput_token_per_s == pytest.approx(throughput)
    assert record.window_tokens is None or record.window_tokens <= of_count
    assert record.ttft_s is not None
    assert record.last_token_s is not None
    assert record.tpot_s == pytest.approx((record.last_token_s - record.ttft_s) / (of_count - 1))


def test_implausible_usage_is_kept_beside_the_count(rig_with: Callable[..., Rig], words_file: str) -> None:
    rig = rig_with(llm_tokenizer=words_file, llm_count=None)
    with launch("ttft=5ms,itl=1ms,usage_factor=1.2") as simulator:
        record = rig.ask(simulator.url, max_tokens=TOKENS).record
    assert (record.output_tokens_usage, record.output_tokens_counted) == (48, TOKENS)
    assert (record.output_tokens, record.output_tokens_source) == (TOKENS, "tokenizer")


def test_all_choices_are_counted(answered: Callable[..., RequestRecord]) -> None:
    """The second answer of two is a quarter shorter."""
    record = answered("finish=length", None, n=2)
    assert (record.output_tokens_usage, record.output_tokens_counted) == (70, 70)


def test_missing_usage_is_counted_once(answered: Callable[..., RequestRecord]) -> None:
    record = answered("usage=off", "usage")
    assert (record.output_tokens_usage, record.output_tokens_counted) == (None, TOKENS)
    assert (record.output_tokens, record.output_tokens_source) == (TOKENS, "tokenizer")


def test_tool_calls_are_visible_output(rig_with: Callable[..., Rig], words_file: str, wire: Wire) -> None:
    rig = rig_with(llm_tokenizer=words_file, llm_count="usage")
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": " one two three"}}
    port = wire.serve(stream([delta(content="four five"), delta(tool_calls=[call]), delta("stop"), usage(9), DONE]))
    record = rig.ask(port.url).record
    assert record.output_tokens_counted == 5
    assert record.output_tokens_usage == 9


def test_without_the_options_nothing_is_counted(rig: Rig, wire: Wire) -> None:
    record = rig.ask(wire.serve(stream(chat_events("a", "b"))).url).record
    assert (record.output_tokens, record.output_tokens_usage, record.output_tokens_counted) == (2, None, None)


# What one core counts.


@pytest.fixture(scope="module")
def packaged() -> Tokenizer:
    return load_tokenizer(None)


def test_the_log_has_the_measured_and_the_needed_rate(packaged: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "llm_users")
    output_counts_of(Options(count="usage", sweep=(50,)), packaged, users=1, workers=2, note=print)
    assert f"tokenizer {packaged.name}" in caplog.text
    assert "needs up to 2500 tokens/s per worker" in caplog.text


def test_a_run_above_one_core_is_not_counted_and_says_so(packaged: Tokenizer) -> None:
    notes: list[str] = []
    too_fast = Options(tokenizer="x", rate=rates("1000000"))
    assert output_counts_of(too_fast, packaged, users=1, workers=1, note=notes.append) is None
    assert "are not counted by the client" in notes[0]
    assert output_counts_of(Options(tokenizer="x"), packaged, users=64, workers=1, note=notes.append) is not None
    chosen = Options(count="tokenizer", rate=rates("1000000"))
    counts = output_counts_of(chosen, packaged, users=1, workers=1, note=notes.append)
    assert counts is not None
    assert counts.divides
    assert [text for text in notes if "may wait for their counts" in text]


def test_needed_rate_is_that_of_the_largest_stage_of_one_worker() -> None:
    options = Options(rate=rates("2..20,5"))
    assert needed_tokens_per_s(options, 1, 2) == pytest.approx(10 * options.output_tokens.mean)
    assert needed_tokens_per_s(Options(sweep=(1, 32, 8)), 1, 4) == pytest.approx(800)


def test_waiting_texts_are_bounded_unless_the_count_divides() -> None:
    notes: list[str] = []
    size = MOST_WAITING_CHARACTERS // 2 + 1

    def decisions(divides: bool) -> list[bool]:
        counts = OutputCounts(divides=divides, note=notes.append)
        with counts.waiting(size) as first, counts.waiting(size) as second:
            pass
        with counts.waiting(size) as afterwards:
            return [first, second, afterwards]

    assert decisions(False) == [True, False, True]
    assert len(notes) == 1
    assert decisions(True) == [True, True, True]


def test_the_event_loop_continues_during_a_count(rig_with: Callable[..., Rig], wire: Wire) -> None:
    """An answer of 60,000 words takes the packaged tokenizer about 0.1 s. No pause of the loop is nearly as long."""
    rig = rig_with(llm_count="usage")
    port = wire.serve(stream([delta(content="elephant " * 60_000), delta("stop"), usage(60_000), DONE]))
    pauses_s: list[float] = []

    def tick() -> None:
        while True:
            began_s = time.perf_counter()
            gevent.sleep(0.001)
            pauses_s.append(time.perf_counter() - began_s)

    ticker = gevent.spawn(tick)
    try:
        record = rig.ask(port.url).record
    finally:
        ticker.kill()
    assert record.output_tokens_counted is not None
    assert record.output_tokens_counted >= 60_000
    assert len(pauses_s) > 10


# The note of the report.

LENGTHS = np.arange(20.0, 120.0)
NONE = np.full(len(LENGTHS), np.nan)


@pytest.mark.parametrize(
    ("usage_tokens", "reasoning", "words"),
    [
        (np.round(LENGTHS * 1.2), NONE, "a constant factor of 1.20"),
        (np.round(LENGTHS * 0.8), NONE, "a constant factor of 0.80"),
        (LENGTHS + 300, np.full(len(LENGTHS), 300.0), "the server reports 30,000 reasoning tokens"),
        (LENGTHS + 300, NONE, "hidden reasoning that the server does not report"),
    ],
    ids=["vocabulary", "smaller", "reported reasoning", "hidden reasoning"],
)
def test_note_names_the_reason(usage_tokens: Any, reasoning: Any, words: str) -> None:
    text = count_difference(usage_tokens, LENGTHS, reasoning)
    assert words in text
    assert f"usage {usage_tokens.sum():,.0f}, counted {LENGTHS.sum():,.0f}" in text


def test_note_names_the_stop_token_of_short_answers() -> None:
    counted = np.full(30, 8.0)
    assert "stop token" in count_difference(counted + 1, counted, np.full(30, np.nan))


def test_no_note_up_to_five_percent() -> None:
    assert count_difference(LENGTHS * 1.05, LENGTHS, NONE) == ""
    assert count_difference(NONE, LENGTHS, NONE) == ""
    assert count_difference(LENGTHS, NONE, NONE) == ""
