"""LLMPerf's files both ways: what is written has its exact shape, and reading it back gives the same tables."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.main import main
from llm_users.record import RequestRecord, StageRecord
from tests.project import ROOT

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]

DATA = Path(os.environ.get("LLMPERF_DATA") or ROOT.parent / "shared" / "llmperf")
needs_data = pytest.mark.skipif(not (DATA / "published.csv").is_file(), reason=f"no LLMPerf data in {DATA}")

RESPONSES = """\
[
    {
        "error_code": null,
        "error_msg": "",
        "inter_token_latency_s": 0.02,
        "ttft_s": 0.25,
        "end_to_end_latency_s": 1.0,
        "request_output_throughput_token_per_s": 50.0,
        "number_total_tokens": 600,
        "number_output_tokens": 50,
        "number_input_tokens": 550
    },
    {
        "error_code": null,
        "error_msg": "",
        "inter_token_latency_s": 0.015,
        "ttft_s": 0.75,
        "end_to_end_latency_s": 4.0,
        "request_output_throughput_token_per_s": 25.0,
        "number_total_tokens": 652,
        "number_output_tokens": 100,
        "number_input_tokens": 552
    },
    {
        "error_code": 429,
        "error_msg": "slow down",
        "inter_token_latency_s": 0,
        "ttft_s": 0,
        "end_to_end_latency_s": 0,
        "request_output_throughput_token_per_s": 0,
        "number_total_tokens": 550,
        "number_output_tokens": 0,
        "number_input_tokens": 550
    }
]"""

# The figures in the order of LLMPerf: p25 to p99, mean, min, max, stddev.
FIGURES = {
    "inter_token_latency_s": [0.01625, 0.0175, 0.01875, 0.0195, 0.01975, 0.01995, 0.0175, 0.015, 0.02, 0.0035355339],
    "ttft_s": [0.375, 0.5, 0.625, 0.7, 0.725, 0.745, 0.5, 0.25, 0.75, 0.3535533906],
    "end_to_end_latency_s": [1.75, 2.5, 3.25, 3.7, 3.85, 3.97, 2.5, 1.0, 4.0, 2.1213203436],
    "request_output_throughput_token_per_s": [31.25, 37.5, 43.75, 47.5, 48.75, 49.75, 37.5, 25, 50, 17.6776695297],
    "number_input_tokens": [550.5, 551.0, 551.5, 551.8, 551.9, 551.98, 551.0, "550", "552", 1.4142135624],
    "number_output_tokens": [62.5, 75.0, 87.5, 95.0, 97.5, 99.5, 75.0, "50", "100", 35.3553390593],
}
LABELS = ["quantiles_p25", "quantiles_p50", "quantiles_p75", "quantiles_p90", "quantiles_p95", "quantiles_p99"]
LABELS += ["mean", "min", "max", "stddev"]

PRINTED = """\
\\Results for token benchmark for org/tiny-1.1B queried with the openai api.

inter_token_latency_s
    p25 = 0.01625
    p50 = 0.0175
    p75 = 0.01875
    p90 = 0.0195
    p95 = 0.01975
    p99 = 0.019950000000000002
    mean = 0.0175
    min = 0.015
    max = 0.02
    stddev = 0.0035355339059327385
ttft_s
    p25 = 0.375
    p50 = 0.5
    p75 = 0.625
    p90 = 0.7
    p95 = 0.725
    p99 = 0.745
    mean = 0.5
    min = 0.25
    max = 0.75
    stddev = 0.3535533905932738
end_to_end_latency_s
    p25 = 1.75
    p50 = 2.5
    p75 = 3.25
    p90 = 3.7
    p95 = 3.8499999999999996
    p99 = 3.9699999999999998
    mean = 2.5
    min = 1.0
    max = 4.0
    stddev = 2.1213203435596424
request_output_throughput_token_per_s
    p25 = 31.25
    p50 = 37.5
    p75 = 43.75
    p90 = 47.5
    p95 = 48.75
    p99 = 49.75
    mean = 37.5
    min = 25.0
    max = 50.0
    stddev = 17.67766952966369
number_input_tokens
    p25 = 550.5
    p50 = 551.0
    p75 = 551.5
    p90 = 551.8
    p95 = 551.9
    p99 = 551.98
    mean = 551.0
    min = 550
    max = 552
    stddev = 1.4142135623730951
number_output_tokens
    p25 = 62.5
    p50 = 75.0
    p75 = 87.5
    p90 = 95.0
    p95 = 97.5
    p99 = 99.5
    mean = 75.0
    min = 50
    max = 100
    stddev = 35.35533905932738
