"""What runs say on a machine that was calibrated."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from llm_users.calibration.capacity import Capacity, cores, store
from llm_users.simulator.launch import Simulator
from tests.ports import free_port
from tests.system.locust_runs import Locust


def capacity(**more: Any) -> Capacity:
    figures: dict[str, Any] = {
        "host": socket.gethostname(), "cores": cores(), "python": "3.11.7", "version": "0.1.0",
        "date": "2026-01-01T00:00:00+0000", "streams": 256, "tokens_per_s": 10000.0, "processes": 1, "at_least": False,
        "gap_s": 0.02, "tokens": 64, "error_s": 0.001, **more,
    }  # fmt: skip
    return Capacity(**figures)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCUST_LLM_CALIBRATION", str(tmp_path / "new" / "found.json"))
    return tmp_path / "new" / "found.json"


def test_a_later_run_says_what_is_beyond(locust: Locust, simulator: Simulator, path: Path) -> None:
    store(capacity(streams=2, tokens_per_s=1e6))
    run = locust.run("--host", simulator.url, "--llm-sweep", "2,4", "--llm-requests", "8", "--llm-report",
                     env={"LOCUST_LLM_CALIBRATION": str(path)})  # fmt: skip
    assert run.code == 0, run.err
    said = "stage 2: 4 streams in 1 process; this machine was calibrated for 2 (llm-bench calibrate): "
    notes = [note for note in run.manifest["notes"] if "calibrated" in note]
    assert len(notes) == 1
    assert notes[0].startswith(said)
    assert said in run.err
    assert "this machine was calibrated for 2" in " ".join(run.out.split())  # under the tables


def test_workers_of_this_machine_count_together(locust: Locust, simulator: Simulator, path: Path) -> None:
    store(capacity(streams=2, tokens_per_s=1e6))
    port = str(free_port())
    run = locust.run("--host", simulator.url, "--llm-sweep", "4,5", "--llm-requests", "10", "--processes", "2",
                     "--master-bind-port", port, "--master-port", port,
                     env={"LOCUST_LLM_CALIBRATION": str(path)})  # fmt: skip
    assert run.code == 0, run.err
    notes = [note for note in run.manifest["notes"] if "calibrated" in note]
    assert [note.partition(";")[0] for note in notes] == ["stage 2: 5 streams in 2 processes"]


def test_a_run_goes_on_beside_a_file_that_is_not_ours(locust: Locust, simulator: Simulator, path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"streams": 1}')
    run = locust.run("--host", simulator.url, "--llm-sweep", "1,2", "--llm-requests", "4",
                     env={"LOCUST_LLM_CALIBRATION": str(path)})  # fmt: skip
    assert run.code == 0, run.err
    assert run.err.count(f"the calibration file {path} is ignored") == 1
    assert not [note for note in run.manifest["notes"] if "calibrated" in note]
