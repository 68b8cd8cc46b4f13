"""The lock on a prefix: one process and one run at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm_users.collect.prefix_lock import PrefixInUseError, hold
from tests.project import ROOT

HOLDER = """
import sys, time
from llm_users.collect.prefix_lock import hold
lock = hold(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    prefix = str(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLDER, prefix], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(PrefixInUseError, match=rf"in use by process {process.pid} on .*--csv FOLDER/NAME"):
            hold(prefix)
        process.kill()
    assert (tmp_path / "run_llm_run.lock").exists()
    hold(prefix).release()
    assert not (tmp_path / "run_llm_run.lock").exists()


def test_one_process_has_one_lock_and_one_run_at_a_time(tmp_path: Path) -> None:
    lock = hold(str(tmp_path / "run"))
    assert hold(f"{tmp_path}/run") is lock
    writes = {"first": True}
    lock.claim("first", lambda: writes["first"])
    with pytest.raises(PrefixInUseError, match="another run of this process"):
        lock.claim("second", lambda: True)
    writes["first"] = False
    lock.claim("second", lambda: True)
    lock.release()
