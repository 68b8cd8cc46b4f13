"""Objectives as they are written, and the verdict on them: passed, failed or undecided, and why."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

import llm_reports
from llm_reports.errors import InputError
from llm_reports.main import main
from llm_users.record import RequestRecord, StageRecord
from tests.project import ROOT

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]


def requests(
    make: Make, n: int, *, stage: int = 1, level: int = 1, failed: int = 0, scale: float = 1.0
) -> list[RequestRecord]:
    """TTFT spread evenly between 0.1 and 0.3 s, times the scale; one request a second and user.

    The fastest ones failed. OtherPrograms are unlike each other (steps of the golden ratio), so that the requests are
    worth as many independent ones; in ascending order they would be worth one.
    """
    dice = random.Random(stage)
    made = []
    step = next(k for k in range(round(0.618 * n), n + 1) if math.gcd(k, n) == 1)
    for i in range(n):
        rank = i * step % n
        ttft_s = scale * (0.1 + 0.2 * (rank + 0.5) / n)
        bad = {"error_code": "500"} if rank < failed else {}
        made.append(
            make(
                100_000 * stage + i, stage=stage, concurrency=level, ttft_s=ttft_s, window_tokens=50.0,
                end_to_end_latency_s=scale * 1.0 + dice.random() / 100, started_at=1.7e9 + i / level, **bad,
            )
        )  # fmt: skip
    return made


def stage_row(stage: int, level: int, n: int, health: str = "ok") -> StageRecord:
    return StageRecord(stage, level, 1.7e9, n / level, requests_measured=n, health=health)


def test_objectives_are_read() -> None:
    found = llm_reports.parse_objectives(
        " TTFT_p95 < 500ms, tpot_p99.9<=0.05s,e2e_mean<10 , throughput_p5>20,errors<1%"
    )
    assert [(each.name, each.q, each.limit, each.inclusive) for each in found.all] == [
        ("ttft", 0.95, 0.5, False),
        ("tpot", 0.999, 0.05, True),
        ("e2e", None, 10.0, False),
        ("throughput", 0.05, 20.0, False),
        ("errors", None, 0.01, False),
    ]
    durations = llm_reports.parse_objectives("ttft_p95<500us,e2e_p95<1m30s,tpot_p95<5e-2,queue_mean<2m")
    assert [each.limit for each in durations.all] == [pytest.approx(0.0005), 90, 0.05, 120]
    loosest = llm_reports.parse_objectives("ttft_p50<0.2,ttft_p95<0.5,ttft_p90<0.4").limits
    assert {name: each.limit for name, each in loosest.items()} == {"ttft": 0.5}


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", ["the objectives are empty", "ttft_p95<0.5"]),
        ("ttft", ["METRIC_STATISTIC<LIMIT"]),
        ("ttft<0.5", ["requires a statistic", "ttft_p95"]),
        ("tttf_p95<0.5", ["tttf", "Did you mean ttft"]),
        ("latency_p95<1", ["Did you mean e2e"]),
        ("itl_p95<1", ["Did you mean tpot"]),
        ("ttft_p100<1", ["p100", "not a valid statistic"]),
        ("ttft_max<1", ["next request", "ttft_p99"]),
        ("ttft_p95>1", ["less is better", "ttft_p95<1"]),
        ("throughput_p5<20", ["more is better"]),
        ("errors_p95<0.1", ["share of all requests"]),
        ("errors<0", ["a sample cannot prove"]),
        ("errors<5", ["between 0 and 1"]),
        ("ttft_p95<50%", ["unit of ttft is s"]),
        ("ttft_p95<0", ["above 0"]),
        ("ttft_p95<5 metres", ["unit of ttft is s", "500ms, 10s or 1m30s"]),
        ("ttft_p95<9999h", ["at most 8784h"]),
        ("errors<5ms", ["share (0.01 or 1%), not ms"]),
        ("ttft_p95<1.2.3", ["not a number"]),
    ],
)
def test_what_is_no_objective_is_said_kindly(expression: str, words: list[str], capsys: object) -> None:
    with pytest.raises(InputError) as error:
        llm_reports.parse_objectives(expression)
    assert all(word in str(error.value) for word in words), str(error.value)


def judged(prefix: Path, expression: str, stage: str = "all") -> llm_reports.Gate:
    groups = llm_reports.groups([llm_reports.load(prefix)])
    return llm_reports.gate(groups, llm_reports.parse_objectives(expression), stage)


def test_a_gate_passes_only_if_the_bound_holds(write_run: Write, make_record: Make) -> None:
    prefix = write_run(requests(make_record, 400), stages=[stage_row(1, 1, 400)])
    assert judged(prefix, "ttft_p95<0.3,errors<0.01").verdict == "passed"
    assert judged(prefix, "ttft_p95<0.2").verdict == "failed"
    close = judged(prefix, "ttft_p95<0.292")  # the P95 is 0.290
    assert close.verdict == "undecided"
    assert re.search(r"contains the limit .* about \d+ requests \(\d+ min\) would decide it", close.reasons[0])
    few = judged(write_run(requests(make_record, 100), name="few"), "errors<0.01")
    assert few.verdict == "undecided"
    assert few.reasons == ("all requests: errors<0.01 needs at least 381 requests for a verdict, but there are 100",)
    assert judged(write_run(requests(make_record, 381), name="enough"), "errors<0.01").verdict == "passed"
    assert judged(write_run(requests(make_record, 100, failed=20), name="bad"), "errors<0.01").verdict == "failed"
    assert (
        judged(write_run(requests(make_record, 60), name="p99"), "ttft_p99<5")
        .reasons[0]
        .endswith("ttft_p99<5 needs at least 368 requests for a verdict, but there are 60")
    )


def test_unknown_requests_leave_an_objective_undecided(write_run: Write, make_record: Make) -> None:
    rows = requests(make_record, 400)
    cut = [make_record(9_000 + i, error_code="aborted", ttft_s=None) for i in range(40)]
    aborted = judged(write_run([*rows, *cut], name="aborted"), "ttft_p95<0.3,errors<0.01")
    assert aborted.verdict == "undecided"
    assert judged(write_run([*rows, *cut], name="aborted"), "ttft_p95<0.1").verdict == "failed"


def test_the_best_stage_or_one_of_them(write_run: Write, make_record: Make) -> None:
    rows = [*requests(make_record, 400), *requests(make_record, 400, stage=2, level=4, scale=3)]
    prefix = write_run(rows, stages=[stage_row(1, 1, 400), stage_row(2, 4, 400)])
    assert judged(prefix, "ttft_p95<0.5").verdict == "failed"
    assert judged(prefix, "ttft_p95<0.5", "best").verdict == "passed"
    assert judged(prefix, "ttft_p95<0.5", "1").verdict == "passed"
    assert judged(prefix, "ttft_p95<0.5", "2").verdict == "failed"
    assert judged(prefix, "ttft_p95<0.01", "best").verdict == "failed"
    with pytest.raises(InputError, match="stage 3 does not exist"):
        judged(prefix, "ttft_p95<0.5", "3")
    with pytest.raises(InputError, match="all, best or the number"):
        judged(prefix, "ttft_p95<0.5", "last")


def test_goodput_counts_what_meets_everything(write_run: Write, make_record: Make) -> None:
    rows = requests(make_record, 100, failed=10)
    prefix = write_run(rows, stages=[stage_row(1, 1, 100)])
    points = llm_reports.stage_points(llm_reports.groups([llm_reports.load(prefix)]), "ttft_p95<0.2,errors<0.5")
    # TTFT is below 0.2 s in 50 requests, and 10 of those failed.
    assert (points[0].met, points[0].judged, points[0].attainment) == (40, 100, 0.4)
    assert points[0].goodput_requests_per_s == pytest.approx(0.4)
    assert points[0].goodput_tokens_per_s == pytest.approx(40 * 50 / 100)
    assert points[0].tokens_per_s == pytest.approx(45.0), "without the tokens of the ten requests that failed"
    assert points[0].requests_per_s == pytest.approx(0.9)
    single = write_run([make_record(i, output_tokens=1, tpot_s=None) for i in range(5)], name="single")
    points = llm_reports.stage_points(llm_reports.groups([llm_reports.load(single)]), "tpot_p95<0.05")
    assert points[0].met == 5


def test_the_highest_level_and_the_knee_with_their_reasons(write_run: Write, make_record: Make) -> None:
    levels = {1: 1.0, 2: 1.0, 4: 1.05, 8: 2.0, 16: 4.0}  # full from 4 users on
    rows, stages = [], []
    for stage, (level, scale) in enumerate(levels.items(), 1):
        rows += requests(make_record, 400, stage=stage, level=level, scale=scale)
        stages.append(StageRecord(stage, level, 1.7e9, 400 * scale / level, requests_measured=400, health="ok"))
    points = llm_reports.stage_points(
        llm_reports.groups([llm_reports.load(write_run(rows, stages=stages))]), "ttft_p95<0.5"
    )
    (sweep,) = llm_reports.sweeps(points)
    best, knee = llm_reports.highest(sweep), llm_reports.knee(sweep)
    assert best.point is not None
    assert (best.point.concurrency, knee.point.concurrency if knee.point else None) == (4, 4)
    assert best.reasoning[0].startswith("4 passes: ttft_p95<0.5 holds")
    assert best.reasoning[1].startswith("8 fails: ttft_p95<0.5 does not hold")
    assert "highest power" in knee.reasoning[0]
    assert "from 4 to 8 throughput changes by +5 %, latency by +90 %" in knee.reasoning[1]
    assert llm_reports.knee(sweep[:2]).point is None
    assert "does not bend yet" in llm_reports.knee(sweep[:3]).reasoning[1]


def test_verdicts_for_machines(
    write_run: Write,
    make_record: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary, junit = tmp_path / "summary.md", tmp_path / "deep" / "junit.xml"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    rows = [*requests(make_record, 400), *requests(make_record, 100, stage=2, level=4, scale=3)]
    prefix = write_run(rows, stages=[stage_row(1, 1, 400), stage_row(2, 4, 100)])
    assert main([str(prefix), "--slo", "ttft_p95<0.5,errors<0.01", "--junit", str(junit)]) == 3
    assert "SLO gate failed: " in capsys.readouterr().err
    assert "## Gate: FAILED" in summary.read_text()
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert suite is not None
    assert [suite.get(key) for key in ("tests", "failures", "errors")] == ["4", "1", "1"]
    error = suite.find("testcase/error")
    assert error is not None
    assert "errors<0.01 needs at least 381 requests for a verdict" in error.get("message", "")
    assert "## Gate: FAILED" in Path(f"{prefix}_report/report.md").read_text()
    assert main([str(prefix), "--slo", "ttft_p95<0.5,errors<0.01", "--slo-stage", "1"]) == 0
    assert main([str(prefix), "--slo", "ttft_p95<0.1"]) == 3
    assert main([str(prefix), "--slo", "ttft<1"]) == 2
    assert main([str(prefix), "--junit", str(junit)]) == 2


def test_the_documented_gates(write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "slo.md").read_text(encoding="utf-8")
    found = re.findall(r'^llm-report (\S+) --slo "([^"]+)"\n# exit code (\d): (.*)$', page, flags=re.MULTILINE)
    assert [(name, int(code)) for name, _, code, _ in found] == [("release", 0), ("release", 3), ("smoke", 3)]
    runs = {"release": requests(make_record, 400), "smoke": requests(make_record, 100)}
    for name, expression, code, says in found:
        prefix = write_run(runs[name], stages=[stage_row(1, 1, len(runs[name]))], name=name)
        assert main([str(prefix), "--slo", expression]) == int(code)
        assert says in " ".join(capsys.readouterr().out.split())
