"""The register of sent texts: what it finds again, how it stays small, and that several processes may write it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_users.wiring.repeated_texts import MOST_ENTRIES, digest_of, last_sent, remember_sent


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "locust-llm" / "sent-texts.json"


def test_what_was_sent_is_found_with_its_time() -> None:
    began = time.time()
    assert last_sent(["a"]) is None
    remember_sent(["a", "b"])
    found = last_sent(["c", "b"])
    assert found is not None
    assert began <= found <= time.time()
    assert last_sent(["c"]) is None
    assert last_sent([]) is None


def test_parts_of_a_digest_are_kept_apart() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc") != digest_of("a", "bc", "")
    assert digest_of("a", "\ud800") == digest_of("a", "\ud800")  # a lone surrogate, as a command line may have it
    assert len(digest_of()) == 32


def test_it_stays_small_and_forgets_the_oldest(path: Path) -> None:
    for first in range(0, 2 * MOST_ENTRIES, 100):
        remember_sent([digest_of(str(number)) for number in range(first, first + 100)])
    kept = json.loads(path.read_text())["sent"]
    assert len(kept) == MOST_ENTRIES
    assert set(kept) == {digest_of(str(number)) for number in range(MOST_ENTRIES, 2 * MOST_ENTRIES)}
    assert path.stat().st_size < 65536
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_older_than_a_month_is_forgotten(path: Path) -> None:
    remember_sent(["new"])
    content = json.loads(path.read_text())
    content["sent"]["old"] = time.time() - 31 * 86400
    path.write_text(json.dumps(content))
    assert last_sent(["old"]) is None
    remember_sent(["newer"])
    assert set(json.loads(path.read_text())["sent"]) == {"new", "newer"}


def test_processes_that_write_at_the_same_time_lose_nothing(path: Path) -> None:
    program = (
        "import sys; from llm_users.wiring.repeated_texts import *\n"
        "for number in range(15): remember_sent([f'{sys.argv[1]}-{number}'])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(rank)]) for rank in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert len(json.loads(path.read_text())["sent"]) == 60


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"sent": {"a": "b"}}', '{"format": "other", "sent": {}}', "x" * 99999]
)
def test_a_file_that_is_not_ours_is_replaced(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    assert last_sent(["a"]) is None
    remember_sent(["a"])
    assert last_sent(["a"]) is not None


def test_pipes_in_the_place_of_its_files_hold_nothing_up(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    os.mkfifo(path.with_suffix(".lock"))
    assert last_sent(["a"]) is None
    remember_sent(["a"])
    assert last_sent(["a"]) is not None


def test_a_folder_that_cannot_be_written_is_no_error(path: Path) -> None:
    path.parent.write_text("a file")
    remember_sent(["a"])
    assert last_sent(["a"]) is None
