"""Traces: three public shapes read or refused, and prompts as long as they say that share what they say."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llm_users.distributions import LENGTHS, Distribution
from llm_users.prompts import (
    Prefixes,
    PromptError,
    PromptSource,
    Tokenizer,
    Trace,
    TraceEntry,
    make_source,
    parse_window,
    read_trace,
)
from tests.unit.prompts.tokenizers import shared_tokens

BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,API log
118,GPT-4,417,0,417,Conversation log
120,GPT-4,20,3,23,API log
"""
BURSTGPT_SESSIONS = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5.5,,1.25,ChatGPT,472,18,490,Conversation log
7.5,17,2.5,GPT-4,30,4,34,Conversation log
"""
AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 23:59:59.500000+00:00,2162,5
2024-05-11 00:00:00.009930+00:00,2399,6
2024-05-11 00:00:02+00:00,76,0
"""


def line(timestamp: float, tokens: int = 600, hash_ids: Iterable[int] = (), **more: Any) -> str:
    entry = {"timestamp": timestamp, "input_length": tokens, "output_length": 7, "hash_ids": [*hash_ids], **more}
    return json.dumps(entry) + "\n"


def write(folder: Path, text: str, name: str = "trace") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def source(trace: Trace, tokenizer: Tokenizer, seed: int = 11111, **more: Any) -> PromptSource:
    lengths = Distribution.parse("550,150", LENGTHS)
    return make_source(
        tokenizer=tokenizer, input_lengths=lengths, output_lengths=lengths, seed=seed, trace=trace, **more
    )


def of_entries(*entries: tuple[int, Iterable[int]], block_tokens: int = 512) -> Trace:
    made = [TraceEntry(float(place), tokens, 9, tuple(ids)) for place, (tokens, ids) in enumerate(entries)]
    return Trace("made", "mooncake", made, block_tokens=block_tokens)


# Reading.


def test_mooncake(tmp_path: Path) -> None:
    text = line(0, 700, [4, 5]) + "\n" + line(1500, 30, [6], kind="chat") + '{"timestamp":3001,"input_length":5,'
    trace = read_trace(write(tmp_path, "\ufeff" + text + '"output_length":2}\n', "anything.csv"))
    assert trace.shape == "mooncake"
    assert trace.entries == [(0, 700, 7, (4, 5)), (1.5, 30, 7, (6,)), (3.001, 5, 2, ())]
    assert (trace.duration_s, trace.rate_per_s, trace.skipped) == (3.001, 0.666445, {})
    assert "3 requests in 3.001 s" in trace.describe()
    assert "times in milliseconds; 2 have hashes of blocks of 512 tokens" in trace.describe()


def test_burstgpt_without_failures(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, BURSTGPT, "anything.jsonl"))
    assert trace.shape == "burstgpt"
    assert trace.entries == [(0, 472, 18, ()), (40, 1087, 230, ()), (115, 20, 3, ())]
    assert trace.skipped == {"failed, no response tokens": 1}
    assert "1 rows skipped: failed, no response tokens" in trace.describe()
    sessions = read_trace(write(tmp_path, BURSTGPT_SESSIONS))
    assert sessions.entries == [(0, 472, 18, ()), (2, 30, 4, ())]


def test_azure_of_both_years(tmp_path: Path) -> None:
    old = read_trace(write(tmp_path, AZURE_2023))
    assert (old.shape, [entry[1:] for entry in old.entries]) == ("azure", [(374, 44, ()), (396, 109, ())])
    assert [entry.at_s for entry in old.entries] == pytest.approx([0, 4.314579], abs=2e-6)
    new = read_trace(write(tmp_path, AZURE_2024.replace("\n", "\r\n")))
    assert [entry.at_s for entry in new.entries] == pytest.approx([0, 0.50993], abs=2e-6)
    assert new.skipped == {"no output tokens": 1}


def test_vidur(tmp_path: Path) -> None:
    """``arrived_at`` has seconds: Vidur's request generators draw it from rates per second."""
    trace = read_trace(write(tmp_path, "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,300,40\n2.5,400,50\n"))
    assert trace.shape == "vidur"
    assert trace.entries == [(0, 300, 40, ()), (2.5, 400, 50, ())]
    assert (trace.unit, trace.guesses) == ("s", ())


