"""Runs against runs: what is matched, what is more than noise, what a pipeline is told."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_reports
from llm_reports.errors import InputError
from llm_reports.main import main
from llm_users.record import RequestRecord, StageRecord

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]


def run_of(
    make: Make, seed: int, *, n: int = 200, scale: float = 1.0, levels: tuple[int, ...] = (1, 4), failing: float = 0.0
) -> list[RequestRecord]:
    dice = random.Random(seed)
    rows = []
    for stage, level in enumerate(levels, 1):
        at = 1.7e9
        for i in range(n):
            ttft_s, tokens = scale * dice.lognormvariate(-1.5, 0.3), dice.randint(40, 60)
            latency_s = ttft_s + tokens * 0.02
            at += latency_s / level
            rows.append(
                make(
                    10_000 * stage + i, stage=stage, concurrency=level, ttft_s=ttft_s, output_tokens=tokens,
                    end_to_end_latency_s=latency_s, tpot_s=0.02 + dice.gauss(0, 0.001), started_at=at,
                    error_code="500" if dice.random() < failing else None,
                )
            )  # fmt: skip
    return rows


def test_a_slower_run_is_a_regression(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = str(write_run(run_of(make_record, 1), name="before"))
    slower = str(write_run(run_of(make_record, 2, scale=1.5), name="slower"))
    assert main(["compare", before, slower]) == 0
    capsys.readouterr()
    junit = tmp_path / "junit.xml"
    assert main(["compare", before, slower, "--threshold", "5%", "--junit", str(junit)]) == 3
    printed = capsys.readouterr()
    assert "**Failed** (threshold 5 %)" in printed.out
    assert "ttft_s median at concurrency 1" in printed.err
    assert "<failure" in junit.read_text()
    frame = llm_reports.compare_runs([llm_reports.load(before), llm_reports.load(slower)], threshold=0.05).frame()
    ttft = frame[(frame["metric"] == "ttft_s") & (frame["figure"] == "median")]
    assert (ttft["outcome"] == "worse").all()
    assert (ttft["verdict"] == "failed").all()
    assert ((ttft["ratio_ci_low"] < 1.5) & (ttft["ratio_ci_high"] > 1.5)).all()
    assert set(frame[frame["metric"] == "tpot_s"]["outcome"]) == {"no clear difference"}
    # Nothing of the other order is worse, but the share of errors of 200 requests is only known to within 2 points.
    assert main(["compare", slower, before, "--threshold", "5%"]) == 0
    assert main(["compare", before, slower, "--threshold", "80%"]) == 0


def test_two_runs_of_one_process_are_noise(write_run: Write, make_record: Make) -> None:
    runs = [llm_reports.load(write_run(run_of(make_record, seed), name=f"run{seed}")) for seed in (1, 2, 3)]
    comparison = llm_reports.compare_runs(runs, threshold=0.25)
    assert comparison.passed
    assert set(comparison.frame()["outcome"]) == {"no clear difference"}
    assert set(comparison.frame()["run"]) == {"run2", "run3"}


def test_more_errors_are_a_regression_whatever_the_threshold(write_run: Write, make_record: Make) -> None:
    runs = [
        llm_reports.load(write_run(run_of(make_record, 1, levels=(4,), failing=share), name=f"f{share}"))
        for share in (0.0, 0.2)
    ]
    comparison = llm_reports.compare_runs(runs, threshold=0.5)
    assert [each.metric for each in comparison.failed] == ["error_ratio"]


def test_what_cannot_be_compared(write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    base = str(write_run(run_of(make_record, 1), name="base"))
    other = str(write_run(run_of(make_record, 2, levels=(8, 16)), name="other"))
    assert main(["compare", base, other]) == 2
    assert "no stage in common" in capsys.readouterr().err
    assert main(["compare", base]) == 2
    few = str(write_run(run_of(make_record, 2, n=10), name="few"))
    assert main(["compare", base, few, "--threshold", "0.05"]) == 3
    assert "needs at least 20 requests" in capsys.readouterr().err
    rows = run_of(make_record, 3, levels=(1,))
    saturated = write_run(rows, stages=[StageRecord(1, 1, 1.7e9, 1.0, health="saturated")], name="saturated")
    assert main(["compare", base, str(saturated), "--threshold", "0.05"]) == 3
    printed = capsys.readouterr()
    assert "saturated" in printed.err
    assert "concurrency 4 of base is not in all runs and is omitted" in printed.out
    disturbed = write_run(rows, stages=[StageRecord(1, 1, 1.7e9, 1.0, health="disturbed")], name="disturbed")
    main(["compare", base, str(disturbed)])
    assert "The client of disturbed was disturbed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compare", base, few, "--threshold", "lots"])
    with pytest.raises(InputError):
        llm_reports.compare_runs([llm_reports.load(base)])


def test_any_order_of_rows_gives_the_same_comparison(write_run: Write, make_record: Make) -> None:
    rows = [run_of(make_record, seed) for seed in (1, 2)]
    texts = set()
    for seed in range(3):
        for own in rows:
            random.Random(seed).shuffle(own)
        runs = [llm_reports.load(write_run(own, name=f"run{i}")) for i, own in enumerate(rows)]
        texts.add(llm_reports.compare_runs(runs).frame().to_csv())
    assert len(texts) == 1


def test_the_leaderboard_has_the_best_first(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [
        str(write_run([make_record(i, framework=name, ttft_s=t, end_to_end_latency_s=e) for i in range(9)], name=name))
        for name, t, e in (("slow", 0.9, 2.0), ("quick", 0.1, 3.0), ("steady", 0.5, 1.0))
    ]
    assert main(["leaderboard", *inputs]) == 0
    tables = capsys.readouterr().out.split("## ")[1:]
    order = [[line.split("|")[1].strip() for line in text.splitlines() if "| tiny" in line] for text in tables]
    assert order == [["quick", "steady", "slow"], ["steady", "slow", "quick"]]
    assert main(["leaderboard", *inputs, "--concurrency", "7"]) == 2
