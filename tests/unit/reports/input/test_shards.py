"""A run that is in pieces: `llm-report` puts rows file and shards together, each row once."""

from __future__ import annotations

from pathlib import Path

import llm_reports
from llm_users.collect.files import RunFiles
from llm_users.collect.spool import Spool, mark_folder
from llm_users.record import RequestRecord
from llm_users.run_files import SERVER_METRICS_CSV, SHARD_CSV, path_of
from tests.unit.reports.server_on_disk import metric, write_server


def record(number: int, run_id: str = "abc") -> RequestRecord:
    return RequestRecord(
        request_id=f"{run_id}-0-{number}", run_id=run_id, stage=1, measured=1, phase="measure", concurrency=2,
        ttft_s=0.1 + number / 1000, end_to_end_latency_s=1.0, output_tokens=10, framework="x", model="m",
    )  # fmt: skip


def pieces(folder: Path) -> tuple[Path, Path]:
    """Rows 0 to 5 in the rows file, 4 to 9 in a shard, where 0 to 9 were started."""
    files = RunFiles(str(folder / "run"), offsets=False)
    for number in range(6):
        files.write_request(record(number).row())
    files.write_manifest({"run_id": "abc", "counts": {"sent": {"0": None}, "received": {"0": 6}}})
    files.close()
    mark_folder(folder / "run_llm_spool", "abc")
    spool = Spool("abc", 0, str(folder / "run_llm_spool"), print)
    for number in range(4, 10):
        spool.add(record(number).row())
    spool.close()
    return folder / "run", spool.paths[0]


def test_rows_of_a_shard_are_added_once(tmp_path: Path) -> None:
    prefix, shard = pieces(tmp_path)
    for given in ([prefix, shard], [shard, prefix], [prefix, shard.parent], [prefix, shard, shard.parent]):
        (run,) = llm_reports.load_all(given)
        assert sorted(run.requests["request_id"]) == [f"abc-0-{number}" for number in range(10)]
        assert run.name == "run"
        assert any("4 rows were added" in text for text in run.warnings)
        assert not any("counted twice" in text for text in run.warnings)
    assert run.requests.dtypes.equals(llm_reports.load(prefix).requests.dtypes)


def test_metrics_of_servers_beside_a_shard_are_added_once(tmp_path: Path) -> None:
    prefix, shard = pieces(tmp_path)
    first, second = (
        metric("requests_running", "gauge", run_id="abc", stage=stage, mean=float(stage)) for stage in (1, 2)
    )
    other = metric("requests_running", "gauge", run_id="xyz", stage=3, mean=3.0)
    write_server(path_of(prefix, SERVER_METRICS_CSV), [first])
    beside_shard = shard.with_name(shard.name.removesuffix(SHARD_CSV))
    write_server(path_of(beside_shard, SERVER_METRICS_CSV), [first, second, other])
    (run,) = llm_reports.load_all([prefix, shard])
    assert [(record.stage, record.mean) for record in run.server_metrics] == [(1, 1.0), (2, 2.0)]
    assert any("1 line of another run ignored" in text for text in run.warnings)


def test_shards_alone_are_a_run(tmp_path: Path) -> None:
    _, shard = pieces(tmp_path)
    (run,) = llm_reports.load_all([shard])
    assert len(run.requests) == 6
    assert run.name == "abc"


def test_shards_of_another_run_stay_apart(tmp_path: Path) -> None:
    prefix, _ = pieces(tmp_path)
    mark_folder(tmp_path / "other", "xyz")
    spool = Spool("xyz", 0, str(tmp_path / "other"), print)
    spool.add(record(0, "xyz").row())
    spool.close()
    assert [len(run.requests) for run in llm_reports.load_all([prefix, spool.paths[0]])] == [6, 1]
