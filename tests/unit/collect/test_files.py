"""Prefixes of the files of a run: which are accepted, and how files of an earlier run are moved aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_users.collect.files import check_prefix, move_aside
from llm_users.run_files import LOCUST_SUFFIXES


def test_everything_of_an_earlier_run_is_moved_aside(tmp_path: Path) -> None:
    prefix = str(tmp_path / "run")
    names = ["_llm_requests.csv", "_llm_stages.csv.gz", "_llm_gate.xml", "_llm_find.csv", "_stats.csv"]
    for name in (*names, "other_llm_requests.csv", "_llm_spool"):
        (tmp_path / f"run{name}").write_text(name)
    (tmp_path / "run_report").mkdir()
    (tmp_path / "run_failures.csv").touch()
    assert move_aside(prefix, LOCUST_SUFFIXES) == f"{prefix}.1"
    assert move_aside(prefix) == f"{prefix}.1", "the same number as for Locust's files"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        *(f"run.1{name}" for name in names), "run.1_report", "runother_llm_requests.csv", "run_llm_spool",
        "run_failures.csv",
    }  # fmt: skip
    (tmp_path / "run_llm_requests.csv").write_text("again")
    assert move_aside(prefix) == f"{prefix}.2"


@pytest.mark.parametrize("name", ["a b", "Läufe/ä", "deep/er/run", "link/run", "-run", "run[1]"])
def test_prefixes_that_can_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    check_prefix(str(tmp_path / name))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file/run", "a file exists at the path of the folder"),
        ("file/deep/run", "Not a directory"),
        ("dangling/run", "a file exists at the path of the folder"),
        ("x" * 240, "File name too long"),
    ],
)
def test_prefixes_that_cannot_be(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nothing")
    with pytest.raises(OSError, match=f"{reason}. Set another path with --csv"):
        check_prefix(str(tmp_path / name))
