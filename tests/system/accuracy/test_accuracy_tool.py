"""The accuracy benchmark itself works: a small row, end to end on the simulator, with bounds for a noisy machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from llm_users.calibration.measured_run import MeasuredRun, Timing
from tests.system.accuracy import markdown
from tests.system.accuracy.bounds import CONVERSE, INVOKE, SIMULATOR, SIMULATOR_BOUNDS, bounds_of
from tests.system.accuracy.judging import Line, wrong_health
from tests.system.accuracy.load_run import Plan, measure
from tests.system.accuracy.main import main

PLAN = Plan(streams=4, requests=12, ramp="0.5s", timing=Timing(ttft_s=0.2, gap_s=0.02, tokens=16))


@pytest.fixture(scope="module")
def outcome() -> MeasuredRun:
    return measure(PLAN, native=None)


def test_the_rows_agree_with_the_server_s_own_send_times(outcome: MeasuredRun) -> None:
    assert (outcome.failed, outcome.miscounted) == (0, 0)
    assert 0 < outcome.ttft_p50_s < 0.02
    assert outcome.span_p99_s < 0.02
    assert 0.8 < outcome.rate <= 1.001
    assert 0 < outcome.cpu_per_token_s < 0.005


def test_the_table_shows_figures_bounds_and_verdict(outcome: MeasuredRun) -> None:
    good = dataclasses.replace(
        outcome, ttft_p50_s=1e-4, ttft_p99_s=2e-4, span_p99_s=1e-4, cpu_per_token_s=4e-5, rate=1.0,
        late_p99_s=1e-3, other_cores=0.0,
    )  # fmt: skip
    text = markdown.line(Line(PLAN, (good,), SIMULATOR_BOUNDS[256]))
    assert "| 0.10 / 0.20 ms (≤ 0.3 / 1) |" in text
    assert text.endswith("| pass |")
    assert text.count("|") == markdown.header()[0].count("|")
    worse = [dataclasses.replace(good, ttft_p99_s=1.5e-3), dataclasses.replace(good, rate=0.5)]
    assert Line(PLAN, (worse[0],), SIMULATOR_BOUNDS[256]).verdict == "MISS: TTFT p99"
    assert Line(PLAN, (worse[1],), SIMULATOR_BOUNDS[256]).verdict == "MISS: rate"
    assert Line(PLAN, (worse[0], good, good), SIMULATOR_BOUNDS[256]).verdict == "pass"  # medians


@pytest.mark.parametrize(
    ("circumstance", "verdict"), [({"late_p99_s": 0.006}, "server late"), ({"other_cores": 0.5}, "machine busy")]
)
def test_a_spoilt_run_is_not_judged(outcome: MeasuredRun, circumstance: dict[str, float], verdict: str) -> None:
    quiet = dataclasses.replace(outcome, late_p99_s=1e-3, other_cores=0.0, ttft_p99_s=1.0)
    line = Line(PLAN, (dataclasses.replace(quiet, **circumstance),), SIMULATOR_BOUNDS[256])  # type: ignore[arg-type]
    assert line.verdict == verdict
    assert not line.missed


@pytest.mark.parametrize(
    ("figures", "wrong"),
    [
        ({"health": "ok", "ttft_p99_s": 1.9e-3}, None),
        ({"health": "ok", "ttft_p99_s": 2.1e-3}, "called ok"),
        ({"health": "disturbed", "ttft_p99_s": 1.0, "cpu_share": 0.1}, None),
        ({"health": "saturated", "ttft_p99_s": 1.0, "cpu_share": 0.79}, "called saturated"),
        ({"health": "saturated", "ttft_p99_s": 1.0, "cpu_share": 0.9}, None),
        ({"health": "strained", "ttft_p99_s": 1.0, "cpu_share": 0.9}, "not called saturated"),
    ],
)
def test_the_verdict_on_the_client_is_judged_by_its_error_and_its_cpu(
    outcome: MeasuredRun, figures: dict[str, Any], wrong: str | None
) -> None:
    given = dataclasses.replace(outcome, **figures)
    assert wrong_health(given) == wrong
    # Beside busy programs a late server and a busy machine are no excuse.
    spoilt = dataclasses.replace(given, late_p99_s=1.0, other_cores=2.0)
    assert Line(dataclasses.replace(PLAN, busy=True), (spoilt,), None).missed == (wrong is not None)


def test_a_line_beside_busy_programs_and_over_tls() -> None:
    short = dataclasses.replace(PLAN, busy=True, tls=True)
    measured = measure(short, native=None)
    assert (measured.server, measured.failed, measured.miscounted) == ("simulator, TLS", 0, 0)
    assert measured.other_cores > 0.5
    assert wrong_health(measured) is None


def test_the_command_prints_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    small = ["--streams", "2", "--requests", "2", "--tokens", "4", "--ramps", "0", "--tries", "1"]
    assert main(small) == 0
    printed = capsys.readouterr().out
    assert "| API | streams | on | ramp |" in printed
    for asked in ("OpenAI chat", "ConverseStream", "Invoke (Anthropic)"):
        assert f"\n| {asked} | 2 | simulator | 0 | 2 |" in printed


def test_boto3s_own_path_is_measured_and_never_judged(outcome: MeasuredRun) -> None:
    plan = dataclasses.replace(PLAN, api=CONVERSE, sdk=True)
    measured = measure(plan, native=None)
    assert (measured.failed, measured.miscounted, measured.stamp_source) == (0, 0, "user")
    late = dataclasses.replace(outcome, ttft_p99_s=1.0, health="ok", late_p99_s=1e-3, other_cores=0.0)
    line = Line(plan, (late,), None)
    assert line.verdict == "-"
    assert markdown.line(line).startswith("| ConverseStream, boto3's own path | 4 |")


def test_the_bounds_of_bedrock() -> None:
    assert bounds_of(256, SIMULATOR, api=CONVERSE) == dataclasses.replace(SIMULATOR_BOUNDS[256], cpu_per_token_s=60e-6)
    bounds = bounds_of(32, SIMULATOR, api=INVOKE)
    assert bounds is not None
    assert bounds.cpu_per_token_s is None
    assert bounds_of(512, SIMULATOR, api=INVOKE) is None


def test_a_missing_truth_server_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["--truth", "nowhere/truth_server.c"]) == 2
    assert "no native server at nowhere" in capsys.readouterr().err
