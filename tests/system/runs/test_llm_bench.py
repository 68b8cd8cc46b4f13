"""What ``llm-bench`` adds to ``locust``: its help, its versions, the load of a bare headless run, and its tables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from llm_users import __version__
from llm_users.simulator.launch import Simulator

BIN = Path(sys.executable).parent
SHORT = ["--llm-input-tokens", "20,5", "--llm-output-tokens", "8,2", "--llm-requests", "8"]
NO_PANDAS = 'raise ImportError("the test forbids pandas")\n'


def command(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "OPENAI_", "GITHUB_"))}
    return subprocess.run(
        [str(BIN / words[0]), *words[1:]], cwd=folder, env=environment | {"COLUMNS": "80"} | variables,
        capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def without_pandas(tmp_path: Path) -> str:
    """A folder for PYTHONPATH in which ``import pandas`` fails."""
    package = tmp_path / "forbidden" / "pandas"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(NO_PANDAS)
    return str(package.parent)


def test_help_has_ten_options_and_three_examples_within_80_columns(tmp_path: Path) -> None:
    done = command("llm-bench", "--headless", "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: llm-bench ")
    options, rest = done.stdout.split("\nExamples:\n")
    assert len(re.findall(r"^  --", options, re.MULTILINE)) == 10
    assert len(re.findall(r"^  (?:\w+=\S+ )?llm-bench ", rest.split("\nMore:\n")[0], re.MULTILINE)) == 3
    assert "llm-bench --help-all" in rest
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_all_has_the_options_of_locust_too(tmp_path: Path) -> None:
    done = command("llm-bench", "--help-all", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: llm-bench ")
    assert "Usage: locust" not in done.stdout
    for text in ("--expect-workers", "LLM: stages:", "--llm-trace-window"):
        assert text in done.stdout


@pytest.mark.parametrize("name", ["llm-bench", "llm-report", "llm-simulator"])
def test_every_command_prints_its_version(name: str, tmp_path: Path) -> None:
    done = command(name, "--version", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name} {__version__}")
    assert (f"Locust {version('locust')}" in done.stdout) is (name == "llm-bench")


def test_the_command_line_of_llmperf_is_answered_with_our_options(tmp_path: Path) -> None:
    done = command(
        "llm-bench", "--model", "m", "--mean-input-tokens", "550", "--stddev-output-tokens=10", "--timeout", "600",
        "--num-concurrent-requests", "1", "--max-num-completed-requests", "2", "--results-dir", "r", "--llm-api",
        "openai", "--additional-sampling-params", "{}", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    for ours in ("--llm-model", "--llm-input-tokens", "--llm-output-tokens", "--llm-sweep", "--llm-requests", "--csv",
                 "--llm-api chat", "--llm-extra-body", "--llm-timeout"):  # fmt: skip
        assert f"{ours}" in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 80


def test_a_bare_run_sweeps_and_prints_what_the_report_prints(
    simulator: Simulator, tmp_path: Path, without_pandas: str
) -> None:
    done = command(
        "llm-bench", "--headless", "--host", simulator.url, *SHORT, "--csv", "out/run", folder=tmp_path,
        PYTHONPATH=without_pandas,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this run sweeps 1,2,4,8 users") == 1
    assert done.stdout.startswith("## Summary\n"), "Locust's tables come only with --print-stats"
    assert "stage 4 of 4: 8 users, 8 requests" in done.stderr
    assert "stage 1 of 4: 1 user, 8 requests" in done.stderr
    assert done.stderr.splitlines()[-1] == "Report with charts: llm-report out/run --format md,csv,html"
    report = command("llm-report", "out/run", folder=tmp_path)
    assert report.returncode == 0, report.stderr
    assert done.stdout.rstrip("\n") == report.stdout.rstrip("\n")


@pytest.mark.parametrize(
    "words",
    [
        # Failures, throttling, answers without times, and rows outside the window.
        ["--llm-simulator", "ttft=10ms,itl=2ms,fault=reset:0.1+stall@3:0.05,error=429:0.1", "--llm-timeout", "1s",
         "--llm-sweep", "2,4"],
        # Two models, the same load twice, cancelled requests.
        ["--llm-simulator", "ttft=10ms,itl=5ms", "--llm-targets", "small=3,large=1", "--llm-sweep", "3,3",
         "--llm-cancel", "0.2:30ms"],
        ["--llm-simulator", "ttft=10ms,itl=20ms", "--llm-sweep", "2", "--processes", "2"],
        ["--llm-simulator", "ttft=10ms,itl=5ms", "-u", "2", "-t", "3s"],
    ],
    ids=["faults", "models", "processes", "free"],
)  # fmt: skip
def test_the_tables_are_those_of_the_report(words: list[str], tmp_path: Path, without_pandas: str) -> None:
    done = command(
        "llm-bench", "--headless", *SHORT[:4], "--llm-requests", "40", *words, "--csv", "run", folder=tmp_path,
        PYTHONPATH=without_pandas,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    report = command("llm-report", "run", folder=tmp_path)
    assert "## Output Tokens Throughput" in done.stdout, done.stderr
    assert done.stdout.rstrip("\n") == report.stdout.rstrip("\n")


@pytest.mark.parametrize(
    ("words", "variables", "file"),
    [
        (["-t", "2s"], {}, ""),
        (["-u", "1", "-t", "2s"], {}, ""),
        (["-t", "2s"], {"LOCUST_SPAWN_RATE": "1"}, ""),
        ([], {"LOCUST_RUN_TIME": "2s"}, ""),
        ([], {}, "run-time = 2s\n"),
    ],
)
def test_a_load_from_any_source_replaces_the_default_sweep(
    words: list[str], variables: dict[str, str], file: str, simulator: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "locust.conf").write_text(file)
    done = command(
        "llm-bench", "--headless", "--host", simulator.url, *SHORT[:4], "--csv", "out/run", *words, folder=tmp_path,
        **variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sweeps" not in done.stderr


def test_a_stage_from_a_variable_replaces_the_default_sweep(simulator: Simulator, tmp_path: Path) -> None:
    done = command(
        "llm-bench", "--headless", "--host", simulator.url, *SHORT, "--csv", "out/run", folder=tmp_path,
        LOCUST_LLM_SWEEP="3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stage 1 of 1: 3 users" in done.stderr
    assert "no option defines the load" not in done.stderr


def test_print_stats_prints_the_tables_of_locust_too(simulator: Simulator, tmp_path: Path) -> None:
    done = command(
        "llm-bench", "--headless", "--print-stats", "--host", simulator.url, *SHORT, "--llm-sweep", "1", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Response time percentiles (approximated)" in done.stdout + done.stderr
    assert "## Summary" in done.stdout


def test_the_progress_line_has_the_remaining_time_of_stage_and_run(tmp_path: Path) -> None:
    """The first estimate of the run is compared with its real end."""
    with subprocess.Popen(
        [
            str(BIN / "llm-bench"), "--headless", "--llm-simulator", "ttft=50ms,itl=10ms", "--llm-sweep", "1,2",
            "--llm-requests", "20", "--llm-input-tokens", "20,0", "--llm-output-tokens", "fixed:40", "--csv", "run",
        ],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        estimate = None
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"stage 1 of 2: 1 user, \d+ of 20 requests done, 0 failed, about (\d+) s left, "
                              r"about (\d+) s for the run", line)  # fmt: skip
            if found and estimate is None:
                estimate = time.monotonic() + int(found[2])
                assert int(found[1]) < int(found[2])
            if "stage 2 done" in line:
                ended = time.monotonic()
        assert process.wait() == 0
    assert estimate is not None, "the first stage lasts nine seconds, and a progress line comes every five"
    assert abs(estimate - ended) < 4
