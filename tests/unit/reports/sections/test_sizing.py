"""The number of replicas for a peak rate, from runs whose limit is known: every rate above 5/s is too slow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_reports.main import main
from llm_reports.sections.section import section_text
from llm_reports.sections.sizing import sizing_section
from llm_reports.slo.sizing import Sizing
from llm_users.record import RequestRecord, StageRecord

_PEAK = 40.0
_LIMIT_S = 2.0


@pytest.fixture
def prefixes(write_run: Callable[..., Path], make_record: Callable[..., RequestRecord]) -> list[str]:
    """Four runs at 3, 4, 5 and 6/s; only the last one exceeds the limit of the latency."""
    made = []
    for rate_per_s in (3.0, 4.0, 5.0, 6.0):
        latency_s = 1.0 if rate_per_s <= 5 else 5.0
        rows = [
            make_record(
                i, concurrency=0, rate_per_s=rate_per_s, started_at=1.7e9 + i / rate_per_s, queue_s=0.0,
                end_to_end_latency_s=latency_s + 1e-3 * (i * 37 % 100),
            )
            for i in range(300)
        ]  # fmt: skip
        stage = StageRecord(1, 0, 1.7e9, 300 / rate_per_s, rate_per_s=rate_per_s, requests_measured=300, health="ok",
                            steadiness="steady")  # fmt: skip
        made.append(str(write_run(rows, stages=[stage], name=f"at{rate_per_s:g}")))
    return made


def _cells(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip(" *") for cell in line.strip("|").split("|")][1:]


def test_several_runs_of_one_endpoint_are_one_sweep(
    prefixes: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    slo = f"e2e_p95<{_LIMIT_S:g}"
    main([*prefixes, "--slo", slo, "--peak", f"{_PEAK:g}", "--out", str(tmp_path / "out")])
    text = capsys.readouterr().out
    assert "Replicas for 40 requests/s" in text
    assert _cells(text, "With 20 % headroom") == ["4", "10"]
    assert _cells(text, "At the confirmed rate") == ["5", "8"]
    assert _cells(text, "At the upper end of the bracket") == ["6", "7"]


def test_without_a_failing_rate_there_is_no_upper_end(
    prefixes: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main([*prefixes[:2], "--slo", f"e2e_p95<{_LIMIT_S:g}", "--peak", "40", "--out", str(tmp_path / "out")])
    text = capsys.readouterr().out
    assert _cells(text, "At the confirmed rate") == ["4", "10"]
    assert "No measured rate failed, so a replica may sustain more than 4 requests/s" in text


def test_without_a_confirmed_rate_there_is_no_number_of_replicas(
    prefixes: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main([prefixes[3], "--slo", f"e2e_p95<{_LIMIT_S:g}", "--peak", "40", "--out", str(tmp_path / "out")])
    text = capsys.readouterr().out
    assert "No rate is confirmed to meet the objectives (measured: 6/s). The lowest rate that fails is 6/s." in text


def test_undecided_rates_inside_the_bracket_are_named() -> None:
    sizing = Sizing(40.0, 3.0, 6.0, (3.0, 4.0, 5.0, 6.0), (4.0, 5.0), fails_by_figures=True)
    text = section_text(sizing_section(sizing))
    assert "Undecided rates inside the bracket: 4, 5/s" in text
    assert "the upper end exceeds a limit by its figures, but its verdict is undecided" in " ".join(text.split())
    assert _cells(text, "At the confirmed rate") == ["3", "14"]
    assert _cells(text, "At the upper end of the bracket") == ["6", "7"]
