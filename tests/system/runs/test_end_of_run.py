"""What a run prints when it is over: the summary, then LLMPerf's two tables, whatever its stages and options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

HEADINGS = ["## Summary", "## Time to First Token (seconds)", "## Output Tokens Throughput (tokens/s)"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("locustfile", "load", "stages"),
    [
        ("chat.py", ["-u", "2", "-r", "2", "-t", "4s"], 1),
        ("sweep.py", ["--llm-sweep", "1,2", "--llm-requests", "20"], 2),
        ("sweep.py", ["--llm-sweep", "1,2", "--llm-requests", "20", "--llm-report"], 2),
    ],
)
def test_every_run_prints_its_summary_and_tables(tmp_path: Path, locustfile: str, load: list[str], stages: int) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "OPENAI_", "GITHUB_"))}
    done = subprocess.run(
        [
            sys.executable, "-m", "locust", "-f", str(ROOT / "locustfiles" / locustfile), "--headless",
            "--llm-simulator", "ttft=20ms,itl=2ms", "--llm-input-tokens", "20,2", "--llm-output-tokens", "8,1",
            "--only-summary", "--csv", "out/run", *load,
        ],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("## ")] == HEADINGS
    summary = done.stdout.split("## Time")[0]
    assert sum("median" in line for line in summary.splitlines()) == stages
    assert max(map(len, summary.splitlines())) <= 80
    assert (tmp_path / "out" / "run_report" / "report.html").exists() is ("--llm-report" in load)
