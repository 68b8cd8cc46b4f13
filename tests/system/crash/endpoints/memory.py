"""The most memory that a process has had, and how to begin counting anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest


def forget_peak(pid: int | None = None) -> None:
    """From here on the peak is counted anew (Linux)."""
    path = Path(f"/proc/{pid or os.getpid()}/clear_refs")
    if not path.exists():
        pytest.skip("only Linux says how much memory a process has had")
    path.write_text("5")


def peak_mib(pid: int | None = None) -> float:
    """The most resident memory since ``forget_peak``."""
    return _kib("VmHWM", pid) / 1024


def now_mib(pid: int | None = None) -> float:
    """The resident memory now."""
    return _kib("VmRSS", pid) / 1024


def _kib(name: str, pid: int | None) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid or os.getpid()}/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1])
