"""Values that no measurement can give are named with their file and line, and left out; their rows still count."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.main import main
from llm_users.record import RequestRecord, StageRecord
from llm_users.run_files import GAPS_CSV, path_of

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]
FORMATS = "md,csv,json,llmperf,html,summary,svg"


def test_a_claim_of_the_server_is_no_measurement(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage that cannot be true is in a column beside the local count, which the figures come from."""
    claims = {"output_tokens_source": "tokenizer", "output_tokens_usage": 10**12}
    prefix = write_run([make_record(i, **claims) for i in range(40)])
    assert main([str(prefix), "--format", FORMATS]) == 0
    assert "impossible" not in capsys.readouterr().err
    report = (prefix.parent / f"{prefix.name}_report" / "report.md").read_text()
    assert "Output tokens were counted by the local tokenizer" in report
    assert "e+1" not in report


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ({"ttft_s": -3.0}, "ttft_s -3"),
        ({"ttft_s": 0.0}, "ttft_s 0"),
        ({"ttft_s": 1e300}, "ttft_s 1e+300"),
        ({"end_to_end_latency_s": -1.0}, "end_to_end_latency_s -1"),
        ({"end_to_end_latency_s": 0.0}, "end_to_end_latency_s 0"),
        ({"end_to_end_latency_s": 1e300}, "end_to_end_latency_s 1e+300"),
        ({"ttft_s": 1.5, "end_to_end_latency_s": 1.0}, "end_to_end_latency_s 1"),
        ({"tpot_s": -0.5}, "tpot_s -0.5"),
        ({"output_tokens": -7}, "output_tokens -7"),
        ({"output_tokens": 10**12}, "output_tokens 1e+12"),
        ({"input_tokens": 1e300}, "input_tokens 1e+300"),
        ({"window_tokens": -1e300}, "window_tokens -1e+300"),
        ({"connect_s": -0.2}, "connect_s -0.2"),
        ({"started_at": 1_700_000_000_000.0}, "started_at 1.7e+12"),
        ({"started_at": 1_900_000_000.0}, "started_at 1.9e+09"),  # six years after the others
        ({"started_at": -5.0}, "started_at -5"),
    ],
)
def test_it_is_named_and_left_out(
    write_run: Write, make_record: Make, values: dict[str, Any], column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [make_record(i, input_tokens=500 + i) for i in range(40)]
    prefix = write_run([*good[:5], make_record(5, error_message="two\nlines"), make_record(40, **values), *good[6:]])
    assert main([str(prefix), "--format", FORMATS, "--slo", "ttft_p95<1,e2e_p95<3,tpot_p50<1"]) == 3
    printed = capsys.readouterr()
    # The header is line 1, and the message of the row on line 7 goes on in line 8.
    assert f"{prefix}_llm_requests.csv: impossible values were removed" in printed.err
    assert f"line 9: {column} (" in printed.err
    assert "impossible values were removed" in printed.out
    run = llm_reports.load(prefix)
    (group,) = llm_reports.groups([run])
    assert group.counts.ok == 41  # the request succeeded, whatever its times were
    for table in llm_reports.tables([run]):
        figures = table.rows[0].figures
        assert (figures.min, figures.max) == ((0.1, 0.1) if table.metric == "ttft_s" else (50.0, 50.0))
    point = llm_reports.stage_points([group])[0]
    assert 0 < point.tokens_per_s < 60
    assert 0.5 < point.requests_per_s < 1.5


def test_a_value_is_left_out_with_what_was_computed_from_it(write_run: Write, make_record: Make) -> None:
    run = llm_reports.load(write_run([make_record(1), make_record(2, ttft_s=-1.0), make_record(3, output_tokens=-1)]))
    rows = run.requests
    assert rows["tpot_s"].isna().tolist() == [False, True, True]
    assert rows["ttft_s"].isna().tolist() == [False, True, False]
    assert rows["end_to_end_latency_s"].isna().sum() == 0


def test_failed_rows_still_count_as_failed(write_run: Write, make_record: Make) -> None:
    broken = {"error_code": "timeout", "ttft_s": -1.0, "end_to_end_latency_s": 1e300}
    (group,) = llm_reports.groups([llm_reports.load(write_run([make_record(1), make_record(2, **broken)]))])
    assert (group.counts.ok, group.counts.failed) == (1, 1)
    assert math.isnan(group.measured["end_to_end_latency_s"].iloc[1])


def test_only_the_first_ten_are_named(write_run: Write, make_record: Make) -> None:
    run = llm_reports.load(write_run([make_record(i, ttft_s=-1.0 - i) for i in range(25)]))
    (warning,) = run.warnings
    assert "line 11: ttft_s -10 " in warning
    assert "line 12" not in warning
    assert "and 15 more" in warning


def test_stages_and_gaps(write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    stages = [StageRecord(1, 1, measure_s=-4.0, requests_measured=3, window_tokens=1e300, health="ok")]
    prefix = write_run([make_record(i) for i in range(3)], stages=stages, gaps_s={1: [0.01, 0.02]})
    gaps = path_of(prefix, GAPS_CSV)
    gaps.write_text(gaps.read_text() + "1,900000,0,0,5,\n1,-7,0,0,5,\n1,3,0,0,-5,\n")
    assert main([str(prefix), "--format", FORMATS]) == 0
    error = capsys.readouterr().err
    assert "stages.csv: impossible values were removed" in error
    assert "line 2: measure_s -4" in error
    assert "line 2: window_tokens 1e+300" in error
    assert "line 4: bucket 900000" in error.replace("9e+05", "900000")
    assert "line 5: bucket -7" in error
    assert "line 6: count -5" in error
    assert llm_reports.load(prefix).gaps[1][""].total == 2


def responses(tmp_path: Path, *entries: dict[str, Any]) -> Path:
    usual = {
        "error_code": None, "error_msg": "", "inter_token_latency_s": 0.02, "ttft_s": 0.2, "end_to_end_latency_s": 1.2,
        "request_output_throughput_token_per_s": 40, "number_total_tokens": 150, "number_output_tokens": 50,
        "number_input_tokens": 100,
    }  # fmt: skip
    path = tmp_path / "vllm_tiny_individual_responses.json"
    path.write_text(json.dumps([usual | entry for entry in entries], indent=1))
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"ttft_s": -1},
        {"ttft_s": 1e300},
        {"ttft_s": 3.0},
        {"end_to_end_latency_s": -1},
        {"number_output_tokens": -50},
        {"number_output_tokens": 1e300},
        {"inter_token_latency_s": -1},
    ],
)
def test_llmperf_entries(tmp_path: Path, entry: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    path = responses(tmp_path, {}, {}, entry, {})
    assert main([str(path), "--format", FORMATS, "--out", str(tmp_path / "out")]) == 0
    assert "vllm_tiny_individual_responses.json: impossible values were removed" in capsys.readouterr().err
    run = llm_reports.load(path)
    # With indentation an entry takes eleven lines, the first one begins on line 2.
    assert "entry 3 (line 24): " in run.warnings[0]
    ttft, throughput = llm_reports.tables([run])
    assert (ttft.rows[0].figures.min, ttft.rows[0].figures.max) == (0.2, 0.2)
    assert throughput.rows[0].figures.min == pytest.approx(50 / 1.2)


def test_a_ttft_of_0_is_never_the_minimum(tmp_path: Path, write_run: Write, make_record: Make) -> None:
    """LLMPerf writes 0 for an error, and for an answer of which no token came."""
    nothing = {"ttft_s": 0, "number_output_tokens": 0}
    path = responses(tmp_path, {}, {}, nothing, {**nothing, "error_code": 500, "end_to_end_latency_s": 0})
    run = llm_reports.load(path)
    assert llm_reports.tables([run])[0].rows[0].figures.min == 0.2
    assert "entry 3" in run.warnings[0]
    assert "entry 4" not in run.warnings[0]  # the 0 of an error is no fault
    assert run.requests["ttft_s"].isna().tolist() == [False, False, True, True]
