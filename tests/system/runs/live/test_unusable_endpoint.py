"""A run from the web form that cannot succeed: the form or the banner of the tab says why."""

from __future__ import annotations

import pytest

from llm_users.simulator.launch import Simulator, launch
from tests.system.runs.live.conftest import Starter
from tests.system.runs.live.test_live_run import is_over

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("workers", [0, 2])
def test_the_banner_says_why_the_run_ended(web: Starter, workers: int) -> None:
    page = web("--llm-model", "m", workers=workers)
    with launch("ttft=5ms,itl=1ms,api_key=correct-horse-battery", max_seconds=60) as simulator:
        assert page.swarm(host=simulator.url, llm_sweep="4,8", llm_requests="400")["success"]
        state = page.until(is_over, "the end of the run")
    first = state["banners"][0]
    assert first["level"] == "bad"
    assert "The run was ended: the endpoint cannot be used" in first["text"]
    assert "provide an API key" in first["text"]
    assert len(state["stages"]) == 1


def test_a_url_that_is_not_a_base_url_is_refused_in_the_form(web: Starter, simulator: Simulator) -> None:
    page = web("--llm-model", "m")
    answer = page.swarm(host=f"{simulator.url}/chat/completions", llm_sweep="1")
    assert not answer["success"]
    assert f"write {simulator.url}" in answer["message"]