# The unit of times. Mooncake's traces have milliseconds (27482, 30535, ...), Qwen-Bailian's (61.114) and GuideLLM's
# (0.5) have seconds.

GUIDELLM = [0, 0.5, 3600]


def of_times(folder: Path, *times: float) -> str:
    return write(folder, "".join(line(time, 128) for time in times))


def test_times_with_fractions_are_seconds(tmp_path: Path) -> None:
    trace = read_trace(of_times(tmp_path, *GUIDELLM))
    assert [entry.at_s for entry in trace.entries] == [0, 0.5, 3600]
    assert len(trace.guesses) == 1
    for words in ("read as seconds", "have fractions", "3 requests in 3600 s, 0.000555556 per second", "-unit ms"):
        assert words in trace.guesses[0]


def test_whole_times_are_milliseconds(tmp_path: Path) -> None:
    trace = read_trace(of_times(tmp_path, 27482, 30535, 31000))
    assert [entry.at_s for entry in trace.entries] == pytest.approx([0, 3.053, 3.518])
    assert "read as milliseconds, because all of them are whole numbers: 3 requests in 3.518 s" in trace.guesses[0]


def test_the_option_decides_and_nothing_need_be_said(tmp_path: Path) -> None:
    for times, unit, last_s in (
        (GUIDELLM, "ms", 3.6),
        (GUIDELLM, "s", 3600),
        ([0, 1, 2], "s", 2),
        ([0, 9], "ms", 0.009),
    ):
        trace = read_trace(of_times(tmp_path, *times), unit=unit)
        assert (trace.duration_s, trace.unit, trace.guesses) == (pytest.approx(last_s), unit, ())
    table = read_trace(write(tmp_path, BURSTGPT), unit="ms")
    assert table.duration_s == pytest.approx(0.115)
    with pytest.raises(PromptError, match=r"its times are dates, which have no unit. Omit --llm-trace-unit"):
        read_trace(write(tmp_path, AZURE_2023), unit="s")


@pytest.mark.parametrize(
    ("times", "readings"),
    [
        # Whole seconds: as milliseconds it would be a thousand requests per second.
        ([0, 1, 2], r"seconds \(2 s, 1 requests per second\) or milliseconds \(0.002 s, 1e\+03 requests"),
        # An hour in fractions of milliseconds, or 41 days.
        ([0, 1800000.5, 3600000], r"seconds \(3.6e\+06 s, .* or milliseconds \(3600 s, 0.000556 requests"),
    ],
)
def test_times_of_an_unclear_unit_are_refused_with_both_readings(
    tmp_path: Path, times: list[float], readings: str
) -> None:
    with pytest.raises(PromptError, match=f"its times could be {readings}.*Set --llm-trace-unit to s or ms"):
        read_trace(of_times(tmp_path, *times))


def test_times_of_a_clock_are_known_by_their_size(tmp_path: Path) -> None:
    for first, unit, last_s in ((1_700_000_000, "s", 60), (1_700_000_000_000, "ms", 0.06), (1.7e9 + 0.5, "s", 60)):
        trace = read_trace(of_times(tmp_path, first, first + 60))
        assert (trace.unit, trace.duration_s, trace.guesses) == (unit, pytest.approx(last_s), ())


def test_a_trace_with_larger_blocks_than_said_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(line(1000 * row, 4096, range(4)) for row in range(3)))
    (note,) = read_trace(path, unit="ms").guesses
    assert "its hashes stand for 50% of the input tokens with blocks of 512" in note
    assert read_trace(path, unit="ms", block_tokens=1024).guesses == ()


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_traces(tmp_path: Path, packed: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "trace.any"  # the content decides, not the name
    path.write_bytes(packed(BURSTGPT.encode()))
    assert read_trace(str(path)).entries == read_trace(write(tmp_path, BURSTGPT)).entries
    path.write_bytes(packed(BURSTGPT.encode())[:-9])
    with pytest.raises(PromptError, match=r"trace\.any': its compressed data is damaged or incomplete"):
        read_trace(str(path))


def test_times_are_sorted_and_those_of_the_same_stay_in_order(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, line(2000, 1) + line(1000, 2) + line(2000, 3) + line(500, 4)))
    assert [(entry.at_s, entry.input_tokens) for entry in trace.entries] == [(0, 4), (0.5, 2), (1.5, 1), (1.5, 3)]


