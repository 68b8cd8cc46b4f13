"""What can be wrong with an input: each message says what, where and what to do, without a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.errors import InputError
from llm_reports.main import main
from llm_users.record import RequestRecord, StageRecord
from llm_users.run_files import GAPS_CSV, MANIFEST_JSON, REPORT_FOLDER, REQUESTS_CSV, STAGES_CSV, path_of

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]
Says = Callable[..., None]


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Says:
    """Asserts that the command exits with a code and says all of the words."""

    def assert_refused(arguments: list[str | Path], *words: str, code: int = 2) -> None:
        assert main([str(argument) for argument in arguments]) == code
        error = capsys.readouterr().err
        assert error.startswith("llm-report: ")
        assert "Traceback" not in error
        for word in words:
            assert word in error

    return assert_refused


def test_missing_input(refuses: Says, write_run: Write, make_record: Make, tmp_path: Path) -> None:
    prefix = write_run([make_record(1)])
    refuses(
        [tmp_path / "rum"], f"{tmp_path}/rum: the input does not exist", "rum_llm_requests.csv", str(prefix), "PREFIX"
    )
    refuses([tmp_path / "nowhere" / "run"], "the input does not exist")


def test_empty_files(refuses: Says, tmp_path: Path) -> None:
    for name in ("x_llm_requests.csv", "rows.csv", "a_b_individual_responses.json"):
        (tmp_path / name).touch()
        refuses([tmp_path / name], name, "the file is empty")


def test_missing_columns_are_named(refuses: Says, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("measured,ttft_s,error_code\n1,0.1,\n")
    refuses([path], "not a rows file", "end_to_end_latency_s, output_tokens", "PREFIX")


def test_numbers_that_are_none(refuses: Says, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("measured,ttft_s,error_code,end_to_end_latency_s,output_tokens\n1,0.1,,1,5\n1,soon,,1,5\n")
    refuses([path], "line 3", "ttft_s", "'soon'")
    path.write_text("measured,ttft_s,error_code,end_to_end_latency_s,output_tokens\n1,inf,,1,5\n")
    refuses([path], "line 2", "'inf'")


def test_a_line_of_the_wrong_length(refuses: Says, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("measured,ttft_s,error_code,end_to_end_latency_s,output_tokens\n1,0.1\n1,0.1,,1,5\n")
    refuses([path], "line 2", "the line has 2 fields, but the header has 5")


def test_zero_requests_is_exit_code_3(refuses: Says, write_run: Write, make_record: Make, tmp_path: Path) -> None:
    refuses([write_run([])], "no request was measured", code=3)
    refuses([write_run([make_record(1, measured=0, phase="warmup")])], "no request was measured", code=3)
    path = tmp_path / "a_b_individual_responses.json"
    path.write_text("[]")
    refuses([path], str(path), "no request was measured", code=3)
    report = llm_reports.report_run(write_run([]))
    assert "No request was measured." in report.text
    assert report.exit_code == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"error_code": null,', ("malformed JSON", "line 1")),
        ('{"name": "summary"}', ("not a file of LLMPerf's individual responses", "list of objects")),
        ("[1, 2]", ("not a file of LLMPerf's individual responses",)),
        ('[{"error_code": null, "ttft_s": 1}]', ("end_to_end_latency_s, number_output_tokens",)),
        (
            '[{"error_code": null, "ttft_s": "fast", "end_to_end_latency_s": 1, "number_output_tokens": 1}]',
            ("entry 1", "ttft_s", "'fast'"),
        ),
    ],
)
def test_files_that_are_not_llmperf(refuses: Says, tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "a_b_individual_responses.json"
    path.write_text(text)
    refuses([path], str(path), *words)


def test_folders_without_inputs(refuses: Says, tmp_path: Path) -> None:
    (tmp_path / "run_stats.csv").write_text("Type,Name\n")
    refuses([tmp_path], "contains neither a run", "--csv")


def test_unwritable_out_keeps_the_tables(
    write_run: Write, make_record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    assert main([str(write_run([make_record(1)])), "--out", str(blocked / "deeper")]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("## Summary\n")
    assert "\n## Time to First Token" in printed.out
    assert "cannot be written" in printed.err
    assert "--out" in printed.err


@pytest.mark.parametrize(
    ("given", "word"), [("pdf", "unknown format"), ("md,pdf", "unknown format"), (",", "the list is empty")]
)
def test_formats_that_cannot_be_written(
    refuses: Says, write_run: Write, make_record: Make, given: str, word: str
) -> None:
    prefix = write_run([make_record(1)])
    refuses([prefix, "--format", given], "--format", word, "md")
    assert not path_of(prefix, REPORT_FOLDER).exists()


def test_one_format(write_run: Write, make_record: Make) -> None:
    prefix = write_run([make_record(1)])
    assert main([str(prefix), "--format", "csv"]) == 0
    assert [path.name for path in path_of(prefix, REPORT_FOLDER).iterdir()] == ["summary.csv"]


@pytest.mark.parametrize("cut", [1, 3, 40, 100])
def test_a_last_line_cut_by_a_crash(
    write_run: Write, make_record: Make, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_run([*(make_record(i, error_message="two\nlines, ü") for i in range(3)), make_record(3, ttft_s=0.9)])
    path = path_of(prefix, REQUESTS_CSV)
    last = path.read_bytes().rindex(b"r3,")
    path.write_bytes(path.read_bytes()[: last + cut])
    assert main([str(prefix)]) == 0
    assert "is truncated, probably by a crash; the 3 complete rows before it were read" in capsys.readouterr().err
    assert "is truncated" in Path(f"{prefix}_report/report.md").read_text()


def test_a_cut_inside_quotes_keeps_the_rows_before_it(write_run: Write, make_record: Make) -> None:
    prefix = write_run([make_record(0), make_record(1, error_code="500", error_message='said "no",\nthen left')])
    path = path_of(prefix, REQUESTS_CSV)
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"then")])
    run = llm_reports.load(prefix)
    assert len(run.requests) == 1
    assert len(run.warnings) == 1


def test_broken_companions_cost_only_their_own_figures(write_run: Write, make_record: Make) -> None:
    prefix = write_run([make_record(1)])
    path_of(prefix, STAGES_CSV).write_text("nothing\n1\n")
    path_of(prefix, GAPS_CSV).write_text("")
    path_of(prefix, MANIFEST_JSON).write_text("{")
    report = llm_reports.report_run(prefix)
    assert report.exit_code == 0
    assert [
        word in report.text.replace("\n  ", " ")
        for word in ("health is therefore unknown", "gaps are therefore", "manifest")
    ] == ([True] * 3)


@pytest.mark.parametrize(
    ("manifest", "word"),
    [
        ({"run_id": "another"}, "the files of two runs are mixed"),
        ({"counts": {"sent": {"0": 5, "1": 1}, "received": {"0": 5, "1": 1}}}, "6 records received"),
        ({"counts": {"sent": {"0": 9}, "received": {"0": 3}}}, "9 records sent by the workers but 3 received"),
        ({"counts": {"sent": {"0": None}, "received": {"0": 3}}}, ""),  # a worker that went without a word
        ({"run_id": "run-1", "counts": {"sent": {"0": 1, "1": 2}, "received": {"0": 1, "1": 2}}}, ""),
    ],
)
def test_a_manifest_that_disagrees_is_a_warning(
    write_run: Write, make_record: Make, manifest: dict[str, object], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_run([make_record(i) for i in range(3)], manifest=manifest)
    assert main([str(prefix)]) == 0
    printed = capsys.readouterr()
    assert ("## Warnings" in printed.out) is bool(word)
    assert word in printed.err


def test_rows_that_disagree_with_themselves_or_the_stages(write_run: Write, make_record: Make) -> None:
    rows = [make_record(1), make_record(1), make_record(2, run_id="run-2")]
    run = llm_reports.load(write_run(rows, stages=[StageRecord(1, 1, requests_measured=7)]))
    text = " ".join(run.warnings)
    assert "come from 2 runs" in text
    assert "1 rows repeat the request_id" in text
    assert "stage 1: the stages file counts 7 measured requests, the rows file has 3" in text


def test_a_rows_file_of_any_name_with_few_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("measured,ttft_s,error_code,end_to_end_latency_s,output_tokens\n1,0.1,,2,50\n0,5,,5,5")
    assert main([str(path)]) == 0
    assert main([str(tmp_path)]) == 0
    assert "| -         | -     |  0.100 |" in capsys.readouterr().out
    assert [each.name for each in tmp_path.iterdir()] == ["mine.csv"]


def test_names_of_a_foreign_file(write_responses: Callable[..., Path], tmp_path: Path) -> None:
    def names(file: str, summary: object = None) -> tuple[str, ...]:
        path = write_responses(f"{file}_individual_responses.json", ok=100, failed=0)
        if summary is not None:
            (tmp_path / f"{file}_summary.json").write_text(json.dumps(summary))
        return llm_reports.tables([llm_reports.load(path)])[0].cells[0][:2]

    assert names("vllm_llama_3_8b") == ("vllm", "llama_3_8b")
    assert names("vllm") == ("vllm", "-")
    assert names("tgi_x", {"model": "org/x"}) == ("tgi", "org/x")
    assert names("tgi_y", {"model": "org/y", "framework": "text-generation"}) == ("text-generation", "org/y")
    # LLMPerf's own names are MODEL_INPUT_OUTPUT: there is no framework in them
    assert names("01-ai-Yi-34B_550_150", {"model": "01-ai/Yi-34B"}) == ("-", "01-ai/Yi-34B")
    assert names("01-ai-Yi-6B_550_150") == ("-", "01-ai-Yi-6B")


def test_foreign_files_write_nothing_unless_asked(write_responses: Callable[..., Path], tmp_path: Path) -> None:
    path = write_responses("vllm_m_individual_responses.json")
    assert main([str(path), "--framework", "mine"]) == 0
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert main([str(path), "--framework", "mine", "--out", str(tmp_path / "out")]) == 0
    assert "| mine      | m     |" in (tmp_path / "out" / "report.md").read_text()


def test_concurrency_of_foreign_files(write_responses: Callable[..., Path], tmp_path: Path) -> None:
    for level in (1, 8):
        write_responses(f"f_m{level}_individual_responses.json", seed=level)
        (tmp_path / f"f_m{level}_summary.json").write_text(json.dumps({"num_concurrent_requests": level}))
    write_responses("f_m9_individual_responses.json")
    (tmp_path / "f_m9_summary.json").write_text("{")
    runs = llm_reports.load_all([tmp_path])
    assert [cells[2] for cells in llm_reports.tables(runs)[0].cells] == ["1", "8", "-"]
    assert "invalid JSON" in runs[2].warnings[0]
    counted = llm_reports.tables(runs, count_connect=True)[0]
    words = "LLMPerf's files already include the connection time, so nothing was added: m1, m8 and m9."
    assert words in counted.notes


def test_load_wants_one_run(write_run: Write, make_record: Make) -> None:
    write_run([make_record(1)], name="a")
    folder = write_run([make_record(1)], name="b").parent
    with pytest.raises(llm_reports.InputError, match="contains 2 runs"):
        llm_reports.load(folder)


def test_lines_are_numbered_as_an_editor_does(
    write_run: Callable[..., Path], make_record: Callable[..., RequestRecord]
) -> None:
    texts = ["one\ntwo", "three\r\nfour", "plain", "", "five"]
    rows = [make_record(i, error_code="500", error_message=text) for i, text in enumerate(texts)]
    file = path_of(write_run(rows), REQUESTS_CSV)
    head, *lines = file.read_bytes().decode().split("\r\n")
    blank = "\r\n".join([head, "", *lines[:-2], "", lines[-2].replace(",0.1,", ",x,", 1), *lines[-1:]])
    file.write_text(blank, newline="")
    wrong = next(number for number, line in enumerate(file.read_text().split("\n"), 1) if ",x," in line)
    with pytest.raises(InputError, match=f"line {wrong}: column ttft_s contains 'x'"):
        llm_reports.load(file)
    file.write_text(blank.replace(",x,", ",0.1,") + "\r\n\r\nr9,cut", newline="")
    run = llm_reports.load(file)
    assert len(run.requests) == 5
    last = len(file.read_text().split("\n"))
    assert f"the last line (line {last}) is truncated" in run.warnings[0]
    assert "the 5 complete rows" in run.warnings[0]


def test_the_older_name_of_implausible_usage_is_read(tmp_path: Path) -> None:
    """Older files have two columns for the server's count: one for implausible usage, one with ``--llm-count``."""
    path = tmp_path / f"run{REQUESTS_CSV}"
    header = "measured,error_code,ttft_s,end_to_end_latency_s,output_tokens,output_tokens_source"
    row = "1,,0.1,1.0,40,tokenizer"
    path.write_text(f"{header},usage_output_tokens\n{row},1000000000000\n")
    assert llm_reports.load(path).requests["output_tokens_usage"].tolist() == [10**12]
    path.write_text(f"{header},usage_output_tokens,output_tokens_usage\n{row},90,\n{row},,41\n{row},48,48\n")
    rows = llm_reports.load(path).requests
    assert rows["output_tokens_usage"].tolist() == [90, 41, 48]
    assert "usage_output_tokens" not in rows
