"""Which lines of Locust a run with stages removes from the log."""

from __future__ import annotations

import logging

import pytest

from llm_users.wiring.locust_log import RampLines


@pytest.mark.parametrize(
    ("level", "text", "has_stages", "passes"),
    [
        (logging.INFO, "Ramping to %d users at a rate of 1.00 per second", True, False),
        (logging.INFO, "All users spawned: {} (0 total users)", True, False),
        (logging.INFO, "Ramping to %d users at a rate of 1.00 per second", False, True),
        (logging.INFO, "Shape test stopping", True, True),
        (logging.WARNING, "Ramping to more users than a process can run", True, True),
    ],
)
def test_lines_about_users_are_removed_from_runs_with_stages(
    level: int, text: str, has_stages: bool, passes: bool
) -> None:
    record = logging.LogRecord("locust.runners", level, __file__, 1, text, (), None)
    assert RampLines(lambda: has_stages).filter(record) is passes
