"""Spools of rows and counts of started requests: what one process writes, another one reads."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_users.collect.spool import ShardReader, Spool, StartCounts, mark_folder, read_counts
from llm_users.record import RequestRecord
from tests.project import ROOT


def record(number: int, **more: Any) -> RequestRecord:
    return RequestRecord(request_id=f"run-0-{number}", run_id="run", worker=0, stage=1, **more)


def test_a_spool_gives_back_what_was_put_in(tmp_path: Path) -> None:
    mark_folder(tmp_path / "spool", "run")
    spool = Spool("run", 0, str(tmp_path / "spool"), print)
    assert spool.shared
    first = record(0, error_message='two\nlines, "quoted"', ttft_s=0.25, http_status=200, model="=formula")
    spool.add(first.row())
    spool.flush()
    reader = ShardReader(spool.paths[0])
    (found,) = reader.rows()
    assert found == first
    spool.add(record(1).row())
    spool.flush()
    assert [row.request_id for row in reader.rows()] == ["run-0-1"], "it reads on from where it was"
    spool.close()


def test_a_cut_line_is_left_for_later(tmp_path: Path) -> None:
    mark_folder(tmp_path, "run")
    spool = Spool("run", 0, str(tmp_path), print)
    for number in range(2):
        spool.add(record(number, error_message="a\nb").row())
    spool.flush()
    two = spool.paths[0].stat().st_size
    spool.add(record(2, error_message="a\nb").row())
    spool.close()
    whole = spool.paths[0].read_bytes()
    for cut in range(two, len(whole)):
        spool.paths[0].write_bytes(whole[:cut])
        reader = ShardReader(spool.paths[0])
        assert [row.request_id for row in reader.rows()] == ["run-0-0", "run-0-1"]
        spool.paths[0].write_bytes(whole)
        assert [row.request_id for row in reader.rows()] == ["run-0-2"]


def test_a_file_with_other_columns_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="does not have the columns of this version"):
        list(ShardReader(tmp_path / "x").rows())


COUNTING = """
import sys, time
from llm_users.collect.spool import StartCounts
counts = StartCounts("run", 3, shared=True)
for _ in range(7): counts.add(1, False)
for _ in range(5): counts.add(2, True)
print(counts.path, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no shared memory here")
def test_start_counts_outlive_a_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", COUNTING], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        os.kill(process.pid, signal.SIGKILL)
    assert read_counts(path) == {1: (7, 0), 2: (5, 5)}
    path.unlink()
    assert read_counts(path) is None


def test_counts_of_one_process_are_in_no_file() -> None:
    counts = StartCounts("run", 0, shared=False)
    counts.add(1, True)
    assert (counts.total, counts.path) == (1, None)


def test_shard_rows_and_rows_files_have_the_same_header(tmp_path: Path) -> None:
    from llm_users.collect.files import RunFiles

    RunFiles(str(tmp_path / "run"), offsets=False).close()
    mark_folder(tmp_path, "run")
    spool = Spool("run", 0, str(tmp_path), print)
    spool.close()
    with (tmp_path / "run_llm_requests.csv").open() as one, spool.paths[0].open() as other:
        assert next(csv.reader(one)) == next(csv.reader(other))
