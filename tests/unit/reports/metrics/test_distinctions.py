"""Runs that share model and concurrency: every output says what differs between them, and only that."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.content import content_of
from llm_reports.main import main
from llm_reports.metrics.distinctions import labels
from llm_users.record import RequestRecord, StageRecord

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]
DAY_S = 86_400.0
FORMATS = ("md", "csv", "json", "llmperf", "html", "summary", "svg")


def llmperf(folder: Path, name: str, summary: dict[str, Any] | None = None, **entry: Any) -> Path:
    """An LLMPerf pair of 30 requests: model ``m`` at concurrency 20."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "error_code": None, "error_msg": "", "inter_token_latency_s": 0.02, "ttft_s": 0.3, "end_to_end_latency_s": 2.0,
        "request_output_throughput_token_per_s": 50.0, "number_total_tokens": 650, "number_output_tokens": 100,
        "number_input_tokens": 550,
    }  # fmt: skip
    path = folder / f"{name}_individual_responses.json"
    path.write_text(json.dumps([usual | entry] * 30))
    if summary is not None:
        about = {"model": "m", "mean_input_tokens": 550, "mean_output_tokens": 150, "num_concurrent_requests": 20}
        (folder / f"{name}_summary.json").write_text(json.dumps(about | summary))
    return path


def apart(*inputs: Path) -> dict[str, list[str]]:
    """The columns of LLMPerf's first table that are neither framework, model nor figures, with their cells."""
    table, _ = llm_reports.tables(llm_reports.load_all(inputs))
    return {name: [cells[place] for cells in table.cells] for place, name in enumerate(table.header[:-8]) if place > 1}


def rows(make: Make, count: int = 30, **values: Any) -> list[RequestRecord]:
    return [make(i, prompt_index=i, requested_output_tokens=150, **values) for i in range(count)]


def asked(input_tokens: str = "550,150", output_tokens: str = "150,80") -> dict[str, Any]:
    return {"options": {"llm_input_tokens": input_tokens, "llm_output_tokens": output_tokens}}


def test_two_llmperf_files_of_different_input_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (llmperf(tmp_path, f"m_{tokens}_150", {"mean_input_tokens": tokens}) for tokens in (550, 1000))
    assert apart(long, short) == {"Input tokens": ["1000", "550"]}
    report = llm_reports.report_runs(llm_reports.load_all([long, short]), out=tmp_path / "out", formats=FORMATS)
    written = {path.name: path.read_text() for path in report.files}
    for table in ("## Time to First Token", "## Output Tokens Throughput"):
        lines = written["report.md"].split(table)[1].split("\n## ")[0].splitlines()
        assert [line.split("|")[3].strip() for line in lines if line.startswith("|")][2:] == ["1000", "550"]
    page = written["report.html"]
    table = page[page.index('id="llmperf-1"') :].split("</table>")[0]
    assert re.findall(r'<td class="number">(1000|550)</td>', table) == ["1000", "550"]
    assert [line for line in written["llmperf.txt"].splitlines() if line.startswith("---")] == [
        "--- 1000 input tokens ---", "--- 550 input tokens ---",
    ]  # fmt: skip
    assert "m_1000_150, 1000 input tokens" in report.text.splitlines()
    assert {"m_1000_150_summary.json", "m_550_150_summary.json"} < set(written)
    assert {line["run"] for line in csv.DictReader(written["summary.csv"].splitlines())} == {"m_1000_150", "m_550_150"}
    assert {line["run"] for line in json.loads(written["summary.json"])} == {"m_1000_150", "m_550_150"}
    curve = written["plot_curve_e2e.svg"]
    assert "m_1000_150, 1000 input tokens" in curve
    assert main(["leaderboard", str(long), str(short), "--out", str(tmp_path / "board"), "--plots", "svg"]) == 0
    assert "1000 input tokens" in (tmp_path / "board" / "plot_ttft_s.svg").read_text()
    assert "Input tokens" in capsys.readouterr().out


def test_what_the_summary_asked_for_counts_also_where_the_requests_are_alike(tmp_path: Path) -> None:
    """As in the two files above: both have requests of 550 tokens, whatever their summaries say."""
    paths = [llmperf(tmp_path, f"m_550_{tokens}", {"mean_output_tokens": tokens}) for tokens in (150, 300)]
    assert apart(*paths) == {"Output tokens": ["150", "300"]}


