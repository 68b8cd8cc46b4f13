"""What a comparison sees and decides: separated runs, pairs of prompts, several runs per side, thresholds, failures."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.compare.estimates import newcombe
from llm_reports.errors import InputError
from llm_reports.main import main
from llm_reports.markdown.report import comparison_text
from llm_users.record import RequestRecord

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]
USERS = 4
LENGTHS = {"llm_seed": "11111", "llm_input_tokens": "550,150", "llm_output_tokens": "150,80"}


def rows(
    make: Make, seed: int, *, n: int = 200, scale: float = 1.0, spread: float = 0.02, failing: float = 0.0,
    long: float = 0.0, input_scale: float = 1.0,
) -> list[RequestRecord]:  # fmt: skip
    """A closed loop of four users. ``long``: the spread of lengths, which are the same for every seed."""
    dice, lengths, at, made = random.Random(seed), random.Random(0), 1.7e9, []
    for i in range(n):
        length = math.exp(lengths.gauss(0, long))
        failed = dice.random() < failing
        ttft_s = 0.2 * scale * math.exp(dice.gauss(0, spread))
        took_s = ttft_s + length * scale * math.exp(dice.gauss(0, spread))
        tokens = max(2, round(50 * length))
        values: dict[str, Any] = {
            "ttft_s": ttft_s, "end_to_end_latency_s": took_s, "tpot_s": (took_s - ttft_s) / (tokens - 1),
            "output_tokens": tokens,
        }  # fmt: skip
        if failed:
            values = {**dict.fromkeys(values), "end_to_end_latency_s": 0.02, "error_code": "500"}
        made.append(
            make(
                i, concurrency=USERS, started_at=at, prompt_index=i, requested_output_tokens=tokens,
                input_tokens=round(550 * length * input_scale), **values,
            )
        )  # fmt: skip
        at += (0.02 if failed else took_s) / USERS
    return made


def frame_of(runs: list[Path], **options: Any) -> Any:
    return llm_reports.compare_runs(llm_reports.load_all(runs), **options).frame().set_index(["metric", "figure"])


MEDIAN = ("end_to_end_latency_s", "median")


def test_completely_separated_runs_have_the_smallest_p(write_run: Write, make_record: Make) -> None:
    """At 2 % spread, medians 1.03 to 10 times as large; 9,999 shuffles cannot give less than 1 in 10,000."""
    before = write_run(rows(make_record, 1), name="before")
    for factor in (1.03, 1.1, 1.5, 2.0, 10.0):
        after = write_run(rows(make_record, 2, scale=factor), name=f"after{factor}")
        frame = frame_of([before, after])
        assert frame.loc[MEDIAN, "p"] == pytest.approx(1e-4, abs=2e-5), factor
        assert set(frame[frame.index.get_level_values("metric") != "error_ratio"]["outcome"]) == {"worse"}


def test_no_errors_against_only_errors_is_the_largest_difference(tmp_path: Path) -> None:
    """In LLMPerf's files, which have no times of starts."""
    for name, code in (("good", "null"), ("dead", "500")):
        one = (
            f'{{"error_code": {code}, "error_msg": "", "ttft_s": 0.2, "end_to_end_latency_s": 1.0, '
            '"number_total_tokens": 600, "number_output_tokens": 50, "number_input_tokens": 550}'
        )
        (tmp_path / f"{name}_individual_responses.json").write_text(f"[{', '.join([one] * 200)}]")
    inputs = [str(tmp_path / f"{name}_individual_responses.json") for name in ("good", "dead")]
    frame = frame_of([Path(path) for path in inputs])
    assert frame.loc[("error_ratio", "share"), "p"] == pytest.approx(1e-4, abs=2e-5)
    assert frame.loc[("error_ratio", "share"), "outcome"] == "worse"
    assert main(["compare", *inputs, "--threshold", "5%"]) == 3
    assert main(["compare", *reversed(inputs), "--threshold", "5%"]) == 0