def test_speed_and_window(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(line(7000 + 1000 * second, second + 1) for second in range(10)))
    fast = read_trace(path, speed=4)
    assert (fast.duration_s, fast.rate_per_s) == (2.25, 4)
    part = read_trace(path, speed=0.5, window=(2.5, 5))
    # In the trace's own time from its first row; the end is outside; the replay begins with the window.
    assert [(entry.at_s, entry.input_tokens) for entry in part.entries] == [(1, 4), (3, 5)]
    with pytest.raises(
        PromptError, match=r"there are no requests to replay; the trace is 9 s long.*--llm-trace-window"
    ):
        read_trace(path, window=(10, 20))
    with pytest.raises(PromptError, match=r"longer than a year.*--llm-trace-speed"):
        read_trace(path, speed=1e-9)


def test_all_at_once(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, line(3) * 5))
    assert (trace.duration_s, trace.rate_per_s, len(trace.entries)) == (0, 5, 5)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("0-600", (0, 600)),
        ("10m-20m", (600, 1200)),
        (" 1.5h - 7200s ", (5400, 7200)),
        ("30-1m", (30, 60)),
        ("500ms-1m30s", (0.5, 90)),
    ],
)
def test_windows(text: str, window: tuple[float, float]) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["", "10", "20-10", "5-5", "-5-10", "0-inf", "0-1d", "0-" + "9" * 400, "²-³"])
def test_no_windows(text: str) -> None:
    with pytest.raises(PromptError, match="write for example 0-600"):
        parse_window(text)


HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty.*Mooncake.*BurstGPT.*Azure.*Vidur"),
        ("\ufeff\n \n", "is empty"),
        ("num_prefill_tokens,num_decode_tokens\n3,4\n", "has an unknown format.*arrived_at, num_prefill_tokens"),
        ("[1, 2]", "has an unknown format"),
        ("prompt,tokens\na,1\n", "has an unknown format"),
        (HEAD, "has no rows"),
        (line(0) + '{"timestamp": 1}\n', "line 2: not a Mooncake trace entry.*input_length"),
        (line(0) + "{oops\n", "line 2: not a Mooncake trace entry"),
        (line(0, tokens=-1), "line 1: time 0, input -1 tokens.*are out of range"),
        (line(0, tokens=10**8), "line 1: .*are out of range"),
        (line(-1), "line 1: .*are out of range"),
        (line(0) + line(float("nan")), "line 2"),
        (line(0).replace("0,", "1e999,", 1), "line 1"),
        (line(0, output_length="7"), "line 1: .*output_length"),
        (line(0, hash_ids=["a"]), "line 1: .*hash_ids"),
        (line(0, 600, range(40)), "40 hash_ids for 600 tokens.* 2 are expected.*--llm-trace-block-size TOKENS"),
        (line(0, 600, range(38)), "38 hash_ids for 600 tokens.*--llm-trace-block-size 16"),
        (line(1753780607550317897), "line 1: .*seconds or milliseconds since 1970"),
        (HEAD + "2023-11-16 18:15:46,374,44\n\nyesterday,1,1\n", "line 4: TIMESTAMP 'yesterday'.*whole numbers"),
        (HEAD + "2023-11-16 18:15:46,374\n", "line 2: 2 cells.* 3 columns"),
        (HEAD + "2023-11-16 18:15:46,1_0,4\n", "line 2: .*ContextTokens '1_0'"),
        (HEAD + "1923-11-16 18:15:46,1,4\n", "line 2: .*since 1970"),
        (BURSTGPT + "inf,ChatGPT,1,1,2,API log\n", "line 6: time inf,"),
        (BURSTGPT + "nan,ChatGPT,1,1,2,API log\n", "line 6: time nan,"),
        (BURSTGPT + "-3,ChatGPT,1,1,2,API log\n", "line 6: time -3,"),
        (BURSTGPT + "3,ChatGPT,-1,1,2,API log\n", "line 6: .*Request tokens '-1'"),
        (HEAD + "2023-11-16 18:15:46,0,0\n", r"there are no requests to replay \(1 no output tokens\)"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PromptError, match=f"(?s)trace .*{Path(path).name}.*{said}"):
        read_trace(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "none"), "a\0b", "~nobody-of-that-name/x"):
        with pytest.raises(PromptError, match=r"cannot be read.*[Cc]heck the path"):
            read_trace(name)
    for content, said in (("\ufeff" + BURSTGPT).encode("utf-16-be"), "UTF-16"), (b"\x28\xb5\x2f\xfd..", "Zstandard"), (
        b"\x80\x00\xff\n", "the first line is not UTF-8 text",
    ):  # fmt: skip
        path = tmp_path / "foreign"
        path.write_bytes(content)
        with pytest.raises(PromptError, match=said):
            read_trace(str(path))
    path = tmp_path / "latin"
    path.write_bytes(BURSTGPT.encode() + b"5,\xe9,1,1,2,API log\n")
    with pytest.raises(PromptError, match="not UTF-8"):
        read_trace(str(path))