def test_three_files_that_need_two_differences(tmp_path: Path) -> None:
    lengths = [(550, 150), (550, 300), (1000, 150)]
    paths = [
        llmperf(
            tmp_path, f"m_{tokens_in}_{tokens_out}", {"mean_input_tokens": tokens_in, "mean_output_tokens": tokens_out}
        )
        for tokens_in, tokens_out in lengths
    ]
    assert apart(*paths) == {"Input tokens": ["550", "550", "1000"], "Output tokens": ["150", "300", "150"]}


def test_deviations_show_where_the_means_are_equal(tmp_path: Path) -> None:
    paths = [llmperf(tmp_path / name, "m_550_150", {"stddev_input_tokens": sd}) for name, sd in (("a", 0), ("b", 150))]
    assert apart(*paths) == {"Input tokens": ["550 ± 0", "550 ± 150"]}


def test_files_without_summaries_are_told_apart_by_what_they_measured(tmp_path: Path) -> None:
    paths = [llmperf(tmp_path, "vllm_m"), llmperf(tmp_path / "b", "vllm_m", number_input_tokens=1000)]
    assert apart(*paths) == {"Input tokens": ["550", "1000"]}


def test_lengths_that_differ_by_chance_are_not_shown(write_run: Write, make_record: Make) -> None:
    """Mean output of 48.9 and of 51.1 tokens, each with a standard error of about 2."""
    runs = [
        write_run([make_record(i, output_tokens=30 + (i * step) % 41) for i in range(30)], name=name)
        for name, step in (("a", 7), ("b", 11))
    ]
    assert apart(*runs) == {"Run": ["a", "b"]}


def test_equal_file_names_in_different_folders(tmp_path: Path) -> None:
    deep = [llmperf(tmp_path / top / "x", "m_550_150", {}) for top in ("january", "february")]
    flat = llmperf(tmp_path / "march" / "y", "m_550_150", {})
    assert apart(*deep) == {"Run": ["january/x/m_550_150", "february/x/m_550_150"]}
    assert apart(*deep, flat) == {"Run": ["january/x/m_550_150", "february/x/m_550_150", "y/m_550_150"]}
    made = llm_reports.groups(llm_reports.load_all(deep))
    curves = llm_reports.figures(llm_reports.load_all(deep), made, llm_reports.stage_points(made)).curves
    assert [curve.name for curve in curves] == ["january/x/m_550_150", "february/x/m_550_150"]


def test_a_run_in_the_working_folder_has_its_folder_in_its_name(
    write_run: Write, make_record: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(rows(make_record, run_id="a"), name="here/run")
    write_run(rows(make_record, run_id="b"), name="here/sub/run")
    monkeypatch.chdir(tmp_path / "here")
    assert [run.name for run in llm_reports.load_all(["run", "sub/run"])] == ["here/run", "sub/run"]


def test_runs_loaded_one_by_one_are_told_apart(write_run: Write, make_record: Make) -> None:
    """As in a notebook, where each run is loaded without knowing of the others."""
    runs = [llm_reports.load(write_run(rows(make_record), name=f"{name}/run")) for name in "ab"]
    table, _ = llm_reports.tables(runs)
    assert [(row[0], row[2]) for row in table.cells] == [("vllm", "a/run"), ("vllm", "b/run")]
    assert set(llm_reports.summary(runs)["run"]) == {"a/run", "b/run"}
    assert llm_reports.compare_runs(runs).title == "a/run against b/run"
    assert set(table.frame()["Run"]) == {"a/run", "b/run"}


def test_two_of_our_runs_on_different_dates(write_run: Write, make_record: Make) -> None:
    start = 1_700_000_000.0  # 2023-11-14 22:13 UTC
    runs = [
        write_run(
            [make_record(i, started_at=start + days * DAY_S + i) for i in range(30)],
            manifest=asked(),
            name=f"{name}/run",
        )
        for name, days in (("first", 0), ("second", 1))
    ]
    assert apart(*runs) == {"Run": ["first/run", "second/run"], "Date": ["2023-11-14", "2023-11-15"]}
    assert labels(llm_reports.groups(llm_reports.load_all(runs))) == [
        "run first/run of 2023-11-14", "run second/run of 2023-11-15",
    ]  # fmt: skip
    text = llm_reports.report_runs(llm_reports.load_all(runs), out=runs[0].parent, formats=("summary",)).text
    assert "first/run, of 2023-11-14" in text.splitlines()


def test_llmperf_files_of_different_dates(tmp_path: Path) -> None:
    paths = [
        llmperf(tmp_path / name, "m_550_150", {"timestamp": 1_700_000_000 + days * int(DAY_S)})
        for name, days in (("a", 0), ("b", 30))
    ]
    assert apart(*paths)["Date"] == ["2023-11-14", "2023-12-14"]


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ("endpoint", {"Endpoint": ["http://a:8000/v1", "http://b:8000/v1"]}),
        ("api", {"API": ["openai-chat", "openai-completions"]}),
    ],
)
def test_runs_that_differ_only_in_endpoint_or_api(
    write_run: Write, make_record: Make, values: str, column: dict[str, list[str]]
) -> None:
    (texts,) = column.values()
    runs = [
        write_run(rows(make_record, **{values: text}), manifest=asked(), name=f"run{place}")
        for place, text in enumerate(texts)
    ]
    assert apart(*runs) == column


