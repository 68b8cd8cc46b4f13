"""A run's own files in: which rows count, what the tables, the notes and the files say."""

from __future__ import annotations

import csv
import io
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.main import main
from llm_users.record import RequestRecord, StageRecord
from llm_users.run_files import REPORT_FOLDER, path_of

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]

SUMMARY = """\
## Summary

                   requests       system   TTFT   TPOT  Gap   E2E
users          ok  fail  per s  tokens/s      s     ms   ms     s  client
    1  median   5     0  0.417     41.67  0.300  18.00    -  4.00  -
       P95                                0.880  18.00    -  7.60

"""
WIDE_SUMMARY = """\
## Summary

| Users | Requests ok | Requests failed | Requests/s | System, output tokens/s | TTFT median (s) | TTFT P95 (s) |
"""
GOLDEN = """\
## Time to First Token (seconds)

| Framework | Model | Median |  Mean |   Min |  Max |   P25 |   P75 |   P95 |   P99 |
| --------- | ----- | -----: | ----: | ----: | ---: | ----: | ----: | ----: | ----: |
| vllm      | tiny  |  0.300 | 0.400 | 0.100 | 1.00 | 0.200 | 0.400 | 0.880 | 0.976 |

- P99 of fewer than 100 values is not reliable: 5 values.
- P95 of fewer than 20 values is not reliable: 5 values.
- A 95 % interval of a P99 requires at least 368 values (72 for a P95); for a
  stable percentile, measure at least this number of requests per stage: 5
  values.

## Output Tokens Throughput (tokens/s)

Figures are per request; the summary above contains the rate of the whole system.

| Framework | Model | Median |  Mean |   Min |   Max |   P25 |   P75 |   P95 |   P99 |
| --------- | ----- | -----: | ----: | ----: | ----: | ----: | ----: | ----: | ----: |
| vllm      | tiny  |  25.00 | 27.50 | 12.50 | 50.00 | 16.67 | 33.33 | 46.67 | 49.33 |

- See the notes above.
"""


def five(make: Make) -> list[RequestRecord]:
    # 100 tokens in 2, 3, 4, 6 and 8 s: 50, 33.3, 25, 16.7 and 12.5 tokens/s
    times = zip([0.1, 0.2, 0.3, 0.4, 1.0], [2.0, 3.0, 4.0, 6.0, 8.0], strict=True)
    return [make(i, ttft_s=t, end_to_end_latency_s=e, output_tokens=100) for i, (t, e) in enumerate(times)]


def sweep(make: Make, levels: tuple[int, ...] = (1, 2, 4), requests: int = 30) -> list[RequestRecord]:
    dice = random.Random(7)
    return [
        make(1000 * stage + i, stage=stage, concurrency=level, ttft_s=dice.random(), last_token_s=dice.random() + 1)
        for stage, level in enumerate(levels, 1)
        for i in range(requests)
    ]


