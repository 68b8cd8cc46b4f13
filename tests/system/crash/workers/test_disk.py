"""A disk that is full, slow or stuck: no token waits for it, nothing is lost silently."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import llm_reports
from llm_users.simulator.launch import Simulator
from tests.ports import master_ports
from tests.system.crash.workers.slow_disk import SWEEP, Pipe, run_on
from tests.system.locust_runs import Locust

SMALL_DISK = str(Path(__file__).with_name("small_disk_locustfile.py"))


def timings_are_healthy(rows: list[dict[str, str]]) -> None:
    """The endpoint sends the first token after 50 ms and one every 10 ms; whoever waits for a disk sees seconds."""
    assert max(float(row["ttft_s"]) for row in rows) < 0.5
    assert max(float(row["end_to_end_latency_s"]) for row in rows) < 1.0
    assert max(float(row["queue_s"] or 0) for row in rows) < 0.5


@pytest.mark.parametrize("processes", [0, 2])
def test_a_full_disk(tmp_path: Path, endpoint: Simulator, processes: int) -> None:
    locust = Locust(tmp_path)
    distributed = ("--processes", str(processes), *master_ports()) if processes else ()
    done = locust.run("--host", endpoint.url, *SWEEP, *distributed, locustfile=SMALL_DISK,
                      env={"SMALL_DISK": "16000", "TMPDIR": str(tmp_path)})  # fmt: skip
    assert done.code == 3, done.err
    written = done.rows()
    assert 10 < len(written) < 60
    (shard,) = done.manifest["rows_elsewhere"]
    assert f"llm-report {done.prefix} {shard}" in done.err
    timings_are_healthy(written)
    merged = tmp_path / "merged"
    report = subprocess.run(
        [sys.executable, "-m", "llm_reports.main", str(done.prefix), shard, "--out", str(merged)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert report.returncode == 0, report.stderr
    for given in ([done.prefix], [done.prefix, shard], [done.prefix, Path(shard).parent]):
        (run,) = llm_reports.load_all(given)
        assert len(run.requests) == run.requests["request_id"].nunique() == 60
        assert list(run.stages["requests_ok"]) == [60]
        assert not [text for text in run.warnings if "the manifest counts" in text or "the stages file" in text]
    with Path(shard).open(newline="") as file:
        elsewhere = list(csv.DictReader(file))
    assert len({row["request_id"] for row in written + elsewhere}) == len(written) + len(elsewhere) == 60


def remains(run_id: str) -> list[Path]:
    """What a run left in the folders that every user of the machine has."""
    return [path for folder in ("/var/tmp", "/dev/shm") for path in Path(folder).glob(f"locust-llm-rows-*/{run_id}*")]


@pytest.mark.slow
def test_no_disk_takes_all_of_it(tmp_path: Path, endpoint: Simulator) -> None:
    """Each file may have 5,000 bytes, also in the folders that take what does not fit."""
    locust = Locust(tmp_path)
    done = locust.run("--host", endpoint.url, *SWEEP, locustfile=SMALL_DISK,
                      env={"SMALL_DISK": "5000", "TMPDIR": str(tmp_path)}, timeout_s=120)  # fmt: skip
    (run_id,) = {row["run_id"] for row in done.rows()}
    try:
        assert done.code == 3, done.err
        assert "Traceback" not in done.err
        (run,) = llm_reports.load_all([done.prefix, *done.manifest["rows_elsewhere"]])
        lost = done.manifest["lines_not_written"]["run_llm_requests.csv"]
        assert lost > 0
        assert len(run.requests) + lost == 60
        assert f"{lost} rows could not be written" in done.err
        assert any(f"{lost} lines could not be written" in note for note in done.manifest["notes"])
    finally:
        for path in remains(run_id):
            shutil.rmtree(path.parent, ignore_errors=True)


def test_a_slow_disk_delays_no_token(tmp_path: Path, endpoint: Simulator) -> None:
    pipe = Pipe(tmp_path / "out" / "run_llm_requests.csv")
    threading.Thread(target=pipe.read_after, args=(9.0,), daemon=True).start()
    done, _ = run_on(tmp_path, endpoint, "--llm-requests", "120")
    assert done.code == 0, done.err
    assert "the disk is slow" in done.err
    assert any("the disk is slow" in note for note in done.manifest["notes"])
    rows = pipe.rows()
    assert len(rows) == 120
    timings_are_healthy(rows)