def test_runs_of_the_simulator_are_told_apart_by_name_not_by_port(write_run: Write, make_record: Make) -> None:
    """``--llm-simulator`` takes a free port in every run, which says nothing about the run (issue 15, kind 9)."""
    hosts = [f"http://127.0.0.1:{port}/v1" for port in (42537, 44189)]
    paths = [
        write_run(rows(make_record, endpoint=host), name=name, manifest={"host": host, "simulator": True} | asked())
        for name, host in zip("ab", hosts, strict=True)
    ]
    assert apart(*paths) == {"Run": ["a", "b"]}


def test_runs_that_differ_only_in_output_length(write_run: Write, make_record: Make) -> None:
    runs = [write_run(rows(make_record), manifest=asked(output_tokens=text), name=text) for text in ("150,80", "300,0")]
    assert apart(*runs) == {"Output tokens": ["150", "300"]}


def test_a_mix_of_lengths_is_not_taken_for_the_default_ones(write_run: Write, make_record: Make) -> None:
    """The manifest has the defaults of --llm-input-tokens also where --llm-length-mix replaced them."""
    mix = asked()
    mix["options"]["llm_length_mix"] = "100:2000/50"
    runs = [
        write_run(rows(make_record), manifest=asked(), name="usual"),
        write_run(rows(make_record, input_tokens=2000), manifest=mix, name="mix"),
    ]
    assert apart(*runs) == {"Input tokens": ["550", "2000"]}


def test_two_of_three_runs_need_their_names(write_run: Write, make_record: Make) -> None:
    runs = [
        write_run(rows(make_record), manifest=asked(tokens), name=name)
        for name, tokens in (("a", "550"), ("b", "550"), ("c", "1000"))
    ]
    assert apart(*runs) == {"Input tokens": ["550", "550", "1000"], "Run": ["a", "b", "c"]}


def test_what_differs_is_not_shown_where_model_or_load_tell(write_run: Write, make_record: Make) -> None:
    runs = [
        write_run(rows(make_record, model=name), manifest=asked(tokens), name=name)
        for name, tokens in (("a", "550"), ("b", "1000"))
    ]
    assert apart(*runs) == {}
    levels = [write_run(rows(make_record, concurrency=users), name=f"c{users}") for users in (1, 2)]
    assert apart(*levels) == {"Concurrency": ["1", "2"]}


