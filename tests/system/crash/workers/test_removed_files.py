"""Files that other programs remove, replace or cut while a run writes them: no row is lost silently."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_users.collect.line_file import LineFile
from llm_users.collect.writer import RunWriter
from llm_users.record import RequestRecord
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
    told = f"{rows_file} was removed during the run and has been written again with all its lines"
    assert sum(told in line for line in done.err.splitlines() if "collect.writer" in line) == 1
    assert any(told in note for note in done.manifest["notes"])
    assert f"llm-report {done.prefix} reads what is there" in done.err
    (run,) = llm_reports.load_all([done.prefix])
    assert (len(run.requests), run.warnings) == (80, ())


# The parts, each with files of its own.


@pytest.fixture
def told() -> list[str]:
    return []


def line_file(folder: Path, told: list[str], lines: int = 3) -> LineFile:
    (folder / "out").mkdir()
    file = LineFile(
        folder / "out" / "rows", "head\n", elsewhere=iter([folder / "other"]).__next__, on_trouble=told.append
    )
    for number in range(lines):
        file.write(f"{number}\n")
    assert file.flush()
    return file


def test_a_removed_file_is_noticed_when_nothing_waits(tmp_path: Path, told: list[str]) -> None:
    file = line_file(tmp_path, told)
    shutil.rmtree(tmp_path / "out")
    assert file.flush()
    assert (tmp_path / "out" / "rows").read_text() == "head\n0\n1\n2\n"
    file.write("3\n")
    file.close()
    assert (tmp_path / "out" / "rows").read_text() == "head\n0\n1\n2\n3\n"
    assert file.unwritten == 0
    assert len(told) == 1


def test_a_large_file_is_written_again_whole(tmp_path: Path, told: list[str]) -> None:
    file = line_file(tmp_path, told, 200_000)
    whole = (tmp_path / "out" / "rows").read_bytes()
    (tmp_path / "out" / "rows").unlink()
    file.close()
    assert (tmp_path / "out" / "rows").read_bytes() == whole


def test_a_file_that_was_moved_away_by_logrotate_is_written_again(tmp_path: Path, told: list[str]) -> None:
    file = line_file(tmp_path, told)
    path = tmp_path / "out" / "rows"
    path.rename(tmp_path / "out" / "rows.1")
    path.touch()  # as with its option "create"
    file.write("3\n")
    file.close()
    assert path.read_text() == "head\n0\n1\n2\n3\n"
    assert (tmp_path / "out" / "rows.1").read_text() == "head\n0\n1\n2\n"


def test_a_file_in_the_place_of_the_own_one_is_left_alone(tmp_path: Path, told: list[str]) -> None:
    file = line_file(tmp_path, told)
    path = tmp_path / "out" / "rows"
    path.unlink()
    path.write_text("of another program\n")
    file.write("3\n")
    file.close()
    assert path.read_text() == "of another program\n"
    assert (tmp_path / "other").read_text() == "head\n0\n1\n2\n3\n"
    assert file.paths == [path, tmp_path / "other"]
    assert file.unwritten == 0
    assert "another file took the place" in told[0]
    assert str(tmp_path / "other") in told[0]


def test_a_folder_that_cannot_be_made_again_sends_all_lines_elsewhere(tmp_path: Path, told: list[str]) -> None:
    file = line_file(tmp_path, told)
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").write_text("a file where the folder was")
    file.write("3\n")
    file.close()
    assert (tmp_path / "other").read_text() == "head\n0\n1\n2\n3\n"
    assert file.unwritten == 0


def test_lines_that_another_program_cut_off_are_counted(tmp_path: Path, told: list[str]) -> None:
    file = line_file(tmp_path, told)
    path = tmp_path / "out" / "rows"
    os.truncate(path, 0)  # as logrotate's option "copytruncate"
    file.write("3\n")
    file.write("4\n")
    file.close()
    assert path.read_text() == "head\n3\n4\n"
    assert file.unwritten == 3
    assert "3 lines that were in it are lost" in told[0]


def test_a_file_that_is_cut_in_a_line_keeps_the_whole_ones(tmp_path: Path, told: list[str]) -> None:
    file = line_file(tmp_path, told)
    path = tmp_path / "out" / "rows"
    os.truncate(path, len("head\n0\n1"))
    file.write("3\n")
    file.close()
    assert path.read_text() == "head\n0\n3\n"
    assert file.unwritten == 2


def test_lines_of_a_removed_file_that_fit_nowhere_are_counted(tmp_path: Path, told: list[str]) -> None:
    file = LineFile(tmp_path / "rows", "head\n", on_trouble=told.append)
    file.write("0\n")
    file.flush()
    (tmp_path / "rows").unlink()
    (tmp_path / "rows").mkdir()
    file.write("1\n")
    file.close(timeout_s=0.3)
    assert file.unwritten == 2


def test_files_stay_right_when_the_working_directory_changes(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = LineFile(Path("rows"), "head\n", on_trouble=told.append)
    file.flush()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file.write("0\n")
    file.close()
    assert (tmp_path / "rows").read_text() == "head\n0\n"
    assert not told


# The files of a run.


def record(number: int) -> RequestRecord:
    return RequestRecord(
        request_id=f"abc-0-{number}", run_id="abc", stage=1, measured=1, phase="measure", concurrency=2,
        ttft_s=0.1, end_to_end_latency_s=1.0, output_tokens=10, framework="x", model="m",
    )  # fmt: skip


def writer(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> RunWriter:
    """A run whose fallback is in the same folder."""
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return RunWriter(str(folder / "run"), "abc", more, offsets=False)


def test_a_replaced_rows_file_is_read_from_where_its_rows_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = writer(tmp_path, monkeypatch)
    for number in range(5):
        run.add(record(number), ())
    run.flush()
    rows = tmp_path / "run_llm_requests.csv"
    rows.unlink()
    rows.write_text("something,else\n1,2\n")
    for number in range(5, 9):
        run.add(record(number), ())
    run.flush()
    run.write_manifest(finished_at=time.time())
    run.close()
    (shard,) = run.elsewhere()
    assert f"llm-report {tmp_path}/run {shard} reads all of it" in run.problem()
    for given in ([tmp_path / "run"], [tmp_path / "run", shard], [tmp_path / "run", shard.parent]):
        (loaded,) = llm_reports.load_all(given)
        assert sorted(loaded.requests["request_id"]) == [f"abc-0-{number}" for number in range(9)]
    assert len(llm_reports.load(tmp_path / "run").requests) == 9
    (alone,) = llm_reports.load_all([shard])
    assert len(alone.requests) == 9


def test_rows_elsewhere_on_another_machine_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = writer(tmp_path, monkeypatch, rows_elsewhere=["/nowhere/abc_rows_llm_shard.csv", 5, "/etc/passwd"])
    run.add(record(0), ())
    run.close()
    (loaded,) = llm_reports.load_all([tmp_path / "run"])
    assert len(loaded.requests) == 1
    assert sum("/nowhere/abc_rows_llm_shard.csv, which is not on this machine" in text for text in loaded.warnings) == 1


def test_files_of_a_run_that_is_over_may_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = writer(tmp_path, monkeypatch)
    run.add(record(0), ())
    run.flush()
    run.write_manifest(finished_at=1.0)
    for path in tmp_path.glob("run_llm_*"):
        path.unlink()
    run.flush()
    run.close()
    assert not list(tmp_path.iterdir())
    assert not run.problem()


def test_a_removed_manifest_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = writer(tmp_path, monkeypatch)
    (tmp_path / "run_llm_run.json").unlink()
    run.write_manifest(finished_at=1.0)
    run.close()
    assert llm_reports.load(tmp_path / "run").manifest["finished_at"] == 1.0
    assert not list(tmp_path.glob("*.part"))
    assert not run.problem()
