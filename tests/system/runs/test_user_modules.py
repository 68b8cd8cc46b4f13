"""Runs in a folder that has modules named like parts of ours. Locust puts that folder first on ``sys.path``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_users.web.downloads import REPORT_PROGRAM, ReportProcess
from tests.unit.reports.sweep_on_disk import write_sweep

LOCUSTFILE = """
import {module}
from locust import task
from llm_users import OpenAIUser

assert {module}.OWNER == "the user"


class Chat(OpenAIUser):
    @task
    def ask(self):
        self.chat()
"""
MODULES = {
    "reports.py": "reports",
    "reports/__init__.py": "reports",
    "reports/llm_reports.py": "reports.llm_reports",
    "run.py": "run",
    "content.py": "content",
    "llm_reports_of_mine.py": "llm_reports_of_mine",
}
"""Files of the user, and the name under which the user's locustfile imports each."""


def write_module(folder: Path, file: str) -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('OWNER = "the user"\n')


@pytest.mark.parametrize("file", ["reports.py", "reports/__init__.py", "llm_reports_of_mine.py"])
def test_a_run_works_beside_a_module_of_the_user(file: str, tmp_path: Path) -> None:
    write_module(tmp_path, file)
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE.format(module=MODULES[file]))
    done = subprocess.run(
        [sys.executable, "-m", "locust", "--headless", "--only-summary", "--llm-simulator", "ttft=5ms,itl=1ms",
         "--llm-sweep", "2", "--llm-requests", "4", "--llm-input-tokens", "20,5", "--llm-output-tokens", "5,1",
         "--csv", "out/run", "--llm-report", "--llm-slo", "errors<0.9"],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "## Time to First Token (seconds)" in done.stdout
    assert (tmp_path / "out" / "run_report" / "report.md").is_file()
    assert (tmp_path / "out" / "run_llm_gate.xml").is_file()
    assert done.returncode in (0, 3), done.stderr  # 3: so few requests leave the verdict undecided


@pytest.mark.parametrize("file", MODULES)
def test_the_report_works_beside_a_module_of_the_user(file: str, tmp_path: Path) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1,), requests=10)
    write_module(tmp_path, file)
    done = subprocess.run(
        [sys.executable, "-m", "llm_reports", str(prefix)],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "## Time to First Token (seconds)" in done.stdout


@pytest.mark.parametrize("file", MODULES)
def test_the_live_page_gets_its_report_beside_a_module_of_the_user(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1,), requests=10)
    write_module(tmp_path, file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as Locust does with the folder of the locustfile
    ReportProcess().run(REPORT_PROGRAM, str(prefix), "", "all", str(tmp_path / "out"))
    assert (tmp_path / "out" / "summary.csv").is_file()


def clean_environment() -> dict[str, str]:
    """The variables of this process without those that change a run."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "OPENAI_", "PYTHONPATH"))}
