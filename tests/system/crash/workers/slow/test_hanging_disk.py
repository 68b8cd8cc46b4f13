"""A disk that takes nothing any more and says nothing: the run ends all the same and says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator
from tests.system.crash.workers.slow_disk import Pipe, run_on

pytestmark = pytest.mark.slow


def test_a_disk_that_hangs_ends_with_exit_code_3(tmp_path: Path, endpoint: Simulator) -> None:
    Pipe(tmp_path / "out" / "run_llm_requests.csv")
    done, took_s = run_on(tmp_path, endpoint)
    assert done.code == 3, done.err
    assert "rows could not be written" in done.err
    assert took_s < 45
    assert endpoint.stop()["completed"] == 60