def test_many_rows_take_seconds(tmp_path: Path) -> None:
    mooncake = write(tmp_path, "".join(line(10 * row, 3000, range(row, row + 6)) for row in range(20_000)))
    azure = HEAD + "".join(f"2024-05-10 00:00:00.{row:06d}+00:00,374,44\n" for row in range(20_000))
    for path in (mooncake, write(tmp_path, azure, "azure")):
        began = time.process_time()
        assert len(read_trace(path).entries) == 20_000
        assert time.process_time() - began < 1.5  # 0.15 s; a million within some seconds


# Prompts.


def test_exact_for_every_kind_of_tokenizer(tokenizer: Tokenizer) -> None:
    lengths = [*range(1, 40), 511, 512, 513, 524, 1023, 1024, 1025, 1300, 2600]
    hashed = of_entries(*((tokens, range(-(-tokens // 512))) for tokens in lengths))
    short_lists = of_entries(*((tokens, [7]) for tokens in lengths if tokens > 512))
    bare = of_entries(*((tokens, ()) for tokens in lengths))
    for trace in (hashed, short_lists, bare):
        prompts = source(trace, tokenizer)
        for index, entry in enumerate(trace.entries):
            prompt = prompts.prompt(index)
            assert prompt.text
            assert prompt.text[-1] not in " \n"
            assert tokenizer.count(prompt.text) == prompt.input_tokens == entry.input_tokens
            assert (prompt.index, prompt.max_tokens) == (index, 9)


def test_the_same_hashes_are_the_same_text(tokenizer: Tokenizer) -> None:
    trace = of_entries(
        (2500, [1, 2, 3, 4, 5]), (2200, [1, 2, 3, 8, 9]), (2200, [1, 2, 3, 8, 9]), (1100, [1, 7, 3]), (900, [6, 2])
    )
    texts = [source(trace, tokenizer).prompt(index).text for index in range(len(trace.entries))]
    # A block's own beginning: twelve digits and a line break. Where hashes differ it does, within a few tokens.
    for first, second, blocks in ((0, 1, 3), (0, 3, 1), (1, 3, 1), (0, 4, 0), (3, 4, 0)):
        shared = shared_tokens(tokenizer, texts[first], texts[second])
        assert 0.97 * 512 * blocks <= shared <= 512 * blocks + 6, (first, second, shared)
    assert texts[1] == texts[2]  # an identical request, its last and shorter block included


@pytest.mark.parametrize("block", [8, 16, 64])
def test_blocks_of_another_size_are_shared_to_the_token(tokenizer: Tokenizer, block: int) -> None:
    """m equal hashes at the beginning are m * block equal tokens, by the meaning of a hash."""
    trace = of_entries(
        (12 * block, range(12)), (10 * block, [*range(7), 20, 21, 22]), (3 * block, [0, 9, 8]), block_tokens=block
    )
    texts = [source(trace, tokenizer).prompt(index).text or "" for index in range(3)]
    assert [tokenizer.count(text) for text in texts] == [12 * block, 10 * block, 3 * block]
    for first, second, blocks in ((0, 1, 7), (0, 2, 1), (1, 2, 1)):
        # One more: the beginning of a text may cut a token that is not shared.
        assert block * blocks <= shared_tokens(tokenizer, texts[first], texts[second]) <= block * blocks + 1


def test_without_hashes_nothing_is_shared(default_tokenizer: Tokenizer) -> None:
    trace = of_entries(*[(600, ())] * 30)
    texts = [source(trace, default_tokenizer).prompt(index).text for index in range(30)]
    for index, text in enumerate(texts[1:]):
        assert shared_tokens(default_tokenizer, texts[index], text) <= 3
    # The same behind blocks: what has no hash is the entry's own.
    behind = of_entries((1500, [3]), (1500, [3]))
    one, two = (source(behind, default_tokenizer).prompt(index).text for index in range(2))
    assert 500 <= shared_tokens(default_tokenizer, one, two) <= 515


def test_blocks_of_two_runs_differ_and_are_as_long(default_tokenizer: Tokenizer) -> None:
    trace = of_entries((1300, [1, 2, 3]), (1400, [1, 2, 4]), (700, [5, 6]), (700, ()))
    one, two = (
        [source(trace, default_tokenizer, run_key=key).prompt(index) for index in range(4)] for key in ("one", "two")
    )
    assert [prompt.input_tokens for prompt in one] == [prompt.input_tokens for prompt in two] == [1300, 1400, 700, 700]
    for prompts in (one, two):
        assert shared_tokens(default_tokenizer, prompts[0].text, prompts[1].text) >= 0.97 * 1024
    assert max(shared_tokens(default_tokenizer, a.text, b.text) for a in one for b in two) <= 3


def test_the_same_in_every_process_order_and_thread(default_tokenizer: Tokenizer) -> None:
    entries = [(300 + 97 * place, range(place % 3, place % 3 + 1 + (299 + 97 * place) // 512)) for place in range(16)]
    trace = of_entries(*entries)
    forwards = [source(trace, default_tokenizer).prompt(index) for index in range(16)]
    again = source(trace, default_tokenizer)
    assert [again.prompt(index) for index in reversed(range(16))] == forwards[::-1]
    shared = source(trace, default_tokenizer)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(shared.prompt, range(16))) == forwards
    assert source(trace, default_tokenizer, seed=5).prompt(0).text != forwards[0].text
    assert again.prompt(16).text  # whoever asks beyond the trace begins again
    assert (again.prompt(16).index, again.prompt(16).input_tokens) == (16, 300)


def test_a_hundred_thousand_tokens(default_tokenizer: Tokenizer) -> None:
    trace = of_entries((100_000, range(196)))
    prompts = source(trace, default_tokenizer)
    began = time.process_time()
    text = prompts.prompt(0).text or ""
    spent_s = time.process_time() - began
    began = time.process_time()
    assert default_tokenizer.count(text) == 100_000
    counting_s = time.process_time() - began
    assert spent_s < 12 * counting_s  # 4 to 5: each block is counted as it is made, the whole once or twice


def test_a_head_against_caches_is_part_of_the_length(default_tokenizer: Tokenizer) -> None:
    trace = of_entries((1100, [1, 2, 3]), (1100, [1, 2, 3]), (3, [4]))
    prompts = source(trace, default_tokenizer, cache_bust="run")
    texts = [prompts.prompt(index).text or "" for index in range(3)]
    assert [default_tokenizer.count(text) for text in texts] == [1100, 1100, 3]
    assert shared_tokens(default_tokenizer, texts[0], texts[1]) <= 3


def test_what_excludes_a_trace(default_tokenizer: Tokenizer) -> None:
    trace = of_entries((10, ()))
    with pytest.raises(PromptError, match="set only one of a fixed prompt, a prompts file and a trace"):
        source(trace, default_tokenizer, text="x")
    with pytest.raises(PromptError, match="a trace defines the shared prefixes of its prompts"):
        source(trace, default_tokenizer, prefixes=Prefixes(10))
    lengths = Distribution.parse("5", LENGTHS)
    with pytest.raises(PromptError, match="need a tokenizer"):
        make_source(tokenizer=None, input_lengths=lengths, output_lengths=lengths, seed=1, trace=trace)
