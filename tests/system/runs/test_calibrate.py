"""``llm-bench calibrate`` itself, on a real ladder that is tiny: its table, its file, what it says and refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import llm_users
from llm_users.calibration.capacity import cores


def calibrate(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "locust.conf").write_text("llm-rate = 5\n")  # the caller's own must not get into it
    return subprocess.run(
        [sys.executable, "-m", "llm_users.cli", "calibrate", *options], cwd=folder, stdin=subprocess.DEVNULL,
        env={**os.environ, "LOCUST_LLM_CALIBRATION": str(folder / "state" / "found.json"), "LOCUST_USERS": "7"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def calibrated(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One that came to a result: on a machine that is busy with other tests Locust may call itself saturated."""
    for _ in range(3):
        done = calibrate(folder, *options)
        if done.returncode != 3:
            break
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrate")


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    return calibrated(folder, "--streams", "4,2", "--gap", "10ms", "--tokens", "6", "--error", "1s")


def test_the_table_has_a_line_for_each_rung_and_fits_the_terminal(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines if not line.startswith("Stored in ")) <= 80  # a path is as long as it is
    assert lines[0].split("  ")[0] == "streams"
    rungs = [line.split() for line in lines[1 : lines.index("")]]
    assert list(dict.fromkeys(rung[0] for rung in rungs)) == ["2", "4"]  # one that did not pass is there twice
    for line in lines[1 : lines.index("")]:
        row = (
            r" +\d  +\d+ +\d+\.\d\d / \d+\.\d\d +\d+%  (ok|strained|disturbed|saturated|-) +(pass|not judged|fail: .*)"
        )
        assert re.fullmatch(row, line), line


def test_what_was_found_is_stored_as_it_was_told(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    path = folder / "state" / "found.json"
    assert f"Stored in {path}" in done.stdout
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    stored = json.loads(path.read_text())
    assert (stored["host"], stored["cores"]) == (socket.gethostname(), cores())
    assert stored["version"] == llm_users.__version__
    assert stored["python"] == sys.version.split()[0]
    assert (stored["gap_s"], stored["tokens"], stored["error_s"], stored["processes"]) == (0.01, 6, 1.0, 1)
    assert stored["streams"] in (2, 4)
    # On schedule a stream has a token every 42 ms: (200 ms + 5 gaps of 10 ms) / 6.
    assert 0.5 < stored["tokens_per_s"] / (stored["streams"] / 0.0417) <= 1.1
    told = " ".join(done.stdout.split())
    assert f"at least {stored['streams']} streams, {stored['tokens_per_s']:.0f} tokens/s" in told
    assert f" {stored['streams']} streams --processes 1 " in told


def test_nothing_is_stored_when_no_rung_passes(tmp_path: Path) -> None:
    failed = calibrate(tmp_path, "--streams", "1,2", "--gap", "1ms", "--tokens", "2", "--error", "0.000001ms")
    assert failed.returncode == 3
    assert not (tmp_path / "state").exists()
    assert "No result: " in failed.stdout
    assert "Nothing is stored." in failed.stdout
    rungs = [line.split()[0] for line in failed.stdout.splitlines()[1:3]]
    assert rungs == ["1", "1"]  # once more, and no higher


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_stores_nothing_and_leaves_nobody_behind(number: int, code: int, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    command = [sys.executable, "-m", "llm_users.cli", "calibrate", "--streams", "1,2", "--tokens", "500"]
    process = psutil.Popen(command, env={**os.environ, "LOCUST_LLM_CALIBRATION": str(path), "TMPDIR": str(tmp_path)},
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    limit = time.monotonic() + 30
    while len(children := process.children(recursive=True)) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert len(children) == 2  # Locust and the simulated endpoint
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert not list(tmp_path.iterdir())
    assert b"Traceback" not in said


def test_several_processes_share_the_streams(tmp_path: Path) -> None:
    shared = calibrated(tmp_path, "--streams", "4", "--tokens", "2", "--error", "1s", "--processes", "2")
    assert shared.returncode == 0, shared.stdout + shared.stderr
    stored = json.loads((tmp_path / "state" / "found.json").read_text())
    assert (stored["streams"], stored["processes"]) == (4, 2)
    assert "2 workers of this machine measure at least 4 streams" in " ".join(shared.stdout.split())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--streams", "16,many"], "'16,many' is not a list of concurrencies"),
        (["--gap", "20 metres"], "'20 metres' is not a duration"),
        (["--gap", "0"], "'0' is not from 1ms to 10s"),
        (["--tokens", "1"], "two tokens"),
        (["--error", "0"], "'0' is not from 0.001us to 10s"),
        (["--host", "http://localhost"], "unrecognized arguments"),
    ],
)
def test_options_that_cannot_be_are_refused(options: list[str], complaint: str, tmp_path: Path) -> None:
    refused = calibrate(tmp_path, *options)
    assert refused.returncode == 2
    assert complaint in refused.stderr


def test_both_helps_tell_of_it(tmp_path: Path) -> None:
    assert "--gap TIME" in calibrate(tmp_path, "--help").stdout
    whole = subprocess.run(
        [sys.executable, "-m", "llm_users.cli", "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "llm-bench calibrate " in whole
    assert "--llm-sweep" in whole
