"""A thousand users of one process: rows of all stopped requests, closed connections, and little memory."""

from __future__ import annotations

from llm_users.calibration.measured_run import SimulatorEndpoint, Timing
from tests.system.accuracy.many_users import hold, kb_per_user

USERS = 1000
MOST_KB = 40.0
"""At 10,000 users, tests.system.accuracy.many_users judges a bound. Here, the rows of the run weigh more per user."""


def test_a_thousand_waiting_users_are_held_and_stopped() -> None:
    one = hold(1, 0.5, Timing(4.0, 0.05, 5), SimulatorEndpoint)
    many = hold(USERS, 2.0, Timing(8.0, 0.05, 5), SimulatorEndpoint)
    assert (many.measured.requests, many.measured.failed) == (USERS, 0)
    assert many.interrupted == {"aborted": USERS}
    assert many.closed_s < 5
    assert kb_per_user(one, many, lambda memory: memory.load_kb) < MOST_KB