def test_one_load_twice_in_a_run_is_told_apart_by_its_stages(write_run: Write, make_record: Make) -> None:
    records = [make_record(i, stage=1 + i // 20, concurrency=(4, 1, 4)[i // 20]) for i in range(60)]
    stages = [StageRecord(stage, users, requests_measured=20) for stage, users in ((1, 4), (2, 1), (3, 4))]
    prefix = write_run(records, stages=stages)
    assert apart(prefix) == {"Stage": ["1", "2", "3"], "Concurrency": ["4", "1", "4"]}
    assert "stage 3" in llm_reports.report_run(prefix, formats=("summary",)).text.splitlines()


def test_open_loops_are_told_apart(write_run: Write, make_record: Make) -> None:
    runs = [
        write_run(rows(make_record, concurrency=None, rate_per_s=5.0), manifest=asked(tokens), name=tokens)
        for tokens in ("550", "1000")
    ]
    content = content_of(llm_reports.load_all(runs))
    assert len(content.tables) == 5
    for table in content.tables:
        place = table.header.index("Input tokens")
        assert [row[place] for row in table.cells] == ["550", "1000"]


def test_a_run_that_is_named_twice_counts_once_and_is_named(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_run(rows(make_record))
    assert main([str(prefix), str(prefix), "--format", "md"]) == 0
    assert "_llm_requests.csv: the input occurs more than once; it counts once." in capsys.readouterr().err
    assert len(llm_reports.load_all([prefix, prefix.parent])) == 1
    assert main(["compare", str(prefix), str(prefix)]) == 2
    assert main(["compare", str(prefix), "--against", str(prefix)]) == 2


def test_a_copy_of_a_run_is_named_as_one(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    write_run(rows(make_record, count=30), name="a/run")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    first, second = llm_reports.load_all([tmp_path / "a" / "run", tmp_path / "copy" / "run"])
    assert (first.name, second.name) == ("a/run", "copy/run")
    assert first.warnings == ()
    assert second.warnings[0].endswith(
        f"30 of its 30 rows are also in {first.source}; a copy of a run is not a second measurement."
    )


def test_a_ttft_of_0_is_left_out_and_llmperfs_own_figures_stand_beside(tmp_path: Path) -> None:
    """LLMPerf leaves ttft_s at 0 when no content came. By hand, of 0, 0 and 0.3: median 0, mean 0.1, P75 0.15."""
    path = llmperf(tmp_path, "m_550_150", {})
    entries = json.loads(path.read_text())[:3]
    for entry in entries[:2]:
        entry["ttft_s"] = 0
    path.write_text(json.dumps(entries, indent=4))
    report = llm_reports.report_runs([llm_reports.load(path)], out=tmp_path / "out", formats=("json", "llmperf", "md"))
    (table, _) = llm_reports.tables([llm_reports.load(path)])
    assert (table.rows[0].figures.n, table.rows[0].figures.min, table.rows[0].figures.mean) == (1, 0.3, 0.3)
    (note,) = (note for note in table.notes if note.startswith("LLMPerf writes a TTFT of 0"))
    assert "2 of 3; with it: Median 0.00, Mean 0.100, Min 0.00, Max 0.300, P25 0.00, P75 0.150" in note
    printed = next(each for each in report.files if each.name == "llmperf.txt").read_text()
    assert "ttft_s\n    p25 = 0.0\n    p50 = 0.0\n    p75 = 0.15\n" in printed
    summary = json.loads((tmp_path / "out" / "m_550_150_summary.json").read_text())
    assert (summary["results_ttft_s_quantiles_p50"], summary["results_ttft_s_min"]) == (0.0, 0.0)
    assert summary["results_ttft_s_mean"] == pytest.approx(0.1)
    assert (summary["ttft_s_zeros"], summary["ttft_s_without_zeros_mean"]) == (2, 0.3)
    again = json.loads((tmp_path / "out" / "m_550_150_individual_responses.json").read_text())
    assert again == entries
    assert llm_reports.tables(llm_reports.load_all([tmp_path / "out"]))[0].cells == table.cells


def test_the_0_of_a_failed_entry_is_in_no_figure(tmp_path: Path) -> None:
    path = llmperf(tmp_path, "m_550_150", {})
    entries = json.loads(path.read_text())[:2]
    entries[0] |= {"error_code": 429, "ttft_s": 0, "number_output_tokens": 0}
    path.write_text(json.dumps(entries))
    report = llm_reports.report_runs([llm_reports.load(path)], out=tmp_path / "out", formats=("json",))
    assert "TTFT of 0" not in report.text
    assert report.warnings == ()
    summary = json.loads((tmp_path / "out" / "m_550_150_summary.json").read_text())
    assert summary["results_ttft_s_min"] == 0.3
    assert "ttft_s_zeros" not in summary