def test_two_runs_in_which_everything_failed_decide_nothing(write_run: Write, make_record: Make) -> None:
    runs = [write_run(rows(make_record, seed, failing=1.0), name=f"dead{seed}") for seed in (1, 2)]
    comparison = llm_reports.compare_runs(llm_reports.load_all(runs), threshold=0.05)
    assert not comparison.passed
    assert comparison.undecided[0].reason == "no request succeeded in any run at concurrency 4"


def test_a_run_that_works_after_one_in_which_everything_failed_passes(write_run: Write, make_record: Make) -> None:
    dead = write_run(rows(make_record, 1, failing=1.0), name="dead")
    good = write_run(rows(make_record, 2), name="good")
    frame = frame_of([dead, good], threshold=0.05)
    assert frame.loc[("output_throughput_token_per_s", "system"), "verdict"] == "passed"
    assert main(["compare", str(dead), str(good), "--threshold", "5%"]) == 0
    assert main(["compare", str(good), str(dead), "--threshold", "5%"]) == 3


def test_runs_without_a_difference_have_p_one(write_run: Write, make_record: Make) -> None:
    runs = [write_run(rows(make_record, seed), name=f"run{seed}") for seed in (1, 2)]
    assert frame_of(runs).loc[("error_ratio", "share"), "p"] == 1.0


def test_pairs_of_prompts_give_intervals_eight_times_narrower(write_run: Write, make_record: Make) -> None:
    """The same rows, with and without manifests; latencies of 50 % spread in length and 2 % beside it, 3 % slower."""
    made = [rows(make_record, seed, n=400, scale=scale, long=0.5) for seed, scale in ((1, 1.0), (2, 1.03))]
    widths = []
    for kind, manifest in (("paired", {"run_id": "run-1", "options": LENGTHS}), ("alone", None)):
        runs = [write_run(each, name=f"{kind}{i}", manifest=manifest) for i, each in enumerate(made)]
        frame = frame_of(runs)
        line = frame.loc[MEDIAN]
        assert line["paired"] == (kind == "paired")
        assert line["ratio_ci_low"] <= 1.03 <= line["ratio_ci_high"]
        assert line["outcome"] == ("worse" if kind == "paired" else "no clear difference")
        system = frame.loc[("output_throughput_token_per_s", "system")]
        widths.append((math.log(line["ratio_ci_high"] / line["ratio_ci_low"]),
                       math.log(system["ratio_ci_high"] / system["ratio_ci_low"])))  # fmt: skip
    assert widths[1][0] / widths[0][0] > 8
    assert widths[1][1] / widths[0][1] > 3  # long answers have more tokens, so lengths matter less to throughput


@pytest.mark.parametrize(
    ("options", "input_scale", "shift", "reason"),
    [
        ({"llm_seed": "7"}, 1.0, 0, "the runs differ in --llm-seed"),
        ({"llm_output_tokens": "100,10"}, 1.0, 0, "the runs differ in --llm-output-tokens"),
        ({}, 1.05, 0, "the input tokens of all prompts together differ by "),
        ({}, 1.2, 0, "the input tokens of the same prompts differ by 20.0 % on average"),
        ({}, 1.0, 150, "only 50 of 200 prompts were measured in both runs"),
    ],
)
def test_runs_of_other_prompts_are_not_paired(
    write_run: Write, make_record: Make, options: dict[str, str], input_scale: float, shift: int, reason: str
) -> None:
    base = write_run(rows(make_record, 1), name="base", manifest={"options": LENGTHS})
    made = rows(make_record, 2, input_scale=input_scale)
    for row in made:
        row.prompt_index = (row.prompt_index or 0) + shift
    other = write_run(made, name="other", manifest={"options": {**LENGTHS, **options}})
    comparison = llm_reports.compare_runs(llm_reports.load_all([base, other]))
    assert not comparison.frame()["paired"].any()
    assert any(reason in note for note in comparison.notes), comparison.notes


