"""The files of a run when other programs remove or replace them, and rows that lie elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_users.collect.writer import RunWriter
from llm_users.record import RequestRecord


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
    assert (
        sum("/nowhere/abc_rows_llm_shard.csv, which does not exist on this machine" in text for text in loaded.warnings)
        == 1
    )


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
