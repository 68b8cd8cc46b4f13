"""What people and files say: options, specs, objectives, price lists and rows are read, or refused with a reason."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_reports.errors import InputError
from llm_reports.input.loader import load
from llm_reports.input.rows import read_gaps, read_requests, read_stages
from llm_reports.slo.objectives import parse_objectives
from llm_users.collect.files import RunFiles
from llm_users.distributions import (
    ARRIVAL_GAPS,
    LENGTHS,
    THINK_TIMES,
    TURNS,
    Distribution,
    DistributionError,
    Quantity,
)
from llm_users.number_words import LONGEST_DURATION_S, DurationError, duration_text, parse_duration
from llm_users.options.command_line import read_options
from llm_users.options.parsers import OptionError
from llm_users.options.table import OPTIONS
from llm_users.prices import PriceError, Prices
from llm_users.prompts import PromptError, read_trace
from llm_users.record import REQUEST_COLUMNS, RequestRecord, StageRecord
from llm_users.simulator.spec import Spec
from tests.unit.fuzz.budget import fuzzed

PIECES = st.sampled_from(
    [
        "1",
        "0",
        "-1",
        "2",
        "10s",
        "5ms",
        "1h",
        ",",
        "=",
        ":",
        "+",
        "@",
        "<",
        ">",
        ".",
        "e9",
        "nan",
        "inf",
        "9" * 400,
        "²",
        "٣",
        "{}",
        "{",
        "[",
        '"a"',
        "null",
        "all",
        "best",
        "ttft_p95",
        "errors",
        "mismatches",
        "%",
        " ",
        "\n",
        "\x00",
        "\ud800",
        "é",
        "/",
        "..",
        "/etc/passwd",
        "x" * 300,
        "on",
        "off",
        "reset",
        "stall",
        "429",
        "[" * 20_000,
    ]
)
TEXTS = st.lists(PIECES, max_size=5).map("".join) | st.text(max_size=10)


@fuzzed(700)
@given(st.sampled_from([option.dest for option in OPTIONS]), TEXTS)
@example("llm_extra_body", "[" * 20_000)
@example("llm_prompts", "x" * 300)
@example("llm_requests", "²")
@example("llm_timeout", "9" * 400)
def test_an_option_is_read_or_refused_with_its_name(dest: str, text: str) -> None:
    flag = next(option.flag for option in OPTIONS if option.dest == dest)
    try:
        options = read_options(argparse.Namespace(**{dest: text}))
    except OptionError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert flag in said or "exclude" in said or "needs to know" in said
        assert "invalid literal" not in said  # Python's words, not ours
        return
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        assert not isinstance(value, float) or math.isfinite(value), field.name


@fuzzed(500)
@given(TEXTS)
@example("9" * 400 + "h")
@example("." * 20_000)
@example("9" * 20_000)
def test_a_duration_is_read_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except DurationError:
        return
    assert 0 <= seconds <= LONGEST_DURATION_S
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=1e-11, abs=1e-300)


NAMES = st.sampled_from(["normal:", "lognormal:", "uniform:", "exp:", "fixed:", "gamma:", "poisson", "constant"])


@fuzzed(500)
@given(st.sampled_from([LENGTHS, TURNS, THINK_TIMES, ARRIVAL_GAPS]), st.builds(str.__add__, NAMES, TEXTS) | TEXTS)
@example(LENGTHS, "lognormal:1,1e200")
@example(THINK_TIMES, "lognormal:1e-300,1")
@example(LENGTHS, "fixed:" + "9" * 400)
def test_a_distribution_is_read_or_refused(of: Quantity[Any], text: str) -> None:
    said = ""
    try:
        distribution = Distribution.parse(text, of)
    except DistributionError as error:
        said = str(error)
    if said:
        assert of.forms in said
        return
    assert Distribution.parse(str(distribution), of) == distribution
    assert of.least <= distribution.mean < math.inf
    assert of.least <= distribution.draw(Random(1)) < math.inf


KEYS = st.sampled_from([field.metadata["key"] for field in dataclasses.fields(Spec)])


@fuzzed(500)
@given(st.lists(st.tuples(KEYS | TEXTS, TEXTS), max_size=3))
def test_a_spec_is_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    with contextlib.suppress(ValueError):
        spec = Spec.parse(",".join("=".join(pair) for pair in pairs))
        again = Spec.parse(str(spec))
        for field in dataclasses.fields(Spec):
            value = getattr(spec, field.name)
            if not isinstance(value, tuple):
                assert getattr(again, field.name) == (pytest.approx(value) if isinstance(value, float) else value)


@fuzzed(300)
@given(TEXTS)
@example("ttft_p95<9e999")
def test_an_objective_is_read_or_refused(text: str) -> None:
    try:
        objectives = parse_objectives(text)
    except InputError:
        return
    assert all(math.isfinite(each.limit) for each in objectives.all)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["models", "currency", "m", "input", "output", "cache_read", "gpu_hour"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@fuzzed(200)
@given(JSON.map(json.dumps) | TEXTS)
@example("[" * 20_000)
def test_a_price_list_is_read_or_refused(text: str) -> None:
    for name in ("prices.json", "prices.toml"):
        with contextlib.suppress(PriceError):
            Prices.parse(text, name)


# Files of rows.

NUMBERS = st.none() | st.floats(-1e6, 1e12, allow_nan=False)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["=1+1", "'=x", "'", "-", "@a", "\t", "a\rb", "a\nb", "\r\n", '"', 'a","b', "\x00", "\ufeff", "None", "nan"]
)


@st.composite
def records(draw: st.DrawFn) -> RequestRecord:
    values: dict[str, Any] = {}
    for column in REQUEST_COLUMNS:
        if column.type is str:
            values[column.name] = draw(ANY_TEXT)
        elif column.type is int:
            values[column.name] = draw(st.integers(0, 2**40))
        elif draw(st.booleans()):
            values[column.name] = draw(NUMBERS)
    return RequestRecord(**values)


POSSIBLE = RequestRecord(
    measured=1, window_tokens=3.5, started_at=1.7e9, queue_s=0.001, connect_s=0.0, ttft_s=0.25, ttfat_s=0.25,
    end_to_end_latency_s=1.5, last_token_s=1.25, tpot_s=0.01, chunks=100, reads=100, output_tokens=101, input_tokens=7,
    http_status=200, rate_per_s=12.5, window_share=0.5,
)  # fmt: skip


def test_possible_rows_lose_nothing(tmp_path: Path) -> None:
    files = RunFiles(str(tmp_path / "run"), offsets=False)
    files.write_request(POSSIBLE.row())
    files.close()
    frame, warnings = read_requests(tmp_path / "run_llm_requests.csv")
    assert warnings == ()
    for column in REQUEST_COLUMNS:
        value = getattr(POSSIBLE, column.name)
        if column.type is not str and value is not None:
            assert frame[column.name].iloc[0] == pytest.approx(value, rel=1e-8), column.name


@fuzzed(60)
@given(st.lists(records(), min_size=1, max_size=3))
@example([RequestRecord(finish_reason="a\rb", response_id="\r"), RequestRecord(model="\x00")])
def test_rows_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[RequestRecord]
) -> None:
    prefix = tmp_path_factory.getbasetemp() / "round" / "run"
    prefix.parent.mkdir(exist_ok=True)
    files = RunFiles(str(prefix), offsets=False)
    for row in rows:
        files.write_request(row.row())
    files.close()
    frame, warnings = read_requests(Path(f"{prefix}_llm_requests.csv"))
    assert len(frame) == len(rows)
    for place, row in enumerate(rows):
        for column in REQUEST_COLUMNS:
            given_value, found = getattr(row, column.name), frame[column.name].iloc[place]
            if column.type is str:
                assert found == (given_value or "").replace("\r", " "), column.name
            elif given_value is None:
                assert str(found) in ("nan", "<NA>")
            elif str(found) in ("nan", "<NA>"):  # an impossible value, such as a negative time: left out and named
                assert warnings, column.name
                assert "impossible values were removed" in warnings[0]
            else:
                assert found == pytest.approx(given_value, rel=1e-8), column.name


FILES = st.lists(
    st.sampled_from(
        [
            b",".join(c.name.encode() for c in REQUEST_COLUMNS) + b"\n",
            b"measured,error_code,ttft_s,end_to_end_latency_s,output_tokens\n",
            b"1,,0.2,1.0,5\n",
            b"1,500,,,\n",
            b"stage,bucket,count\n",
            b"1,5,3\n",
            b"1,99999999,1\n",
            b"1,1e308,1\n",
            b"stage,concurrency\n",
            b"1,-5,nan\n",
            b"stage,stage\n",
            b"nan,inf,1e999,-1,\n",
            b'"',
            b'""',
            b",",
            b"\r",
            b"\n",
            b"\x00",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"1",
            b"9" * 400,
            b"x" * 500,
            b"'=1\n",
        ]
    )
    | st.binary(max_size=8),
    max_size=10,
).map(b"".join)


@fuzzed(250)
@given(FILES)
def test_a_file_of_rows_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any_llm_requests.csv"
    path.write_bytes(data)
    for read in (read_requests, read_stages, read_gaps):
        with contextlib.suppress(InputError):
            read(path)


@fuzzed(40)
@given(FILES, FILES, FILES, JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30))
def test_a_run_of_any_files_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, requests: bytes, stages: bytes, gaps: bytes, manifest: bytes
) -> None:
    prefix = tmp_path_factory.getbasetemp() / "all"
    for suffix, data in (
        ("requests.csv", requests),
        ("stages.csv", stages),
        ("gaps.csv", gaps),
        ("run.json", manifest),
    ):
        Path(f"{prefix}_llm_{suffix}").write_bytes(data)
    with contextlib.suppress(InputError):
        load(prefix)


TRACES = st.lists(
    st.sampled_from(
        [
            b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n",
            b"5,ChatGPT,472,18,490,Conversation log\n",
            b"TIMESTAMP,ContextTokens,GeneratedTokens\n",
            b"2023-11-16 18:15:46.6805900,374,44\n",
            b"0001-01-01 00:00:00+23:59,1,1\n",
            b'{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n',
            b'{"timestamp": 1e308, "input_length": 600, "output_length": 5}\n',
            b'{"timestamp": ',
            b'"hash_ids": [',
            b"1e999",
            b"nan",
            b"-1",
            b"0",
            b"9" * 400,
            b"[" * 5000,
            b"{",
            b"}",
            b'"',
            b",",
            b"\n",
            b"\r",
            b"\x00",
            b"\xff",
            b"\xef\xbb\xbf",
        ]
    )
    | st.binary(max_size=8),
    max_size=8,
).map(b"".join)


@fuzzed(400)
@given(TRACES, st.sampled_from([None, (0.0, 5.0), (3.0, 1e9)]))
def test_a_trace_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, window: tuple[float, float] | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_trace"
    path.write_bytes(data)
    try:
        trace = read_trace(str(path), window=window, speed=3)
    except PromptError:
        return
    times = [entry.at_s for entry in trace.entries]
    assert times == sorted(times)
    assert all(0 <= at_s < math.inf for at_s in times)
    assert all(entry.input_tokens > 0 < entry.output_tokens for entry in trace.entries)
    assert 0 < trace.rate_per_s < math.inf
    assert trace.describe()


def test_the_reader_knows_every_stage_column(tmp_path: Path) -> None:
    files = RunFiles(str(tmp_path / "run"), offsets=False)
    files.write_stage(StageRecord(stage=1, health="o\rk"))
    files.close()
    frame, warnings = read_stages(tmp_path / "run_llm_stages.csv")
    assert (len(frame), warnings, frame["health"].iloc[0]) == (1, (), "o k")
