"""A rate above the capacity of the endpoint, with the real command: the stage is marked wherever it is shown."""

from __future__ import annotations

import pytest

import llm_reports
from tests.system.locust_runs import Locust

pytestmark = pytest.mark.slow


def test_a_rate_above_the_capacity_is_unsteady(locust: Locust) -> None:
    """Four answers at a time take 0.1 s each, so the endpoint completes some 40 requests a second."""
    done = locust.run(
        "--llm-simulator", "ttft=10ms,itl=10ms,capacity=4", "--llm-output-tokens", "fixed:10", "--llm-rate", "15,100",
        "--llm-requests", "150", "--llm-report", timeout_s=120,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [stage["steadiness"] for stage in done.rows("stages")] == ["steady", "unsteady"]
    assert "stage 2 done: 100 requests/s, 150 of 150 requests ok" in done.err
    assert "unsteady: its queue grew through the window" in done.err
    assert "The stage was unsteady" in " ".join(done.out.split())
    # The same from the rows, as for files without the column.
    run = llm_reports.load(done.prefix)
    run.stages["steadiness"] = ""
    assert [group.steadiness for group in llm_reports.groups([run])] == ["steady", "unsteady"]