Number Of Errored Requests: 1
Error Code Frequency
{429: 1}
Overall Output Throughput: 30.0
Number Of Completed Requests: 2
Completed Requests Per Minute: 24.0
"""


def three(make: Make, **values: Any) -> list[RequestRecord]:
    """50 tokens in 1 s, 100 tokens in 4 s, and one that was throttled: 5 s from the first start to the last end."""
    common = {"model": "org/tiny-1.1B", "prompt_index": 1, "requested_output_tokens": 150, **values}
    return [
        make(1, ttft_s=0.25, **common),
        make(2, ttft_s=0.75, end_to_end_latency_s=4.0, last_token_s=1.5, output_tokens=100, input_tokens=552, **common),
        make(3, error_code="429", error_message="slow down", ttft_s=None, end_to_end_latency_s=None, last_token_s=None,
             output_tokens=None, **common),
        make(4, measured=0, phase="warmup", ttft_s=9.0, **common),
    ]  # fmt: skip


def mixed(make: Make, levels: tuple[int, ...], models: tuple[str, ...] = ("org/m",)) -> list[RequestRecord]:
    """A sweep of requests with seeded times; every tenth is throttled, buffered, aborted or refused a connection."""
    dice = random.Random(11)
    rows = []
    for stage, level in enumerate(levels, 1):
        for i in range(60):
            code = ("429", "buffered", "aborted", "connect")[i // 10 % 4] if i % 10 == 9 else None
            latency_s = dice.uniform(1, 9)
            times = {"ttft_s": dice.random(), "end_to_end_latency_s": latency_s, "last_token_s": latency_s}
            times |= {"connect_s": dice.random() / 10, "output_tokens": dice.randint(1, 500)}
            where = {"stage": stage, "concurrency": level, "model": models[i % len(models)]}
            rows.append(make(1000 * stage + i, error_code=code, **times, **where))
    return rows


def manifest(**options: Any) -> dict[str, Any]:
    return {"options": {"llm_input_tokens": "550,150", "llm_output_tokens": "150,80", **options}}


def cells(*inputs: Path, **options: Any) -> list[Any]:
    """Headers and cells; without the stage, which is the run in LLMPerf's files, where one load came twice."""
    found = []
    for table in llm_reports.tables(llm_reports.load_all(inputs), **options):
        kept = [place for place, name in enumerate(table.header) if name not in ("Run", "Stage")]
        found.append([[row[place] for place in kept] for row in (table.header, *table.cells)])
    return found


def read(path: Path) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_two_files_of_three_requests(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    about = manifest(llm_extra_body='{"temperature": 0, "a": {"b": [1]}, "none": {}}')
    prefix = write_run(
        three(make_record), manifest=about | {"metadata": {"gpu": "a100", "model": "no", "timestamp": 1}}
    )
    assert main([str(prefix), "--format", "json", "--out", str(tmp_path / "out")]) == 0
    name = "org-tiny-1-1B_550_150"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}_individual_responses.json", f"{name}_summary.json",
    }  # fmt: skip
    assert (tmp_path / "out" / f"{name}_individual_responses.json").read_text() == RESPONSES
    expected = {
        "version": "2023-08-31",
        "name": f"{name}_summary",
        "model": "org/tiny-1.1B",
        "mean_input_tokens": 550,
        "stddev_input_tokens": 150,
        "mean_output_tokens": 150,
        "stddev_output_tokens": 80,
        "num_concurrent_requests": 1,
        "additional_sampling_params_temperature": 0,
        "additional_sampling_params_a_b": [1],
        **{
            f"results_{metric}_{label}": value if isinstance(value, str) else pytest.approx(value)
            for metric, values in FIGURES.items()
            for label, value in zip(LABELS, values, strict=True)
        },
        "results_num_requests_started": 3,
        "results_error_rate": pytest.approx(1 / 3),
        "results_number_errors": 1,
        "results_error_code_frequency": "{429: 1}",
        "results_mean_output_throughput_token_per_s": 30.0,
        "results_num_completed_requests": 2,
        "results_num_completed_requests_per_min": 24.0,
        "framework": "vllm",
        "connect_time": "not included",
        "input_tokens_source": "unknown",
        "output_tokens_source": "usage",
        "gpu": "a100",
        "timestamp": 1_700_000_006,
    }
    summary = read(tmp_path / "out" / f"{name}_summary.json")
    assert summary == expected
    assert list(summary) == list(expected)


