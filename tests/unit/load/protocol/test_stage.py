"""What workers are told about a stage: its load, and how many Locust users that takes."""

from __future__ import annotations

import msgspec
import pytest

from llm_users.load.protocol.stage import StagePlan
from llm_users.record import StageLoad


@pytest.mark.parametrize("load", [StageLoad(8), StageLoad(rate_per_s=2.5)])
def test_a_plan_travels_whole(load: StageLoad) -> None:
    plan = StagePlan(3, load, workers=2, requests=10, max_in_flight=4)
    assert msgspec.convert(msgspec.to_builtins(plan), StagePlan) == plan


def test_an_open_loop_has_one_dispatcher_per_worker() -> None:
    assert StagePlan(1, StageLoad(rate_per_s=2.5), workers=3).users == 3
    assert StagePlan(1, StageLoad(8), workers=3).users == 8
