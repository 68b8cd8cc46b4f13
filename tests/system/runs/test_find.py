"""``--llm-find`` with the real command: on an endpoint whose limit is known, and on one that never meets.

Above its capacity C every gap of the simulated endpoint grows by active/C, so a limit of 1.25 gaps is at 1.25 C users.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import llm_reports
from tests.ports import master_ports
from tests.system.locust_runs import Finished, Locust

pytestmark = pytest.mark.slow

CAPACITY = 10
KNEE = 1.25 * CAPACITY
SIMULATOR = f"ttft=10ms,itl=16ms,capacity={CAPACITY}"
FIND = ("--llm-find", "tpot_p95<0.020", "--llm-requests", "75", "--llm-output-tokens", "fixed:8", "--llm-ramp", "0.1s",
        "--llm-stage-time", "3s")  # fmt: skip


def find(locust: Locust, *more: str, spec: str = SIMULATOR) -> Finished:
    return locust.run(*FIND, "--llm-simulator", spec, *more, timeout_s=120)


def test_the_knee_is_found_within_five_percent(locust: Locust) -> None:
    for _ in range(3):  # a machine that is busy with other things is a slower endpoint
        done = find(locust, "--llm-sweep", "4,64")
        found = done.manifest["find"]
        if found["estimate"] is not None and abs(found["estimate"] / KNEE - 1) <= 0.05:
            break
    # Stages of 3 s have few independent requests, so the figures find the knee, and a lower load may be confirmed.
    assert done.code == (3 if found["found"] is None else 0), done.err
    assert found["found"] is None or found["found"] <= 12
    assert (found["estimate"], found["fails"]) == (12, 13), done.out
    stages = done.rows("stages")
    assert len(stages) <= 12
    assert sorted(stage for point in found["points"] for stage in point["stages"]) == [int(s["stage"]) for s in stages]
    assert f"{found['conclusion']}\n" in done.out
    assert "13 failed" in found["conclusion"]
    table = [line for line in done.out.split("## Summary")[0].splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(found["points"])
    assert max(map(len, table)) <= 80
    # Early: at 16 users and more every answer is too slow, so the stage does not last its 3 s.
    hopeless = [stage for stage in stages if int(stage["concurrency"]) >= 16]
    assert hopeless
    assert all(float(stage["measure_s"]) < 3 for stage in hopeless)
    assert all(float(stage["measure_s"]) >= 3 for stage in stages if int(stage["concurrency"]) <= 12)
    assert all(int(stage["requests_measured"]) >= 75 for stage in stages if int(stage["concurrency"]) <= 12)
    assert "ends early: tpot_p95<0.020 is missed by" in done.err
    assert not [note for note in done.manifest["notes"] if "were not started" in note]
    assert f"{len(done.rows())}" == f"{sum(int(stage['requests_started']) for stage in stages)}"
    _report_agrees(done)


def _report_agrees(done: Finished) -> None:
    run = llm_reports.load(done.prefix)
    text = llm_reports.report_runs([run], formats=("md", "html")).text
    assert text.startswith("## The highest load")
    printed = done.out[done.out.index("## The highest load") :]
    assert text.split("\n## ")[0].rstrip() == printed.split("\n## ")[0].rstrip()
    assert "13 (fails" in Path(f"{done.prefix}_report/report.md").read_text()
    assert "tpot_p95&lt;0.020" in Path(f"{done.prefix}_report/report.html").read_text()
    lines = done.rows("find")
    assert [float(line["level"]) for line in lines] == [point["level"] for point in done.manifest["find"]["points"]]
    assert {line["passed"] for line in lines if float(line["level"]) <= 12} == {"1"}
    # Of a level with one stage, and one that was not repeated, the gate of reports says the same as the search.
    gate = llm_reports.gate(llm_reports.groups([run]), llm_reports.parse_objectives("tpot_p95<0.020")).frame()
    for line in lines:
        stages = line["stages"].split()
        if len(stages) == 1:
            row = gate[gate["stage"] == int(stages[0])].iloc[0]
            assert row["estimate"] == pytest.approx(float(line["value"]), rel=1e-8)
            assert row["verdict"] == line["outcome"]


def test_a_lowest_load_that_fails_is_no_result(locust: Locust) -> None:
    done = find(locust, "--llm-sweep", "4,16", spec="ttft=10ms,itl=30ms")
    assert done.code == 3
    assert "No load was found that meets tpot_p95<0.020: below 4 users (1 stage)" in done.out
    assert "--llm-find: No load was found" in done.err
    assert done.manifest["find"]["found"] is None
    assert float(done.rows("stages")[0]["measure_s"]) < 3


def test_two_processes_search_together_and_print_the_result_before_the_tables(locust: Locust) -> None:
    done = find(
        locust, "--llm-sweep", "4,8", "--processes", "2", *master_ports(), "--llm-report", spec="ttft=10ms,itl=5ms"
    )
    # On a busy machine the client itself may be the limit at every level, and then nothing is decided.
    found = done.manifest["find"]
    assert found["estimate"] == 8
    assert done.code == (3 if found["found"] is None else 0), done.err
    assert (found["found"] is None) == ("No load is confirmed to meet" in done.out)
    assert done.out.index("## The highest load") < done.out.index("## Time to First Token")
    assert done.out.count("## The highest load") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--llm-find", "ttft<0.5"), "--llm-find: 'ttft<0.5': ttft requires a statistic"),
        (
            ("--llm-find", "ttft_p95<0.5", "--llm-sweep", "1,2,4"),
            "--llm-sweep: with --llm-find, write the range of the search",
        ),
        (
            ("--llm-find", "ttft_p95<0.5", "--llm-sweep", "8,2"),
            "--llm-sweep: with --llm-find, write the range of the search",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(locust: Locust, options: tuple[str, ...], said: str) -> None:
    done = locust.run("--llm-simulator", *options)
    assert done.code == 2
    assert said in done.err
