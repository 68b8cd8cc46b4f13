"""The names of a run's files: the contract with users, and that the load side and the report side share them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_reports.input.loader import load
from llm_users import run_files
from llm_users.collect.files import RunFiles, move_aside
from llm_users.record import RequestRecord
from llm_users.run_files import RUN_SUFFIXES, absolute, default_prefix, from_here, path_of


def test_the_names_that_users_rely_on_are_these() -> None:
    assert RUN_SUFFIXES == (
        "_llm_requests.csv", "_llm_stages.csv", "_llm_gaps.csv", "_llm_offsets.csv", "_llm_conversations.csv",
        "_llm_server.csv", "_llm_run.json", "_llm_gate.xml", "_llm_find.csv", "_report",
    )  # fmt: skip
    assert run_files.LOCUST_SUFFIXES == ("_stats.csv", "_stats_history.csv", "_failures.csv", "_exceptions.csv")
    assert (run_files.LOCK_FILE, run_files.SPOOL_FOLDER) == ("_llm_run.lock", "_llm_spool")
    assert run_files.shard_name("abc", 3) == "abc_3_llm_shard.csv"


def test_the_report_finds_the_files_that_a_run_writes_and_moving_aside_knows_all_of_them(tmp_path: Path) -> None:
    files = RunFiles(str(tmp_path / "run"), offsets=True)
    record = RequestRecord(request_id="a", stage=1, measured=1, ttft_s=0.1, end_to_end_latency_s=1.0, output_tokens=5)
    files.write_request(record.row())
    files.write_gaps(1, "m", {100: 3})
    files.write_manifest({"run_id": "r", "model": "m"}, last=True)
    files.close()
    run = load(tmp_path / "run")
    assert (len(run.requests), set(run.gaps[1]), run.manifest["model"]) == (1, {"m"}, "m")
    assert run.report_dir == tmp_path / "run_report"

    assert move_aside(str(tmp_path / "run")) == str(tmp_path / "run.1")
    assert not list(tmp_path.glob("run_*"))


@pytest.mark.parametrize("prefix", ["run", "out/run", "./out/run", "out.d/run.1"])
def test_a_path_of_a_run_is_its_prefix_with_a_suffix(prefix: str) -> None:
    assert path_of(prefix, "_x.csv") == Path(prefix + "_x.csv")
    assert path_of(Path(prefix), "_x.csv") == Path(prefix + "_x.csv")


def test_a_prefix_stays_right_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = absolute("out/run")
    assert whole == f"{tmp_path}/out/run"
    assert from_here("out/run", whole) == "out/run"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    assert from_here("out/run", whole) == whole


def test_a_run_without_csv_gets_a_folder_named_by_the_time() -> None:
    out, folder, name = Path(default_prefix()).parts
    assert (out, name) == ("out", "run")
    assert folder.replace("-", "").replace("_", "").isdigit()