def test_texts_need_not_agree_to_pair(write_run: Write, make_record: Make) -> None:
    """The run key changes the texts, and with them the input tokens by a little."""
    base = write_run(rows(make_record, 1), name="base", manifest={"options": {**LENGTHS, "llm_run_key": "a"}})
    other = write_run(
        rows(make_record, 2, input_scale=1.01), name="other", manifest={"options": {**LENGTHS, "llm_run_key": "b"}}
    )
    assert frame_of([base, other]).loc[MEDIAN, "paired"]


@pytest.mark.parametrize(("apart", "paired"), [(0.019, True), (0.05, True), (0.12, True), (0.17, False)])
def test_token_counts_that_differ_in_both_directions_pair(
    write_run: Write, make_record: Make, apart: float, paired: bool
) -> None:
    """A server with another tokenizer counts every other prompt higher, and the others lower by the same share."""
    made = [rows(make_record, seed) for seed in (1, 2)]
    for i, row in enumerate(made[1]):
        row.input_tokens = round((row.input_tokens or 0) * (1 + (apart if i % 2 else -apart)))
    runs = [write_run(each, name=f"run{i}", manifest={"options": LENGTHS}) for i, each in enumerate(made)]
    assert frame_of(runs).loc[MEDIAN, "paired"] == paired


@pytest.mark.parametrize(("scale", "paired"), [(1.0, True), (1.03, True), (1.15, False)])
def test_few_short_prompts_pair_unless_their_lengths_surely_differ(
    write_run: Write, make_record: Make, scale: float, paired: bool
) -> None:
    """Other texts of the same length have 9 % more or fewer tokens: the totals of 20 prompts differ by 3 %."""
    dice = random.Random(4)
    made = [rows(make_record, seed, n=20) for seed in (1, 2)]
    for side, of_run in enumerate(made):
        for row in of_run:
            row.input_tokens = round(100 * (scale if side else 1.0) * (1 + dice.gauss(0, 0.065)))
    totals = [sum(row.input_tokens or 0 for row in of_run) for of_run in made]
    if scale == 1.0:
        assert abs(totals[1] / totals[0] - 1) > 0.02
    runs = [write_run(each, name=f"run{i}", manifest={"options": LENGTHS}) for i, each in enumerate(made)]
    assert frame_of(runs).loc[MEDIAN, "paired"] == paired


def test_prompts_that_failed_in_one_run_are_left_out_of_its_partner(write_run: Write, make_record: Make) -> None:
    """The long half fails in the second run: what is left is shorter, and not faster."""
    made = [rows(make_record, seed, long=0.5) for seed in (1, 2)]
    median = sorted(row.output_tokens or 0 for row in made[1])[100]
    for row in made[1]:
        if (row.output_tokens or 0) > median:
            row.error_code, row.ttft_s, row.end_to_end_latency_s, row.tpot_s = "timeout", None, None, None
    runs = [write_run(each, name=f"run{i}", manifest={"options": LENGTHS}) for i, each in enumerate(made)]
    frame = frame_of(runs)
    assert frame.loc[MEDIAN, "ratio"] == pytest.approx(1.0, abs=0.01)
    assert frame.loc[("error_ratio", "share"), "outcome"] == "worse"


def test_quick_failures_are_no_improvement(write_run: Write, make_record: Make) -> None:
    """60 % of the requests fail at once, so those that are left get the server for themselves and are faster."""
    before = write_run(rows(make_record, 1), name="before")
    after = write_run(rows(make_record, 2, scale=0.5, failing=0.6), name="after")
    comparison = llm_reports.compare_runs(llm_reports.load_all([before, after]), threshold=0.05)
    frame = comparison.frame().set_index(["metric", "figure"])
    assert "better" not in set(frame["outcome"])
    assert "error_ratio share" in [line.name for line in comparison.failed]
    assert "Latencies include successful requests only" in comparison_text(comparison).replace("\n  ", " ")


