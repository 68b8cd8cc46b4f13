"""Locust's own CSV files: errors of a writer whose files are closed are left out, others are not."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from llm_users.wiring import locust_csv


@pytest.mark.parametrize("closed", [True, False])
def test_files_that_locust_closes_under_its_own_writer_give_no_traceback(closed: bool) -> None:
    def write(_writer: Any) -> None:
        raise ValueError("I/O operation on closed file.")

    writer = SimpleNamespace(**{name: SimpleNamespace(closed=closed) for name in locust_csv._FILES})
    with contextlib.nullcontext() if closed else pytest.raises(ValueError, match="closed file"):
        locust_csv._reporting(write)(writer)
