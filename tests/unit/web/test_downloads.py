"""The child process that creates the report for the downloads of the tab."""

from __future__ import annotations

import time
from pathlib import Path

import gevent
import pytest

from llm_users.web.downloads import REPORT_PROGRAM, SECTION_PROGRAM, ReportProcess
from tests.unit.reports.sweep_on_disk import write_sweep


def test_the_report_and_the_section_come_from_another_process(tmp_path: Path) -> None:
    prefix = str(write_sweep(tmp_path / "run", levels=(1,), requests=10))
    process = ReportProcess()
    process.run(REPORT_PROGRAM, prefix, "ttft_p95<9", "all", str(tmp_path / "out"))
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"summary.csv", "report.md", "report.html"} <= files
    assert b'id="llm-section"' in process.run(SECTION_PROGRAM, prefix, "", "all")


def test_a_failed_program_has_the_reason(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^[^:]*none"):
        ReportProcess().run(SECTION_PROGRAM, str(tmp_path / "none"), "", "all")


def test_the_child_has_a_low_priority_and_ends_with_the_tab() -> None:
    process = ReportProcess()
    assert int(process.run("import os; print(os.nice(0))")) >= 10
    waiting = gevent.spawn(process.run, "import time; time.sleep(60)")
    gevent.sleep(0.5)
    started = time.monotonic()
    process.stop()
    with pytest.raises(OSError, match="exit code"):
        waiting.get(timeout=10)
    assert time.monotonic() - started < 5
    with pytest.raises(OSError, match="ending"):
        process.run("print(1)")