def test_thirty_requests_do_not_pass_what_is_a_fifth_slower(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    before = write_run(rows(make_record, 1, n=30, spread=0.5), name="before")
    after = write_run(rows(make_record, 2, n=30, spread=0.5, scale=1.2), name="after")
    assert main(["compare", str(before), str(after), "--threshold", "5%"]) == 3
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2].startswith("**Undecided**: all 6 deciding figures are undecided.")
    assert "requests per run and stage would decide" in " ".join(printed.out.split())
    assert "Undecided" in printed.err


def test_as_many_requests_as_said_decide(write_run: Write, make_record: Make) -> None:
    """The number follows from this sample, so twice as many are taken to be safe."""
    on = {"threshold": 0.05, "on": "end_to_end_latency_s median"}
    few = [write_run(rows(make_record, s, n=60, spread=0.4, scale=f), name=f"few{s}") for s, f in ((3, 1.0), (4, 1.3))]
    line = frame_of(few, **on).loc[MEDIAN]
    assert line["verdict"] == "undecided"
    needed = int(line["needed"])
    assert 60 < needed < 5000
    n = 2 * needed
    many = [write_run(rows(make_record, s, n=n, spread=0.4, scale=f), name=f"many{s}") for s, f in ((3, 1.0), (4, 1.3))]
    assert frame_of(many, **on).loc[MEDIAN, "verdict"] == "failed"


def test_what_does_not_decide_fails_only_when_surely_worse(write_run: Write, make_record: Make) -> None:
    before = write_run(rows(make_record, 1, n=400), name="before")
    made = rows(make_record, 2, n=400)
    for row in made[::10]:  # a tenth of the requests stalls: the P95 is twice as long, the medians stay
        row.end_to_end_latency_s = 2.5
    after = write_run(made, name="after")
    comparison = llm_reports.compare_runs(llm_reports.load_all([before, after]), threshold=0.05)
    assert [line.name for line in comparison.failed] == ["end_to_end_latency_s p95"]
    wide = write_run(rows(make_record, 3, n=30), name="wide")
    line = frame_of([wide, before], threshold=0.05).loc[("end_to_end_latency_s", "p95")]
    assert line["verdict"] == ""  # 30 requests have no P95 that is bounded, and nobody asked for one


