"""Files of lines: whole lines only, elsewhere when the disk is full, again when another program removed the file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest

from llm_users.collect.line_file import LineFile
from tests.project import ROOT


class KilledInKill:
    """A thread pool whose end is never reached: a run is stopped while the files of the one before it are closed."""

    def __init__(self, pool: Any) -> None:
        self.apply = pool.apply

    def kill(self) -> None:
        raise gevent.GreenletExit


def test_a_file_whose_closing_was_killed_can_be_closed_again(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "rows", "a,b\n")
    file.flush()
    pool, file._pool = file._pool, KilledInKill(file._pool)
    with pytest.raises(gevent.GreenletExit):
        file.close()
    pool.kill()
    file.close()
    file.discard()
    assert (tmp_path / "rows").read_text() == "a,b\n"


def test_lines_are_in_the_file_after_a_flush_and_not_before_anyone_waited(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "rows", "a,b\n")
    for number in range(3):
        file.write(f"{number},x\n")
    assert (tmp_path / "rows").read_text() == ""
    assert file.flush()
    assert (tmp_path / "rows").read_text() == "a,b\n0,x\n1,x\n2,x\n"
    file.write("3,x\n")
    gevent.sleep(1.0)  # longer than a line waits
    assert (tmp_path / "rows").read_text().endswith("3,x\n")
    file.close()


def test_a_full_device_sends_lines_elsewhere(tmp_path: Path) -> None:
    full = tmp_path / "rows"
    full.symlink_to("/dev/full")
    told: list[str] = []
    file = LineFile(full, "a\n", elsewhere=lambda: tmp_path / "other", on_trouble=told.append)
    file.write("1\n")
    assert file.flush()
    file.write("2\n")
    file.close()
    assert (tmp_path / "other").read_text() == "a\n1\n2\n"
    assert file.unwritten == 0
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert str(tmp_path / "other") in told[0]


def test_what_fits_nowhere_is_counted(tmp_path: Path) -> None:
    full = tmp_path / "rows"
    full.symlink_to("/dev/full")
    told: list[str] = []
    file = LineFile(full, "a\n", on_trouble=told.append)
    for number in range(5):
        file.write(f"{number}\n")
    assert not file.flush(timeout_s=0.5)
    file.close(timeout_s=0.2)
    assert file.unwritten == 5
    assert any("5 lines could not be written" in text for text in told)


CUT = """
import resource, sys
from pathlib import Path
from llm_users.collect.line_file import LineFile
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
file = LineFile(Path(sys.argv[1]), "head\\n", elsewhere=lambda: Path(sys.argv[2]))
for number in range(20):
    file.write(f"{number:02d}" + "x" * 70 + "\\n")
file.close()
"""


def test_a_line_is_never_cut_by_a_full_disk(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    subprocess.run([sys.executable, "-c", CUT, str(first), str(second)], check=True, timeout=20, cwd=ROOT)
    lines = first.read_text().splitlines()[1:] + second.read_text().splitlines()[1:]
    assert first.read_text().endswith("\n")
    assert [int(line[:2]) for line in lines] == list(range(20))
    assert {len(line) for line in lines} == {72}


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
    assert "another file replaced" in told[0]
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
    assert "3 of its lines are lost" in told[0]


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
