"""What the gate makes of failed requests, of a client that was not well, and of stages whose queue grew."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import llm_reports
from llm_reports.main import main
from llm_reports.stats.effective_size import Sample, effective_size
from llm_users.record import RequestRecord, StageRecord
from llm_users.run_files import STAGES_CSV, path_of

Make = Callable[..., RequestRecord]
Write = Callable[..., Path]
_N = 400


def rows(make: Make, n: int = _N, *, failed: int = 0, code: str = "timeout", **more: Any) -> list[RequestRecord]:
    """TTFT between 0.1 and 0.12 s, E2E 1 s, 50 tokens at 18 ms; every (n / failed)-th request failed after 60 s."""
    every = n // failed if failed else n + 1
    gone: dict[str, Any] = {"ttft_s": None, "ttfat_s": None, "tpot_s": None, "output_tokens": None,
                            "end_to_end_latency_s": 60.0, "error_code": code}  # fmt: skip
    return [
        make(i, ttft_s=0.1 + 0.02 * (i * 0.618 % 1), concurrency=8, **more)
        if i % every
        else make(i, concurrency=8, **{**more, **(gone if failed else {})})
        for i in range(n)
    ]


def judgements(prefix: Path, expression: str) -> dict[str, llm_reports.Judgement]:
    verdict = llm_reports.gate(llm_reports.groups([llm_reports.load(prefix)]), llm_reports.parse_objectives(expression))
    return {each.objective.name: each for each in verdict.judgements}


def stage(health: str = "ok", **more: Any) -> StageRecord:
    return StageRecord(1, 8, 1.7e9, 60.0, requests_measured=_N, health=health, **more)


def test_timed_out_requests_fail_latency_and_throughput_objectives(
    write_run: Write, make_record: Make, tmp_path: Path
) -> None:
    prefix = write_run(rows(make_record, 500, failed=250), stages=[stage()])
    found = judgements(prefix, "ttft_p95<0.5,e2e_p95<2,tpot_p95<1,throughput_p5>1,errors<0.6")
    assert {name: each.verdict for name, each in found.items()} == {
        "ttft": "failed", "e2e": "failed", "tpot": "failed", "throughput": "failed", "errors": "passed",
    }  # fmt: skip
    assert found["ttft"].estimate == math.inf
    assert found["throughput"].estimate == 0
    assert "no answer, 250 of 500 requests failed" in found["ttft"].reason
    junit = tmp_path / "gate.xml"
    assert main([str(prefix), "--slo", "ttft_p95<0.5,e2e_p95<2", "--junit", str(junit)]) == 3
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("failures"), suite.get("errors")) == ("2", "0")


def test_a_few_failures_leave_the_median_and_move_the_p95(write_run: Write, make_record: Make) -> None:
    prefix = write_run(rows(make_record, failed=8), stages=[stage()])
    assert judgements(prefix, "ttft_p50<0.5")["ttft"].verdict == "passed"
    assert judgements(prefix, "ttft_p99<0.5")["ttft"].verdict != "passed"  # 2 % of the requests got no answer


@pytest.mark.parametrize("code", ["cancelled", "aborted"])
def test_requests_that_the_client_ended_are_no_failures(write_run: Write, make_record: Make, code: str) -> None:
    found = judgements(write_run(rows(make_record, failed=200, code=code), stages=[stage()]), "ttft_p95<0.5")
    assert found["ttft"].estimate == pytest.approx(0.119, abs=0.001)
    assert found["ttft"].verdict == ("passed" if code == "cancelled" else "undecided")


def test_a_mean_with_failures_fails_and_advises_a_percentile(write_run: Write, make_record: Make) -> None:
    found = judgements(write_run(rows(make_record, failed=4), stages=[stage()]), "e2e_mean<100")
    assert found["e2e"].verdict == "failed"
    assert "such as e2e_p95" in found["e2e"].reason


def test_a_time_per_token_that_does_not_exist_is_left_out(write_run: Write, make_record: Make) -> None:
    some = [make_record(i, **({"output_tokens": 1, "tpot_s": None} if i % 2 else {})) for i in range(300)]
    found = judgements(write_run(some, stages=[stage()]), "tpot_p95<0.1")
    assert (found["tpot"].n, found["tpot"].verdict) == (150, "passed")


def test_a_mean_of_few_requests_is_undecided(write_run: Write, make_record: Make) -> None:
    found = judgements(write_run(rows(make_record, 10), stages=[stage()]), "e2e_mean<100")
    assert found["e2e"].reason == "e2e_mean<100 needs at least 30 requests for a verdict, but there are 10"


@pytest.mark.parametrize("health", ["saturated", "disturbed"])
def test_the_client_puts_only_missed_limits_in_doubt(write_run: Write, make_record: Make, health: str) -> None:
    prefix = write_run(rows(make_record, failed=20), stages=[stage(health, lag_p99_s=0.09, concurrency_actual=8.0)])
    kept = judgements(prefix, "ttft_p50<0.5,errors<0.01")
    assert (kept["ttft"].verdict, kept["errors"].verdict) == ("passed", "failed")
    missed = judgements(prefix, "ttft_p50<0.05")["ttft"]
    assert missed.verdict == "undecided"
    assert {"saturated": "use more workers", "disturbed": "stop the other programs"}[health] in missed.reason


def test_failed_requests_alone_disprove_a_percentile_whatever_the_client(write_run: Write, make_record: Make) -> None:
    # 50 of 400 requests failed: the P95 is a failure at any speed of the client, and the median is not.
    disturbed = [stage("disturbed", lag_p99_s=0.09, concurrency_actual=8.0)]
    prefix = write_run(rows(make_record, 400, failed=50), stages=disturbed)
    found = judgements(prefix, "ttft_p95<0.5")["ttft"]
    assert found.verdict == "failed"
    assert found.reason == "ttft_p95<0.5 does not hold: no answer, 50 of 400 requests failed"
    assert judgements(prefix, "ttft_p50<0.05")["ttft"].verdict == "undecided"
    few = write_run(rows(make_record, 400, failed=8), stages=disturbed, name="few")
    assert judgements(few, "ttft_p95<0.05")["ttft"].verdict == "undecided"


@pytest.mark.parametrize(("actual", "outcome"), [(7.0, "undecided"), (7.9, "passed")])
def test_a_load_that_was_not_there_decides_nothing(
    write_run: Write, make_record: Make, actual: float, outcome: str
) -> None:
    prefix = write_run(rows(make_record), stages=[stage("saturated", load_actual=actual)])
    found = judgements(prefix, "ttft_p95<0.5,errors<0.01")
    assert (found["ttft"].verdict, found["errors"].verdict) == (outcome, "passed")
    assert actual > 7.5 or "only 7 of 8 users ran" in found["ttft"].reason
    prefix = write_run(rows(make_record), stages=[stage("saturated", load_actual=8.0, concurrency_actual=actual)])
    assert judgements(prefix, "ttft_p95<0.5")["ttft"].verdict == "passed", "users in a wait_time count as load"


def test_a_time_per_token_is_judged_with_the_delay_of_the_client(write_run: Write, make_record: Make) -> None:
    # 18 ms per token of 50: a delay of 98 ms makes 20 ms of it.
    for lag_s, outcome in ((0.09, "passed"), (0.11, "undecided")):
        prefix = write_run(rows(make_record), stages=[stage("strained", lag_p99_s=lag_s)], name=f"lag{lag_s}")
        found = judgements(prefix, "tpot_p95<20ms")["tpot"]
        assert found.verdict == outcome, found.reason
        assert found.estimate == pytest.approx(0.018)
    assert "holds only without the delay of the client" in found.reason
    assert judgements(prefix, "ttft_p95<0.5")["ttft"].verdict == "passed"


def test_an_unsteady_stage_never_passes(write_run: Write, make_record: Make) -> None:
    prefix = write_run(rows(make_record), stages=[stage()])
    path = path_of(prefix, STAGES_CSV)
    lines = list(csv.DictReader(path.open()))
    lines[0]["steadiness"] = "unsteady"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    found = judgements(prefix, "ttft_p95<0.5,e2e_p95<0.5,errors<0.01")
    outcomes = {name: each.verdict for name, each in found.items()}
    assert outcomes == {"ttft": "undecided", "e2e": "failed", "errors": "undecided"}
    assert "queue grew" in found["ttft"].reason


@pytest.mark.parametrize(("limit", "outcome"), [("10", "passed"), ("0.01", "failed")])
def test_a_table_says_why_few_independent_requests_decide(
    write_run: Write, make_record: Make, capsys: pytest.CaptureFixture[str], limit: str, outcome: str
) -> None:
    """TTFT rises through the stage, so its requests are worth hardly any; each is on one side of the limit."""
    rising = [make_record(i, ttft_s=0.05 + 0.0001 * i, concurrency=8) for i in range(_N)]
    prefix = write_run(rising, stages=[stage()])
    found = judgements(prefix, f"ttft_p95<{limit}")["ttft"]
    assert (found.verdict, found.effective < 30) == (outcome, True)
    main([str(prefix), "--slo", f"ttft_p95<{limit}"])
    assert "unless all requests are far on one side" in " ".join(capsys.readouterr().out.split())
    main([str(prefix), "--slo", "errors<0.05"])
    assert "the verdict is undecided" not in " ".join(capsys.readouterr().out.split())


def test_the_order_of_the_file_does_not_matter(write_run: Write, make_record: Make) -> None:
    # Slow and fast hours: dependent in the order of the starts, whatever the order in which the rows were written.
    slow = [make_record(i, ttft_s=0.1 + 0.1 * (i // 50 % 2) + 0.01 * (i * 0.618 % 1)) for i in range(_N)]
    shuffled = [slow[i * 247 % _N] for i in range(_N)]
    sizes = [
        judgements(write_run(each, name=name), "ttft_p50<0.3")["ttft"].effective
        for name, each in (("sorted", slow), ("shuffled", shuffled))
    ]
    assert sizes[0] == sizes[1] < 30


def test_a_constant_series_is_worth_all_its_values() -> None:
    assert effective_size(np.full(400, 0.1)) == 400
    assert Sample.of(np.full(400, 0.1)).quantile_interval(0.95).known


def test_the_effective_size_of_an_autoregressive_series() -> None:
    # x(t) = 0.9 x(t - 1) + noise has the autocorrelation time (1 + 0.9) / (1 - 0.9) = 19.
    noise = np.random.default_rng(3).normal(size=1_000_000)
    values = np.empty_like(noise)
    last = 0.0
    for i, each in enumerate(noise):
        last = values[i] = 0.9 * last + each
    assert 1_000_000 / effective_size(values, caution=0.0) == pytest.approx(19, rel=0.1)  # by batches
    assert 10_000 / effective_size(values[:10_000], caution=0.0) == pytest.approx(19, rel=0.35)


def test_a_bound_close_to_its_limit_has_more_digits(write_run: Write, make_record: Make) -> None:
    """All requests take 0.5001 s. Three digits would make the sentence "0.5 s is not below 0.5 s"."""
    prefix = write_run([make_record(i, ttft_s=0.5001, concurrency=8) for i in range(_N)], stages=[stage()])
    found = judgements(prefix, "ttft_p95<0.5")["ttft"]
    assert found.reason == (
        "ttft_p95<0.5 does not hold: measured 0.5001 s, 95 % interval from 0.5001 s (400 requests)"
    )  # fmt: skip


def test_failed_requests_give_their_reason(write_run: Write, make_record: Make) -> None:
    words = {"error_code": "503", "error_message": "no replica is ready"}
    rows = [make_record(i, concurrency=8, **(words if i % 4 == 0 else {})) for i in range(_N)]
    prefix = write_run(rows, stages=[stage()])
    found = judgements(prefix, "ttft_p95<0.5,errors<1%,ttft_p50<9")
    errors = "Errors: 503: no replica is ready (100 requests)"
    assert [found[name].explanation.endswith(errors) for name in ("errors", "ttft")] == [True, False]
    gate = llm_reports.gate(llm_reports.groups([llm_reports.load(prefix)]), llm_reports.parse_objectives("errors<1%"))
    assert gate.reasons[-1] == "all requests: errors: 503: no replica is ready (100 requests)"


def test_an_unreachable_server_is_the_reason_everywhere(
    write_run: Write, make_record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"error_code": "connect", "error_message": "cannot connect to http://10.0.0.1:8000: Connection refused"}
    rows = [make_record(i, concurrency=8, measured=0, phase="warmup", ttft_s=None, **words) for i in range(6)]
    prefix = write_run(rows, stages=[stage()])
    files = tmp_path / "summary.md", tmp_path / "gate.xml"
    command = [str(prefix), "--slo", "ttft_p95<0.5", "--github-summary", str(files[0]), "--junit", str(files[1])]
    assert main(command) == 3
    printed = capsys.readouterr()
    for text in (printed.err, printed.out, *(file.read_text() for file in files)):
        assert "connect: cannot connect to http://10.0.0.1:8000: Connection refused (6 requests)" in " ".join(
            text.split()
        )
    assert "Attainment" not in files[0].read_text()
