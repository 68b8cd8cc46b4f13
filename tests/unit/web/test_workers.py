"""The workers of the live view by their last live metrics."""

from __future__ import annotations

import pytest

from llm_users.load.protocol.messages import LiveMetrics
from llm_users.web.workers import Workers


def test_the_cpu_chart_has_the_maximum_and_the_mean_of_the_workers() -> None:
    workers = Workers()
    assert workers.cpu() == {"cpu_max": None, "cpu_mean": None}
    workers.add(0, LiveMetrics(cpu=0.2))
    assert workers.cpu() == {"cpu_max": 0.2, "cpu_mean": None}, "one worker is its own mean"
    workers.add(1, LiveMetrics(cpu=0.9))
    workers.add(2, LiveMetrics(cpu=0.4))
    assert workers.cpu() == {"cpu_max": 0.9, "cpu_mean": pytest.approx(0.5)}
