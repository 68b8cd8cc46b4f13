"""Right and wrong answers in every format, and LLMPerf's own files of its correctness test."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.errors import InputError
from llm_reports.main import main
from llm_reports.metrics.correctness import STRICT_MATCH, mismatches
from llm_users.record import RequestRecord
from llm_users.run_files import REQUESTS_CSV, path_of

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]
HOSTILE = "<script>x</script>|![a](http://b.test/c.png) `=cmd` **2**"


def answers(make: Make, right: int, wrong: int, vague: int = 0, *, first: int = 0, **more: Any) -> list[RequestRecord]:
    """Checked requests, in random order when there are many: each of them asked for 42."""
    kinds = [("42", 1, 1)] * right + [("43", 0, 0)] * wrong + [("43 or 42", 1, 0)] * vague
    if len(kinds) >= 100:
        random.Random(7).shuffle(kinds)
    return [
        make(first + i, user_class="Numbers", expected_answer="42", answer_excerpt=text, answer_match=match,
             answer_strict_match=strict, **more)
        for i, (text, match, strict) in enumerate(kinds)
    ]  # fmt: skip


def failed(make: Make, count: int, code: str = "500", *, first: int = 900) -> list[RequestRecord]:
    return [make(first + i, user_class="Numbers", error_code=code, error_message="no") for i in range(count)]


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out


def test_the_share_of_wrong_answers_is_in_every_format(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = answers(make_record, 170, 20, 10) + failed(make_record, 5)
    prefix = write_run(rows + answers(make_record, 50, 0, first=300, stage=2, concurrency=4))
    code, text = printed(capsys, prefix, "--format", "md,csv,html")
    assert code == 0
    table = text.partition("## Correctness")[2]
    assert "| concurrency 1 |     200 |    20 | 10.0 % | 6.6 % to 14.9 % |             30 | 15.0 % |" in table
    assert "| concurrency 4 |      50 |     0 |  0.0 % |  0.0 % to 7.1 % |              0 |  0.0 % |" in table
    assert "| concurrency 1 | `42`     | `43`     |" in table
    folder = prefix.with_name("run_report")
    assert table.strip() in (folder / "report.md").read_text()
    lines = list(csv.DictReader((folder / "summary.csv").open()))
    (loose,) = [line for line in lines if line["metric"] == "mismatch_ratio" and line["stage"] == "1"]
    assert (loose["n"], loose["mean"], loose["unit"]) == ("200", "0.1", "share")
    assert (float(loose["mean_ci_low"]), float(loose["mean_ci_high"])) == pytest.approx((0.06565, 0.14944), abs=1e-4)
    (strict,) = [line for line in lines if line["metric"] == "strict_mismatch_ratio" and line["stage"] == "1"]
    assert strict["mean"] == "0.15"
    assert "<td>6.6 % to 14.9 %</td>" in (folder / "report.html").read_text()


def test_a_run_without_checks_says_nothing_of_answers(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_run([make_record(i) for i in range(5)])
    _, text = printed(capsys, prefix, "--format", "md,csv,json")
    assert "Correctness" not in text
    folder = prefix.with_name("run_report")
    assert "mismatch" not in (folder / "summary.csv").read_text()
    assert not list(folder.glob("*correctness*"))


def test_rows_of_before_are_still_read(write_run: Write, make_record: Make) -> None:
    prefix = write_run([make_record(0)])
    path = path_of(prefix, REQUESTS_CSV)
    rows = list(csv.DictReader(path.open()))
    for name in ("expected_answer", "answer_match", "answer_strict_match", "answer_excerpt"):
        del rows[0][name]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert mismatches(llm_reports.groups([llm_reports.load(prefix)])[0]).checked == 0


def test_what_a_server_answers_is_only_text(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    row = make_record(0, user_class="N", expected_answer="=1", answer_excerpt=HOSTILE, answer_match=0)
    prefix = write_run([row])
    _, text = printed(capsys, prefix, "--format", "md,html")
    (line,) = [line for line in text.splitlines() if "script" in line]
    assert line.count("`") == 4  # two cells are code, and nothing in them ends it
    assert "\\|![a]" in line
    page = (prefix.with_name("run_report") / "report.html").read_text()
    assert "<code>&lt;script&gt;x&lt;/script&gt;|![a](http://b.test/c.png)" in page
    assert "<script>x" not in page


def test_objectives_judge_the_answers(write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = llm_reports.load(write_run(answers(make_record, 480, 10, 10) + failed(make_record, 3)))

    def verdict(expression: str) -> tuple[str, str]:
        (judgement,) = llm_reports.gate(llm_reports.groups([run]), llm_reports.parse_objectives(expression)).judgements
        return judgement.verdict, judgement.reason

    assert verdict("mismatches<0.05")[0] == "passed"
    assert verdict("mismatches<1%") == (
        "failed",
        "mismatches<1% does not hold: measured 2 %, 95 % interval from 1.09 % (500 requests)",
    )
    outcome, reason = verdict("mismatches<2.5%")
    assert outcome == "undecided"
    assert "would decide it" in reason
    assert verdict("strict_mismatches<0.05")[1].startswith("the interval (2.6")
    few = llm_reports.load(write_run(answers(make_record, 20, 0), name="few"))
    (judgement,) = llm_reports.gate(
        llm_reports.groups([few]), llm_reports.parse_objectives("mismatches<0.01")
    ).judgements
    assert judgement.reason == "mismatches<0.01 needs at least 381 requests for a verdict, but there are 20"


def test_answers_that_were_cut_may_have_been_wrong(write_run: Write, make_record: Make) -> None:
    rows = answers(make_record, 400, 0)
    for cut, outcome in ((0, "passed"), (10, "undecided")):
        prefix = write_run(rows + failed(make_record, cut, "aborted"), name=f"cut{cut}")
        (group,) = llm_reports.groups([llm_reports.load(prefix)])
        assert mismatches(group).unknown == cut
        (judgement,) = llm_reports.gate([group], llm_reports.parse_objectives("mismatches<0.01")).judgements
        assert judgement.verdict == outcome, judgement.reason


def test_a_wrong_answer_is_no_goodput(write_run: Write, make_record: Make) -> None:
    groups = llm_reports.groups([llm_reports.load(write_run(answers(make_record, 60, 40)))])
    (careless,) = llm_reports.stage_points(groups, "ttft_p95<1")
    (careful,) = llm_reports.stage_points(groups, "ttft_p95<1,mismatches<0.5")
    assert (careless.attainment, careful.attainment) == (1.0, 0.6)
    assert careful.goodput_tokens_per_s == pytest.approx(0.6 * careless.goodput_tokens_per_s)


@pytest.mark.parametrize("text", ["mismatches_p95<0.1", "mismatches<0", "mismatches>0.1", "strict_mismatches<2"])
def test_an_objective_on_answers_is_a_share(text: str) -> None:
    with pytest.raises(InputError):
        llm_reports.parse_objectives(text)


def test_llmperfs_pair_of_files(write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        *answers(make_record, 6, 2, 1),
        *failed(make_record, 1, "429"),
        *failed(make_record, 1, "aborted", first=950),
    ]
    others = [make_record(100 + i, user_class="Sweep") for i in range(4)]
    prefix = write_run(
        [*rows, *others],
        manifest={"options": {"llm_extra_body": '{"top_p": 1}', "llm_input_tokens": "550,150"}},
    )
    _, before = printed(capsys, prefix, "--format", "json")
    folder = prefix.with_name("run_report")
    assert sorted(path.name for path in folder.iterdir()) == [
        "tiny_550_50_individual_responses.json", "tiny_550_50_summary.json",
        "tiny_correctness_individual_responses.json", "tiny_correctness_summary.json",
    ]  # fmt: skip
    summary = json.loads((folder / "tiny_correctness_summary.json").read_text())
    timestamp = summary.pop("timestamp")
    assert list(summary.items()) == [
        ("version", "2023-08-31"),
        ("name", "tiny_correctness_summary"),
        ("number_errors", 1),
        ("num_mismatched_requests", 2),
        ("error_rate", 0.1),
        ("mismatch_rate", 0.2),
        ("num_completed_requests", 10),
        ("num_non_errored_requests", 9),
        ("model", "tiny"),
        ("num_concurrent_requests", 1),
        ("additional_sampling_params_top_p", 1),
        ("llm_api", "openai"),
        ("framework", "vllm"),
        ("num_strict_mismatched_requests", 3),
        ("strict_mismatch_rate", 0.3),
    ]
    assert type(timestamp) is int
    responses = json.loads((folder / "tiny_correctness_individual_responses.json").read_text())
    assert len(responses) == 10
    assert list(responses[0]) == ["metrics", "generated_text", "request_config"]
    assert responses[0]["metrics"]["ttft_s"] == 0.1
    assert responses[6]["generated_text"] == "43"
    assert responses[6]["request_config"] == {
        "model": "tiny", "prompt": None, "sampling_params": None, "llm_api": "openai",
        "metadata": {"rnd_number": 42, "match": False, "strict_match": False},
    }  # fmt: skip
    assert responses[9]["metrics"]["error_code"] == 429
    assert len(json.loads((folder / "tiny_550_50_individual_responses.json").read_text())) == 4
    _, after = printed(capsys, folder)
    assert after.count("|       9 |     2 | 22.2 % |") == before.count("|       9 |     2 | 22.2 % |") == 1


def test_llmperfs_own_correctness_files_are_judged_by_its_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {
        "error_code": None, "error_msg": "", "inter_token_latency_s": 0.9, "ttft_s": 0.25, "end_to_end_latency_s": 1.0,
        "request_output_throughput_token_per_s": 8.0, "number_total_tokens": 8, "number_output_tokens": 8,
        "number_input_tokens": 0,
    }  # fmt: skip
    said = [(1234, "1,234"), (1234, "1,234 is 1200 and 34"), (77, "seventy-seven"), (5, "15")]
    responses = [
        {
            "metrics": metrics,
            "generated_text": text,
            "request_config": {
                "model": "org/tiny", "prompt": ["...", 0], "sampling_params": {"temperature": 0.0}, "llm_api": "openai",
                "metadata": {"rnd_number": number},
            },
        }
        for number, text in said
    ]  # fmt: skip
    refused = {**metrics, "error_code": 429, "error_msg": "slow down", "ttft_s": 0, "end_to_end_latency_s": 0}
    responses.append({**responses[0], "metrics": refused, "generated_text": ""})
    (tmp_path / "org-tiny_correctness_individual_responses.json").write_text(json.dumps(responses))
    summary = {"version": "2023-08-31", "number_errors": 1, "num_mismatched_requests": 2, "model": "org/tiny",
               "num_concurrent_requests": 3, "llm_api": "openai", "timestamp": 1_700_000_000}  # fmt: skip
    (tmp_path / "org-tiny_correctness_summary.json").write_text(json.dumps(summary))
    code, text = printed(capsys, tmp_path)
    assert code == 0
    assert "| all requests |       4 |     2 | 50.0 % |" in text
    assert "|              3 | 75.0 % |" in text
    assert "| -         | org/tiny |  0.250 |" in text
    run = llm_reports.load(tmp_path)
    (group,) = llm_reports.groups([run])
    assert mismatches(group, STRICT_MATCH).wrong == 3
    assert (group.concurrency, group.counts.failed) == (3, 1)
    assert run.requests["input_tokens"].isna().all()
    assert run.requests["llmperf_inter_token_latency_s"].isna().all()
    (tmp_path / "org-tiny_correctness_summary.json").unlink()
    assert llm_reports.load(tmp_path).requests["model"][0] == "org-tiny"
