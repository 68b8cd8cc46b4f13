"""What is printed at the end of a very large run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_users.options.table import Options
from llm_users.wiring import run_report
from tests.unit.reports.sweep_on_disk import write_sweep


def test_a_very_large_run_names_the_command_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = str(write_sweep(tmp_path / "run", levels=(1,), requests=20))
    writer = SimpleNamespace(received={0: 15, 1: 6}, book=SimpleNamespace(started=21), problem=lambda: "")
    run_report.print_end(prefix, Options(), SimpleNamespace(), writer, ())  # type: ignore[arg-type]
    assert "## Summary" in capsys.readouterr().out
    monkeypatch.setattr(run_report, "MOST_ROWS_TO_PRINT", 20)
    run_report.print_end(prefix, Options(), SimpleNamespace(), writer, ("found",))  # type: ignore[arg-type]
    printed = capsys.readouterr()
    assert printed.out == "found\n"
    assert f"The run has 21 rows. Print its tables with: llm-report {prefix}" in printed.err