def test_the_print_out_of_three_requests(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_run(three(make_record))
    assert main([str(prefix), "--format", "llmperf"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(PRINTED + "\n- Throttled requests are excluded: 1 of 3, 429: 1.\n")
    assert "| Framework" not in printed
    assert Path(f"{prefix}_report/llmperf.txt").read_text() == printed
    assert main([str(prefix), "--format", "md,llmperf"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("## Summary\n")
    assert "\n## Time to First Token (seconds)\n" in printed
    assert printed.endswith("\n\n" + PRINTED)


def test_stages_are_told_apart_in_the_print_out(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write_run(mixed(make_record, (2, 8)))), "--format", "llmperf"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("---")] == ["--- concurrency 2 ---", "--- concurrency 8 ---"]
    assert sum(line.startswith("\\Results") for line in lines) == 2


@pytest.mark.parametrize("levels", [(4,), (1, 2, 16), (4, 1, 4)])
@pytest.mark.parametrize("count_connect", [False, True])
def test_reading_back_gives_the_same_tables(
    write_run: Write, make_record: Make, tmp_path: Path, levels: tuple[int, ...], count_connect: bool
) -> None:
    prefix = write_run(mixed(make_record, levels))
    llm_reports.report_run(prefix, out=tmp_path / "out", formats=["json"], count_connect=count_connect)
    assert cells(tmp_path / "out") == cells(prefix, count_connect=count_connect)
    # ... and once more, from foreign file to foreign file
    runs = llm_reports.load_all([tmp_path / "out"])
    llm_reports.report_runs(runs, out=tmp_path / "again", formats=["json"])
    assert cells(tmp_path / "again") == cells(tmp_path / "out")
    before, after = ([read(path) for path in sorted((tmp_path / name).iterdir())] for name in ("out", "again"))
    for old, new in zip(before, after, strict=True):
        if isinstance(old, dict):
            assert list(new) == list(old)
            del old["name"], new["name"]  # stages are no longer numbered
            assert new == pytest.approx(old)
        else:
            assert new == old


def test_what_became_of_requests_survives(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    stages = [StageRecord(1, 8, requests_measured=60, health="saturated")]
    prefix = write_run(mixed(make_record, (8,)), stages=stages)
    llm_reports.report_run(prefix, out=tmp_path / "out", formats=["json"])
    ours, theirs = (llm_reports.groups([llm_reports.load(path)])[0] for path in (prefix, tmp_path / "out"))
    assert (theirs.framework, theirs.model, theirs.concurrency) == ("vllm", "org/m", 8)
    assert theirs.health == "saturated"
    assert theirs.counts.errors == ours.counts.errors == (("connect", 1),)
    assert theirs.counts.throttles == ours.counts.throttles == (("429", 2),)
    assert (theirs.counts.aborted, theirs.counts.ok) == (1, 56)
    buffered = [each for each in read(next((tmp_path / "out").glob("*_resp*"))) if each["ttft_s"] is None]
    assert [(each["error_code"], each["end_to_end_latency_s"] > 0) for each in buffered] == [(None, True)] * 2


def test_names_stay_distinct(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    def names(*prefixes: Path) -> list[str]:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        llm_reports.report_runs(llm_reports.load_all(prefixes), out=folder, formats=["json"])
        return sorted(path.name.removesuffix("_summary.json") for path in folder.glob("*_summary.json"))

    one = write_run(mixed(make_record, (2, 16)), name="one")
    two = write_run(mixed(make_record, (2,)), name="two")
    base = names(two)[0]
    assert base.startswith("org-m_550_")
    lengths = base.removeprefix("org-m_")
    assert [name.partition("_stage")[2] for name in names(one)] == ["1_c2", "2_c16"]
    same = [make_record(i, model=model, stage=i) for model in ("a/b", "A.b", "c") for i in (1, 2)]
    assert names(write_run(same, name="same")) == [
        "A-b_550_50_stage1_1", "A-b_550_50_stage2_4", "a-b_550_50_stage1_2", "a-b_550_50_stage2_5",
        "c_550_50_stage1", "c_550_50_stage2",
    ]  # fmt: skip
    assert names(two, write_run(mixed(make_record, (2,)), name="three")) == [
        f"org-m_{lengths}_run1", f"org-m_{lengths}_run2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("about", "row", "lengths"),
    [
        (manifest(), {}, (550, 150, 150, 80)),
        (manifest(llm_input_tokens="100"), {}, (100, 0, 150, 80)),
        (manifest(llm_prompt="Why?"), {}, (551, 1, 150, 80)),
        (manifest(), {"prompt_index": None, "requested_output_tokens": None}, (551, 1, 75, 35)),
        (manifest(llm_input_tokens="odd"), {}, (551, 1, 150, 80)),
        ({}, {}, (551, 1, 75, 35)),
    ],
)
def test_lengths_are_those_asked_for_or_else_those_seen(
    write_run: Write, make_record: Make, tmp_path: Path, about: dict[str, Any], row: dict[str, Any], lengths: Any
) -> None:
    llm_reports.report_run(write_run(three(make_record, **row), manifest=about), out=tmp_path / "out", formats=["json"])
    path = next((tmp_path / "out").glob("*_summary.json"))
    assert tuple(read(path).values())[3:7] == lengths
    assert path.name == f"org-tiny-1-1B_{lengths[0]}_{lengths[2]}_summary.json"


def test_files_without_figures_are_still_json(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    rows = [make_record(1, error_code="connect", ttft_s=None, framework="", model="", input_tokens=None)]
    stages = [StageRecord(1, 1, requests_measured=1), StageRecord(2, 2)]
    prefix = write_run(rows, stages=stages)
    assert llm_reports.report_run(prefix, out=tmp_path / "out", formats=["json", "llmperf"]).exit_code == 1
    assert len(list((tmp_path / "out").glob("*.json"))) == 2  # none for the stage in which nothing was measured
    summary = read(tmp_path / "out" / "unknown_0_0_summary.json")
    assert summary["results_ttft_s_mean"] is None
    assert summary["results_error_code_frequency"] == "{'connect': 1}"
    assert "    p50 = nan\n" in (tmp_path / "out" / "llmperf.txt").read_text()
    group = llm_reports.groups([llm_reports.load(tmp_path / "out")])[0]
    assert (group.framework, group.model, group.counts.failed) == ("", "", 1)


def test_the_print_out_has_nan_only_where_llmperf_prints_it(
    write_run: Write, make_record: Make, tmp_path: Path
) -> None:
    """LLMPerf always knows its own values, and pandas gives NaN for the deviation of one value."""
    rows = [make_record(1, ttft_s=None, error_code="buffered", output_tokens=None, last_token_s=None)]
    llm_reports.report_run(write_run(rows), out=tmp_path / "out", formats=["llmperf"])
    text = (tmp_path / "out" / "llmperf.txt").read_text()
    assert "ttft_s\n    unknown\nend_to_end_latency_s\n    p25 = " in text
    assert set(re.findall(r".*nan.*", text)) == {"    stddev = nan"}


def test_requested_and_counted_input_lengths_are_both_in_the_summary(
    write_run: Write, make_record: Make, tmp_path: Path
) -> None:
    """The run asks for 550 tokens, and the server counts 560, with its chat template."""
    rows = [make_record(i, input_tokens=560, prompt_index=i) for i in range(3)]
    manifest = {"options": {"llm_input_tokens": "550,0", "llm_output_tokens": "150,0"}}
    llm_reports.report_run(write_run(rows, manifest=manifest), out=tmp_path / "out", formats=["json"])
    summary = read(next((tmp_path / "out").glob("*_summary.json")))
    assert (summary["mean_input_tokens"], summary["results_number_input_tokens_mean"]) == (550, 560.0)


@needs_data
@pytest.mark.parametrize("name", ["anyscale_7b", "lepton_70b", "perplexity_70b", "replicate_7b"])
def test_real_files_go_through_unchanged(name: str, tmp_path: Path) -> None:
    path = DATA / f"{name}_individual_responses.json"
    assert main([str(path), "--format", "json", "--out", str(tmp_path)]) == 0
    before, after = read(path), read(next(tmp_path.glob("*_individual_responses.json")))
    assert {tuple(each) for each in after} == {tuple(each) for each in before}
    # Its own throughput counted chunks; ours is the one of the published tables.
    for each in [*before, *after]:
        del each["request_output_throughput_token_per_s"]
    assert after == before
    assert [row[2:] for _, row in cells(tmp_path)] == [row[2:] for _, row in cells(path)]


def test_the_commands_of_the_page_run(
    write_run: Write, make_record: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "llmperf.md").read_text()
    section = page.split("## Files in both directions\n")[1]
    block = section.split("```sh\n")[1].split("```")[0]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    write_run(mixed(make_record, (1, 2)), name="out/run")
    monkeypatch.chdir(tmp_path)
    assert [main(command[1:]) for command in commands if command[0] == "llm-report"] == [0] * len(commands)
    written = {path.name for path in (tmp_path / "out" / "run_report").iterdir()}
    assert {"llmperf.txt", "report.md"} < written
    assert len(written) == 2 + 4