def test_on_chooses_the_figures_that_decide(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    before = write_run(rows(make_record, 1, n=400), name="before")
    after = write_run(rows(make_record, 2, n=400, failing=0.01), name="after")
    runs = llm_reports.load_all([before, after])

    def deciding(on: str) -> set[str]:
        return {
            line.name for line in llm_reports.compare_runs(runs, threshold=0.05, on=on).differences if line.deciding
        }

    assert deciding("ttft_s median, error_ratio") == {"ttft_s median", "error_ratio share"}
    assert deciding("ttft_s") == {"ttft_s median", "ttft_s p95"}
    assert deciding("p95") == {"ttft_s p95", "tpot_s p95", "end_to_end_latency_s p95"}
    assert main(["compare", str(before), str(after), "--threshold", "5%", "--on", "ttft_p95"]) == 2
    said = capsys.readouterr().err
    assert "'ttft_p95' does not match any line of the table" in said
    assert "ttft_s p95" in said
    with pytest.raises(InputError, match="without --threshold"):
        llm_reports.compare_runs(runs, on="ttft_s")


def test_the_run_is_the_unit_when_there_are_several(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Runs differ by 10 % from one to the next, each precise to 1 %: single runs are told apart, sides are not."""
    scales = {"a1": 1.0, "a2": 1.1, "a3": 0.9, "b1": 1.12, "b2": 0.92, "b3": 1.0}
    runs = {name: write_run(rows(make_record, i, scale=s), name=name) for i, (name, s) in enumerate(scales.items())}
    first, second = ([str(runs[f"{side}{i}"]) for i in (1, 2, 3)] for side in "ab")
    assert frame_of([runs["a1"], runs["b1"]]).loc[MEDIAN, "outcome"] == "worse"
    assert main(["compare", *first, "--against", *second, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("## a1, a2, a3 against b1, b2, b3\n")
    assert "The run is the statistical unit (3 and 3 runs)" in text
    assert "no clear difference" in text
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "a1, a2, a3 against b1, b2, b3" in page
    sides = [llm_reports.load_all([Path(path) for path in side]) for side in (first, second)]
    line = llm_reports.compare_runs(sides[0], against=sides[1]).frame().set_index(["metric", "figure"]).loc[MEDIAN]
    # Student's t of the logarithms with 4 degrees of freedom: 2.776 standard errors.
    logs = [[math.log(float(run.requests["end_to_end_latency_s"].median())) for run in side] for side in sides]
    means = [sum(side) / 3 for side in logs]
    error = math.sqrt(sum((v - m) ** 2 for side, m in zip(logs, means, strict=True) for v in side) / 4 * 2 / 3)
    assert math.log(line["ratio_ci_high"]) == pytest.approx(means[1] - means[0] + 2.776 * error, rel=1e-3)
    assert main(["compare", *first, "--against", first[0]]) == 2
    assert "on both sides" in capsys.readouterr().err


def test_three_runs_per_side_decide_what_is_beyond_their_spread(write_run: Write, make_record: Make) -> None:
    first = [write_run(rows(make_record, i, scale=1 + 0.01 * i), name=f"a{i}") for i in range(3)]
    second = [write_run(rows(make_record, 9 + i, scale=1.5 + 0.01 * i), name=f"b{i}") for i in range(3)]
    comparison = llm_reports.compare_runs(
        llm_reports.load_all(first), against=llm_reports.load_all(second), threshold=0.05
    )
    assert {line.name for line in comparison.failed} >= {"ttft_s median", "end_to_end_latency_s median"}
    lines = [line.split("|") for line in comparison_text(comparison).splitlines() if line.startswith("|")]
    ps = {cells[8].strip() for cells in lines if cells[2].strip() in {line.name for line in comparison.failed}}
    assert "below 0.0001" in ps, "no p is printed as 0"
    assert "0.0000" not in ps
    one = llm_reports.compare_runs(llm_reports.load_all(first[:1]), against=llm_reports.load_all(second[:1]))
    assert "single runs" in one.notes[0]


def test_newcombes_interval_is_that_of_his_paper() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table II, method 10: 56/70 against 48/80, and 10/10 against 0/10."""
    for (a, m), (b, n), low, high in (((56, 70), (48, 80), 0.0524, 0.3339), ((10, 10), (0, 10), 0.6075, 1.0)):
        interval = newcombe((b / n, a / m), (n, m))
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_every_cell_has_one_unit(write_run: Write, make_record: Make) -> None:
    before = write_run(rows(make_record, 1), name="before")
    after = write_run(rows(make_record, 2, scale=1.1, failing=0.1), name="after")
    text = comparison_text(llm_reports.compare_runs(llm_reports.load_all([before, after])))
    cells = {line.split("|")[2].strip(): [cell.strip() for cell in line.split("|")[3:7]]
             for line in text.splitlines() if line.startswith("|")}  # fmt: skip
    assert re.fullmatch(r"\d+\.\d % \(\d+\.\d to \d+\.\d %\)", cells["error_ratio share"][2])
    assert re.fullmatch(r"\+[\d.]+ ms \([\d.]+ to [\d.]+ ms\)", cells["ttft_s median"][2])
    assert re.fullmatch(r"\+[\d.]+ % \(\+[\d.]+ to \+[\d.]+ %\)", cells["ttft_s median"][3])
    assert cells["ttft_s median"][0].endswith(" s")


def test_an_unsteady_stage_is_not_passed(write_run: Write, make_record: Make) -> None:
    runs = llm_reports.load_all([write_run(rows(make_record, s, n=400), name=f"run{s}") for s in (1, 2)])
    assert llm_reports.compare_runs(runs, threshold=0.05).passed
    stages = runs[1].stages.reindex([0]).assign(stage=1, steadiness="unsteady", health="ok")
    unsteady = llm_reports.Run(runs[1].name, runs[1].source, runs[1].requests, stages)
    comparison = llm_reports.compare_runs([runs[0], unsteady], threshold=0.05)
    assert not comparison.passed
    assert "the queue of run2 grew through the stage" in comparison.undecided[0].reason


def test_a_difference_within_the_threshold_is_not_relevant(write_run: Write, make_record: Make) -> None:
    """2 % slower and 2 % faster, which 400 requests with 1 % spread show. A threshold of 10 % makes it irrelevant."""
    before = write_run(rows(make_record, 1, n=400, spread=0.01), name="before")
    for scale, outcome in ((1.02, "worse"), (0.98, "better")):
        after = write_run(rows(make_record, 2, n=400, scale=scale, spread=0.01), name=f"after{scale}")
        runs = llm_reports.load_all([before, after])
        outcomes = {t: llm_reports.compare_runs(runs, threshold=t).frame() for t in (None, 0.001, 0.1)}
        found = {
            t: frame.set_index(["metric", "figure"]).loc[MEDIAN, "outcome"] for t, frame in outcomes.items()
        }  # fmt: skip
        assert found == {None: outcome, 0.001: outcome, 0.1: "no relevant difference"}
        text = " ".join(comparison_text(llm_reports.compare_runs(runs, threshold=0.1)).split())
        assert "figures differ significantly, but by less than 10 %." in text
        assert "significantly worse" not in text


def test_more_errors_stay_relevant_within_a_threshold(write_run: Write, make_record: Make) -> None:
    before = write_run(rows(make_record, 1, n=1000), name="before")
    after = write_run(rows(make_record, 2, n=1000, failing=0.03), name="after")
    line = frame_of([before, after], threshold=0.1).loc[("error_ratio", "share")]
    assert (line["outcome"], line["verdict"]) == ("worse", "failed")


def test_the_output_contains_the_figures_that_decide(write_run: Write, make_record: Make, tmp_path: Path) -> None:
    """TTFT is 200 ms and exactly 230 ms: both values, the change with its interval and the limit are printed."""
    before = write_run(rows(make_record, 1, spread=0.001), name="before")
    after = write_run(rows(make_record, 2, scale=1.15, spread=0.001), name="after")
    comparison = llm_reports.compare_runs(llm_reports.load_all([before, after]), threshold=0.1)
    text = comparison_text(comparison)
    (cells,) = (line.split("|") for line in text.splitlines() if "| ttft_s median" in line)
    values = [cell.strip() for cell in cells]
    assert values[3:5] == ["0.200 s", "0.230 s"]
    assert re.fullmatch(r"\+15\.0 % \(\+1\d\.\d to \+1\d\.\d %\)", values[6])
    assert values[7] == "+10 %"
    assert re.search(r"ttft_s median at concurrency 4: 0.200 s before, 0.230 s after, \+15.0 %", " ".join(text.split()))
    assert main(["compare", str(before), str(after), "--threshold", "10%", "--junit", str(tmp_path / "c.xml")]) == 3
    assert "0.200 s before, 0.230 s after, +15.0 %" in (tmp_path / "c.xml").read_text()
    assert "limit +10 %" in (tmp_path / "c.xml").read_text()


def test_small_differences_are_readable(write_run: Write, make_record: Make) -> None:
    """0.1 % of 200 ms is 0.2 ms. Three digits of both values would be the same."""
    before = write_run(rows(make_record, 1, spread=1e-5), name="before")
    after = write_run(rows(make_record, 1, scale=1.001, spread=1e-5), name="after")
    text = comparison_text(llm_reports.compare_runs(llm_reports.load_all([before, after])))
    (cells,) = (line.split("|") for line in text.splitlines() if "| ttft_s median" in line)
    values = [cell.strip() for cell in cells]
    assert values[3:5] == ["0.2000 s", "0.2002 s"]
    assert values[5].startswith("+0.200 ms (")
    assert values[6].startswith("+0.10 % (")