def test_the_tables_of_five_requests(write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = write_run(five(make_record))
    assert main([str(prefix)]) == 0
    printed = capsys.readouterr()
    assert printed.out == SUMMARY + GOLDEN
    report = Path(f"{prefix}_report/report.md")
    assert f"wrote {report}" in printed.err
    assert GOLDEN in report.read_text()
    assert WIDE_SUMMARY.rstrip() in report.read_text()
    assert "started 2023-11-14 22:13:20 UTC" in report.read_text()


def test_any_order_of_rows_gives_the_same_bytes(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    rows = [*sweep(make_record), make_record(1, error_code="429"), make_record(2, model="other", error_code="500")]
    prefix = write_run(rows)
    formats = ["md", "csv", "json", "llmperf"]
    before = [llm_reports.report_run(prefix, out=tmp_path / "a", formats=formats), *sorted((tmp_path / "a").iterdir())]
    texts = [before[0].text, *(path.read_bytes() for path in before[1:])]  # type: ignore[union-attr]
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        write_run(rows)
        report = llm_reports.report_run(prefix, out=tmp_path / "b", formats=formats)
        assert [report.text, *(path.read_bytes() for path in sorted((tmp_path / "b").iterdir()))] == texts


def test_rows_that_do_not_count(write_run: Write, make_record: Make) -> None:
    slow = {"ttft_s": 9.0, "end_to_end_latency_s": 9.0}
    prefix = write_run(
        [
            *five(make_record),
            make_record(10, measured=0, phase="warmup", **slow),
            make_record(11, measured=0, phase="ramp", **slow),
            make_record(12, error_code="500", **slow),
            make_record(13, error_code="429", **slow),
            make_record(14, error_code="429", **slow),
            make_record(15, error_code="aborted", **slow),
        ]
    )
    report = llm_reports.report_run(prefix)
    assert [line for line in report.text.splitlines() if line.startswith("| vllm")] == [
        line for line in GOLDEN.splitlines() if line.startswith("| vllm")
    ]
    notes = unwrapped(report.text)
    assert "- Throttled requests are excluded: 2 of 9, 429: 2." in notes
    assert "- Failed requests are excluded: 1 of 9, 500: 1." in notes
    assert "- Aborted requests (interrupted by the end of the stage or the test) are excluded: 1 of 9." in notes
    assert "- Requests outside the measured phase are excluded: 1 in ramp, 1 in warmup." in notes
    lines = llm_reports.summary([llm_reports.load(prefix)]).set_index("metric")["mean"]
    counts = [lines[f"requests_{name}"] for name in ("measured", "ok", "failed", "throttled", "aborted")]
    assert counts == [9, 5, 3, 2, 1]
    described = unwrapped(Path(f"{prefix}_report/report.md").read_text())
    assert "9 measured requests, 5 of them successful, 2 throttled, 1 failed, 1 aborted" in described


def test_answers_that_a_gateway_held_back_are_noted(write_run: Write, make_record: Make) -> None:
    held = make_record(9, burst_chunks=20, chunks=41, coalesced=38)
    ttft, throughput = llm_reports.tables([llm_reports.load(write_run([*five(make_record), held]))])
    assert any("A gateway buffers the stream" in note and "1 of 6, 95% of their" in note for note in ttft.notes)
    assert not any("buffers the stream" in note for note in throughput.notes)


def test_buffered_answers_count_in_throughput_only(write_run: Write, make_record: Make) -> None:
    run = llm_reports.load(write_run([*five(make_record), make_record(9, error_code="buffered", ttft_s=8.0)]))
    ttft, throughput = llm_reports.tables([run])
    assert (ttft.rows[0].figures.n, ttft.rows[0].figures.max) == (5, 1.0)
    assert throughput.rows[0].figures.n == 6
    assert any("`buffered`" in note and "1 of 6" in note for note in ttft.notes)
    assert not any("`buffered`" in note for note in throughput.notes)
    lines = llm_reports.summary([run]).set_index("metric")["n"]
    assert (lines["tpot_s"], lines["ttfat_s"], lines["end_to_end_latency_s"]) == (5, 5, 6)


def test_concurrency_is_a_column_only_when_it_varies(write_run: Write, make_record: Make) -> None:
    same = llm_reports.tables([llm_reports.load(write_run(sweep(make_record, (4, 4))))])[0]
    assert "Concurrency" not in same.header
    assert len(same.cells) == 2
    varied = llm_reports.tables([llm_reports.load(write_run(sweep(make_record, (2, 10))))])[0]
    assert varied.header[:4] == ("Framework", "Model", "Concurrency", "Median")
    assert [cells[2] for cells in varied.cells] == ["2", "10"]
    assert varied.notes[0] == "P99 of fewer than 100 values is not reliable: each row, 30 values."
    assert varied.notes[1].startswith("A 95 % interval of a P99 requires at least 368 values")
    assert len(varied.notes) == 2


def test_client_health_stands_under_both_tables(write_run: Write, make_record: Make) -> None:
    stages = [
        StageRecord(1, 1, requests_measured=30, health="ok"),
        StageRecord(2, 2, requests_measured=30, health="strained"),
        StageRecord(3, 4, requests_measured=30, health="saturated"),
    ]
    for table in llm_reports.tables([llm_reports.load(write_run(sweep(make_record), stages=stages))]):
        assert any("saturated" in note and note.endswith("load: concurrency 4.") for note in table.notes)
        assert any("strained" in note and "concurrency 2" in note for note in table.notes)
        assert not any("concurrency 1" in note for note in table.notes if "client" in note)


def test_a_disturbed_client_is_noted_with_advice_about_the_machine(write_run: Write, make_record: Make) -> None:
    stages = [StageRecord(n, 2 ** (n - 1), requests_measured=30, health=h) for n, h in ((1, "ok"), (2, "disturbed"))]
    for table in llm_reports.tables([llm_reports.load(write_run(sweep(make_record), stages=stages))]):
        (note,) = (note for note in table.notes if "disturbed" in note)
        assert "quieter machine" in note
        assert "workers" not in note
        assert note.endswith(": concurrency 2.")


def test_sources_of_figures_are_noted_where_they_matter(write_run: Write, make_record: Make) -> None:
    rows = [make_record(i, stamp_source="user", output_tokens_source="tokenizer", cached_tokens=55) for i in range(368)]
    ttft, throughput = llm_reports.tables([llm_reports.load(write_run(rows))])
    assert [note.split(":")[0] for note in ttft.notes] == [
        "The process took the arrival timestamps (`user`), so they include its own delay",
        "Input tokens came from the server's cache, which shortens the time to first token",
    ]
    assert ttft.notes[1].endswith("10%.")
    assert throughput.notes == ("Output tokens were counted by the local tokenizer, not by the server: 368 of 368.",)


def test_requests_without_a_token_count_are_noted(write_run: Write, make_record: Make) -> None:
    rows = [*five(make_record), make_record(9, output_tokens=None), make_record(10, end_to_end_latency_s=0.0)]
    throughput = llm_reports.tables([llm_reports.load(write_run(rows))])[1]
    assert throughput.rows[0].figures.n == 5
    assert "Successful requests without this value are excluded: 2 of 7." in throughput.notes


def test_a_stage_in_which_everything_failed(write_run: Write, make_record: Make) -> None:
    rows = [make_record(i, stage=2, concurrency=8, error_code="503", ttft_s=None) for i in range(4)]
    prefix = write_run([*five(make_record), *rows, make_record(9, stage=2, concurrency=8, error_code="aborted")])
    report = llm_reports.report_run(prefix)
    assert report.exit_code == 0
    ttft, throughput = llm_reports.tables([llm_reports.load(prefix)])
    for table in (ttft, throughput):
        assert table.cells[1] == ("vllm", "tiny", "8", *["-"] * 8)
        assert (
            table.notes[0] == "No measured request succeeded, so there are no figures: "
            "concurrency 8 (of 5: 4 failed with 503: 4, 1 aborted)."
        )


def test_a_stage_without_rows_keeps_its_line(write_run: Write, make_record: Make) -> None:
    stages = [StageRecord(1, 1, requests_measured=5), StageRecord(2, 16)]
    ttft = llm_reports.tables([llm_reports.load(write_run(five(make_record), stages=stages))])[0]
    assert ttft.cells[1] == ("vllm", "tiny", "16", *["-"] * 8)
    assert ttft.notes[0].endswith("concurrency 16 (no request was measured).")


def test_all_failed_is_exit_code_1(write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = write_run([make_record(i, error_code="connect", ttft_s=None) for i in range(3)])
    assert main([str(prefix)]) == 1
    printed = capsys.readouterr()
    assert "No measured request succeeded, so there are no figures: of 3: 3 failed with connect: 3." in unwrapped(
        printed.out
    )
    assert "every measured request failed" in printed.err


def test_count_connect_adds_connecting_to_ttft_and_latency(write_run: Write, make_record: Make) -> None:
    prefix = write_run([make_record(1, connect_s=0.25), make_record(2, connect_s=0.25)])
    run = llm_reports.load(prefix)
    assert llm_reports.tables([run])[0].rows[0].figures.mean == 0.1
    ttft, throughput = llm_reports.tables([run], count_connect=True)
    assert ttft.rows[0].figures.mean == pytest.approx(0.35)
    assert throughput.rows[0].figures.mean == pytest.approx(50 / 1.25)
    for table in (ttft, throughput):
        assert "TTFT and latency include the connection time (--count-connect)." in table.notes
    lines = llm_reports.summary([run], count_connect=True).set_index("metric")["mean"]
    assert lines["end_to_end_latency_s"] == pytest.approx(1.25)
    assert lines["llmperf_inter_token_latency_s"] == pytest.approx(1.25 / 50)
    assert lines["tpot_s"] == pytest.approx(0.018)
    assert main([str(prefix), "--count-connect"]) == 0
    assert "--count-connect" in Path(f"{prefix}_report/report.md").read_text()


def test_summary_csv_is_tidy(write_run: Write, make_record: Make) -> None:
    gaps = [0.020] * 90 + [0.5] * 10
    stages = [StageRecord(1, 1, 1.7e9, 10.0, requests_measured=5, output_throughput_token_per_s=50.5, health="ok")]
    prefix = write_run(five(make_record), stages=stages, gaps_s={1: gaps})
    assert main([str(prefix)]) == 0
    text = Path(f"{prefix}_report/summary.csv").read_text()
    lines = list(csv.DictReader(io.StringIO(text)))
    figures = "run,framework,model,stage,concurrency,metric,unit,n,mean,median,stddev,min,max,p25,p75,p90,p95,p99"
    ends = (f"{f}_ci_{e}" for f in ("mean", "median", "p25", "p75", "p90", "p95", "p99") for e in ("low", "high"))
    assert text.splitlines()[0] == ",".join([figures, *ends, "rate_per_s", "stage_input_tokens", "stage_output_tokens"])
    keys = [(line["run"], line["stage"], line["metric"]) for line in lines]
    assert len(keys) == len(set(keys))
    by_metric = {line["metric"]: line for line in lines}
    ttft = by_metric["ttft_s"]
    assert (ttft["run"], ttft["framework"], ttft["model"], ttft["stage"], ttft["unit"]) == (
        ("run", "vllm", "tiny", "1", "s")
    )
    assert (ttft["n"], ttft["mean"], ttft["median"], ttft["p90"]) == ("5", "0.4", "0.3", "0.76")
    assert float(ttft["stddev"]) == pytest.approx(math.sqrt((0.09 + 0.04 + 0.01 + 0 + 0.36) / 4))
    assert by_metric["llmperf_inter_token_latency_s"]["mean"] == "0.01"
    gap = by_metric["chunk_gap_s"]
    assert (gap["n"], gap["unit"]) == ("100", "s")
    assert float(gap["median"]) == pytest.approx(0.020, rel=1e-3)
    assert float(gap["mean"]) == pytest.approx(0.068, rel=1e-3)
    assert float(gap["p99"]) == pytest.approx(0.5, rel=1e-3)
    stage = by_metric["output_throughput_token_per_s"]
    assert (stage["mean"], stage["n"], stage["median"], stage["unit"]) == ("50.5", "1", "", "tokens/s")
    assert by_metric["queue_s"]["unit"] == "s"
    assert "measure_started_at" not in by_metric


def test_what_was_not_measured_is_an_empty_cell(write_run: Write, make_record: Make) -> None:
    bare = RequestRecord(request_id="bare", stage=1, concurrency=1, measured=1)
    report = llm_reports.report_run(write_run([make_record(1, input_tokens=None), make_record(2), bare]))
    lines = llm_reports.summary([llm_reports.load(report.files[0].parent.parent)]).set_index(["model", "metric"])["n"]
    assert (lines["tiny", "input_tokens"], lines["tiny", "output_tokens"]) == (1, 2)
    counts = [f"requests_{name}" for name in ("measured", "ok", "failed", "throttled", "aborted", "cancelled")]
    assert lines[""].drop([*counts, "error_ratio"]).eq(0).all()
    assert ",-,-,1,1,ttft_s" not in report.files[1].read_text()
    assert f"run,,,1,1,ttft_s,s,0{27 * ','}\n" in report.files[1].read_text()


def test_models_in_one_stage_are_rows_of_their_own(write_run: Write, make_record: Make) -> None:
    rows = [make_record(i, model=model) for i, model in enumerate(["a", "b"] * 10)]
    run = llm_reports.load(write_run(rows, gaps_s={1: [0.1]}))
    assert [cells[1] for cells in llm_reports.tables([run])[0].cells] == ["a", "b"]
    lines = llm_reports.summary([run])
    assert list(lines[lines["metric"] == "chunk_gap_s"]["model"]) == [""]


def test_several_runs_and_folders(write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    for name, framework in (("run10", "tgi"), ("run2", "vllm")):
        prefix = write_run([make_record(i, framework=framework) for i in range(100)], name=name)
    folder = prefix.parent
    (folder / "run2_stats.csv").write_text("Type,Name\n")
    out = folder / "both"
    assert main([str(folder), str(prefix), "--out", str(out)]) == 0
    rows = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith(("| vllm", "| tgi"))]
    assert rows == ["vllm", "tgi"] * 2
    assert sorted(path.name for path in out.iterdir()) == ["report.md", "summary.csv"]
    assert not path_of(prefix, REPORT_FOLDER).exists()
    assert main([str(folder)]) == 0  # each run gets its own folder, which is no input the next time
    assert "tgi" not in Path(f"{folder}/run2_report/report.md").read_text()
    assert main([str(folder)]) == 0
    assert len(llm_reports.load_all([folder])) == 2


def test_runs_of_one_name_are_told_apart(write_run: Write, make_record: Make) -> None:
    folder = write_run(five(make_record), name="a/run").parent.parent
    write_run(five(make_record), name="b/run")
    runs = llm_reports.load_all([folder])
    assert [run.name for run in runs] == ["a/run", "b/run"]
    assert llm_reports.tables(runs)[0].notes[0] == "P99 of fewer than 100 values is not reliable: each row, 5 values."


def test_guards_against_formulas_are_taken_off_and_put_on(write_run: Write, make_record: Make) -> None:
    prefix = write_run([make_record(i, model="=HYPERLINK(1)|x", framework="'quoted'") for i in range(3)])
    run = llm_reports.load(prefix)
    assert set(run.requests["model"]) == {"=HYPERLINK(1)|x"}
    assert set(run.requests["framework"]) == {"'quoted'"}
    report = llm_reports.report_run(prefix)
    assert "| =HYPERLINK(1)\\|x |" in report.text
    assert ",'=HYPERLINK(1)|x," in report.files[1].read_text()


def test_options_rename_what_the_rows_say(write_run: Write, make_record: Make) -> None:
    prefix = write_run([make_record(i, framework="") for i in range(3)])
    assert llm_reports.tables([llm_reports.load(prefix)])[0].cells[0][:2] == ("-", "tiny")
    assert main([str(prefix), "--framework", "sglang", "--model", "m"]) == 0
    assert "| sglang    | m     |" in Path(f"{prefix}_report/report.md").read_text()


def test_types_in_a_notebook(write_run: Write, make_record: Make) -> None:
    prefix = write_run(five(make_record), stages=[StageRecord(1, 1, requests_measured=5)])
    run = llm_reports.load(f"{prefix}_llm_requests.csv")
    assert run.requests.groupby("concurrency").ttft_s.median().to_dict() == {1: 0.3}
    assert str(run.requests["output_tokens"].dtype) == "Int64"
    assert run.requests["gap_max_s"].isna().all()
    assert set(run.requests["error_code"]) == {""}
    assert int(run.stages["requests_measured"].iloc[0]) == 5
    assert run.report_dir == path_of(prefix, REPORT_FOLDER)


def test_the_package_is_light_and_never_loads_locust() -> None:
    code = (
        "import sys, reports; assert 'pandas' not in sys.modules\n"
        "from llm_reports.main import main; assert 'pandas' not in sys.modules\n"
        "import llm_reports.report; assert not {'locust', 'gevent'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def unwrapped(text: str) -> str:
    """Notes as they were before they were wrapped for a terminal."""
    return text.replace("\n  ", " ")
