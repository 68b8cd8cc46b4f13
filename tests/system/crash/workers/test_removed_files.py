"""Files that other programs remove, replace or cut while a run writes them: no row is lost silently."""

from __future__ import annotations

import shutil
from pathlib import Path

import llm_reports
from llm_users.simulator.launch import Simulator
from tests.system.locust_runs import Locust

SWEEP = ("--llm-sweep", "4", "--llm-requests", "80", "--llm-output-tokens", "15,0", "--llm-warmup", "0")


def test_a_results_folder_that_is_removed_is_written_again(tmp_path: Path, endpoint: Simulator) -> None:
    locust = Locust(tmp_path)
    running = locust.start("--host", endpoint.url, *SWEEP, env={"TMPDIR": str(tmp_path)})
    running.await_rows(10)
    shutil.rmtree(running.prefix.parent)
    done = running.finish()
    assert done.code == 3, done.err
    rows = done.rows()
    assert len(rows) == len({row["request_id"] for row in rows}) == 80
    assert len({row["response_id"] for row in rows}) == 80
    assert [stage["requests_ok"] for stage in done.rows("stages")] == ["80"]
    rows_file = f"{done.prefix}_llm_requests.csv"
    told = f"{rows_file} was removed during the run and has been restored with all its lines"
    assert sum(told in line for line in done.err.splitlines() if "collect.writer" in line) == 1
    assert any(told in note for note in done.manifest["notes"])
    assert f"llm-report {done.prefix} reads the existing rows" in done.err
    (run,) = llm_reports.load_all([done.prefix])
    assert (len(run.requests), run.warnings) == (80, ())
