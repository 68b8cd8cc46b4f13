"""Which entries of a leaderboard can be compared: the notes name conditions that differ, known by construction."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.main import main
from llm_users.record import RequestRecord
from tests.unit.reports.sweep_on_disk import write_sweep

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]

LLAMA = {"tokenizer": {"name": "hf-internal-testing/llama-tokenizer", "digest": "0"}}
COUNT = 100


def around(mean: int, deviation: int, count: int = COUNT) -> list[int]:
    """Whole numbers with exactly this mean, half of them above and half below by the deviation."""
    return [mean + (deviation if index % 2 else -deviation) for index in range(count)]


def llmperf_file(
    folder: Path,
    name: str,
    *,
    inputs: Sequence[int] = around(550, 150),
    outputs: Sequence[int] = around(150, 80),
    summary: dict[str, Any] | None = None,
) -> Path:
    """A file as LLMPerf writes it, with its summary if there is one."""
    answers = [
        {
            "error_code": None, "error_msg": "", "inter_token_latency_s": 0.01, "ttft_s": 0.3,
            "end_to_end_latency_s": 1.0 + tokens / 100, "request_output_throughput_token_per_s": 50.0,
            "number_total_tokens": prompt + tokens, "number_output_tokens": tokens, "number_input_tokens": prompt,
        }
        for prompt, tokens in zip(inputs, outputs, strict=True)
    ]  # fmt: skip
    path = folder / f"{name}_individual_responses.json"
    path.write_text(json.dumps(answers))
    if summary is not None:
        (folder / f"{name}_summary.json").write_text(json.dumps(summary))
    return path


def rows(
    make_record: Make,
    *,
    inputs: Sequence[int] = around(550, 150),
    outputs: Sequence[int] = around(150, 80),
    **more: Any,
) -> list[RequestRecord]:
    """Requests as a run with --llm-new-connections and the Llama tokenizer writes them."""
    counted = {"input_tokens_source": "tokenizer", "output_tokens_source": "tokenizer"}
    common = {"framework": "new", "concurrency": 5, "connect_s": 0.05, **counted, **more}
    return [
        make_record(index, input_tokens=prompt, output_tokens=tokens, **common)
        for index, (prompt, tokens) in enumerate(zip(inputs, outputs, strict=True))
    ]


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["leaderboard", *map(str, words)]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_equal_conditions_have_no_note(
    tmp_path: Path, write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    old = llmperf_file(tmp_path, "old_70b", summary={"num_concurrent_requests": 5})
    new = write_run(rows(make_record), manifest=LLAMA)
    text = printed(capsys, old, new, "--count-connect")
    assert "Not comparable" not in text
    assert "nothing was added: old." in text
    header, _, *cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in llm_reports.to_markdown(llm_reports.leaderboard(llm_reports.load_all([old, new]))[0]).splitlines()
        if line.startswith("|")
    ]
    for name, value in (("OK/all", "100/100"), ("In", "550"), ("Out", "150")):
        assert [line[header.index(name)] for line in cells] == [value, value]


@pytest.mark.parametrize(
    ("change", "summary", "manifest", "note"),
    [
        ({"inputs": around(413, 112)}, {}, LLAMA,
         "the mean input tokens differ by more than 5 %: new (413); old (550)."),
        ({"outputs": around(142, 80)}, {}, LLAMA,
         "the mean output tokens differ by more than 5 %: new (142); old (150)."),
        ({"inputs": around(550, 10)}, {}, LLAMA,
         "the input tokens are almost the same in all requests of new, and they are distributed in old (standard "
         "deviation 151)."),
        ({"outputs": around(150, 0)}, {}, LLAMA,
         "the output tokens are almost the same in all requests of new, and they are distributed in old (standard "
         "deviation 80)."),
        ({"output_tokens_source": "usage"}, {}, LLAMA,
         "different counters counted the output tokens: the server's usage counted those of new; LLMPerf's Llama "
         "tokenizer counted those of old. Measure with --llm-tokenizer hf-internal-testing/llama-tokenizer --llm-count "
         "tokenizer."),
        ({}, {}, {"tokenizer": {"name": "org/other"}}, "the tokenizer org/other counted those of new"),
        ({}, {"num_concurrent_requests": 10}, LLAMA, "the entries have different loads."),
        ({}, {"num_concurrent_requests": None}, LLAMA,
         "the load of old is unknown, because the files do not state it; the other entries have concurrency 5."),
        ({"connect_s": 0.0}, {}, LLAMA,
         "the time to connect is part of some TTFT and latencies: included in those of old; not included in those of "
         "new. Measure with --llm-new-connections."),
    ],
)  # fmt: skip
def test_each_condition_that_differs_has_its_note(
    tmp_path: Path,
    write_run: Write,
    make_record: Make,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    summary: dict[str, Any],
    manifest: dict[str, Any],
    note: str,
) -> None:
    old = llmperf_file(tmp_path, "old_70b", summary={"num_concurrent_requests": 5} | summary)
    new = write_run(rows(make_record, **change), manifest=manifest)
    text = printed(capsys, new, old, "--count-connect")
    assert text.count("Not comparable: ") == 1
    assert f"Not comparable: {note}" in text or note in text.partition("Not comparable: ")[2]


def test_means_within_5_percent_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"num_concurrent_requests": 5}
    files = [llmperf_file(tmp_path, f"{mean}_m", inputs=around(mean, 200), summary=summary) for mean in (1000, 1050)]
    assert "Not comparable" not in printed(capsys, *files)
    files[1:] = [llmperf_file(tmp_path, "1051_m", inputs=around(1051, 200), summary=summary)]
    assert "differ by more than 5 %: 1000 (1000); 1051 (1051)." in printed(capsys, *files)


def test_answers_that_end_before_their_cap_are_not_distributed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, dice = {"num_concurrent_requests": 5}, random.Random(7)
    fixed = llmperf_file(tmp_path, "a_m", outputs=[151] * COUNT, summary=summary)
    short = llmperf_file(tmp_path, "b_m", outputs=[151 - 30 * (dice.random() < 0.15) for _ in range(COUNT)],
                         summary=summary)  # fmt: skip
    assert "Not comparable" not in printed(capsys, fixed, short)


def test_the_requested_length_counts_beside_llmperf(
    tmp_path: Path, write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    old = llmperf_file(tmp_path, "old_70b", summary={"num_concurrent_requests": 5})
    # A server that counts words: 413 for prompts of 550 tokens.
    counted = rows(make_record, inputs=around(413, 112), input_tokens_source="usage", prompt_index=1,
                   requested_output_tokens=150)  # fmt: skip
    options = {"llm_input_tokens": "550,150", "llm_output_tokens": "150,80"}
    new = write_run(counted, manifest={**LLAMA, "options": options})
    text = printed(capsys, old, new, "--count-connect")
    assert "Not comparable" not in text
    assert "The server counted 413 input tokens per prompt of new; the requested length is 550" in text
    other = write_run(counted, manifest={**LLAMA, "options": options | {"llm_input_tokens": "400,150"}}, name="other")
    assert "the mean input tokens differ by more than 5 %: old (550); new (400)" in printed(
        capsys, old, other, "--count-connect"
    )


def test_connections_that_stayed_open_are_not_called_included(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    still_open = write_run(rows(make_record, connect_s=0.0), name="kept")
    assert main([str(still_open), "--count-connect"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "The connections of kept stayed open, so its TTFT has no connection time; measure again with "
        "--llm-new-connections." in text
    )
    assert "include the connection time" not in text
    some = [*rows(make_record, connect_s=0.0)[:60], *rows(make_record)[60:]]
    assert main([str(write_run(some, name="some")), "--count-connect"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Some requests used a connection that was already open" in text
    assert "60 of 100" in text


@pytest.mark.parametrize(
    ("connect_s", "count_connect", "stated"),
    [(0.05, True, "included"), (0.05, False, "not included"), (0.0, True, "not included")],
)
def test_an_exported_summary_states_connecting_and_counters(
    tmp_path: Path,
    write_run: Write,
    make_record: Make,
    capsys: pytest.CaptureFixture[str],
    connect_s: float,
    count_connect: bool,
    stated: str,
) -> None:
    new = write_run(rows(make_record, connect_s=connect_s, ttft_s=0.25), manifest=LLAMA)
    out = tmp_path / "out"
    more = ["--count-connect"] if count_connect else []
    assert main([str(new), "--format", "json", "--out", str(out), *more]) == 0
    (path,) = out.glob("*_summary.json")
    summary = json.loads(path.read_text())
    assert (summary["connect_time"], summary["output_tokens_source"]) == (stated, "tokenizer")
    assert summary["tokenizer"] == "hf-internal-testing/llama-tokenizer"
    assert summary["results_ttft_s_mean"] == pytest.approx(0.30 if stated == "included" else 0.25)
    capsys.readouterr()
    old = llmperf_file(tmp_path, "old_70b", summary={"num_concurrent_requests": 5})
    text = printed(capsys, old, out, "--count-connect")
    if stated == "included":
        assert "Not comparable" not in text
        assert "nothing was added: old and new." in text
    else:
        assert text.count("Not comparable: ") == 1
        assert "included in those of old; not included in those of new." in text
        assert "nothing was added: old." in text
        assert "The files of new were written without the connection time" in text


def test_entries_without_a_framework_have_the_name_of_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [llmperf_file(tmp_path, f"model-{name}_550_150", summary={"num_concurrent_requests": 5}) for name in "ab"]
    text = printed(capsys, *files, "--count-connect")
    assert "nothing was added: model-a_550_150 and model-b_550_150." in text


def test_an_entry_gets_a_name_and_the_load_that_its_file_does_not_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = llmperf_file(tmp_path, "model-a_550_150")
    two = llmperf_file(tmp_path, "model-b_550_150", summary={"num_concurrent_requests": 5})
    text = printed(capsys, f"lepton@5={one}", f"mine={two}")
    assert "Not comparable" not in text
    assert {run.requests["framework"].iloc[0] for run in llm_reports.load_all([f"lepton@5={one}", two])} == {
        "lepton",
        "",
    }
    assert llm_reports.groups([llm_reports.load(f"lepton@5={one}")])[0].concurrency == 5
    assert main(["leaderboard", f"x@5={two}"]) == 2
    assert "states its load" in capsys.readouterr().err
    assert main(["leaderboard", f"x@0={one}"]) == 2
    assert "not a concurrency" in capsys.readouterr().err
    # A file whose name has the form is a file.
    odd = llmperf_file(tmp_path, "a=b")
    assert llm_reports.load(odd).source == odd


def test_a_run_without_measured_requests_is_named(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_run(rows(make_record), name="good")
    for name, empty in (("nothing", []), ("warm", rows(make_record, measured=0, phase="warmup"))):
        assert main(["leaderboard", str(write_run(empty, name=name)), str(good)]) == 3
        shown = capsys.readouterr()
        assert f"error: {name} has no measured requests" in shown.err
        assert f"- {name} has no measured requests." in shown.out
        assert "100/100" in shown.out


def test_compare_points_to_the_leaderboard_for_files_of_llmperf(
    tmp_path: Path, write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    new = str(write_run(rows(make_record)))
    assert main(["compare", str(llmperf_file(tmp_path, "unknown_70b")), new]) == 2
    assert "use llm-report leaderboard INPUT..." in capsys.readouterr().err
    old = str(llmperf_file(tmp_path, "old_70b", summary={"num_concurrent_requests": 5}))
    for inputs, hints in (([old, new], 1), ([old, str(llmperf_file(tmp_path, "old_8b", summary={
        "num_concurrent_requests": 5}))], 0)):  # fmt: skip
        assert main(["compare", *inputs]) == 0
        assert " ".join(capsys.readouterr().out.split()).count("use llm-report leaderboard INPUT...") == hints


def test_the_note_about_intervals_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"lepton": 20, "ourcloud": 150}
    files = [
        llmperf_file(tmp_path, f"{name}_m", inputs=around(550, 150, count), outputs=around(150, 80, count))
        for name, count in answers.items()
    ]
    assert "per stage: lepton has 20, ourcloud has 150." in printed(capsys, *files)


@pytest.mark.parametrize("health", ["disturbed", "saturated"])
def test_the_note_about_the_client_says_which_figures_can_be_late(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], health: str
) -> None:
    assert main(["leaderboard", str(write_sweep(tmp_path / "run", levels=(4,), requests=60, healths=[health]))]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Ranked below the others: vllm llama-3.1-8b-instruct (the client was {health})." in text.replace(
        "No entry can be best", "Ranked below the others"
    ).replace(" at concurrency 4", "")
    assert f"The client was {health}: " in text
    assert (
        "a TTFT whose send was interrupted include this delay. Arrivals that the kernel stamped are not late;" in text
    )
