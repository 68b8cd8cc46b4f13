"""A window in the background, or minimised: it does not ask, and what it missed is there when it is seen again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.system.browser.tab.conftest import OpenUrl, Web
from tests.system.browser.tab.test_sweep_in_the_tab import samples

# A headless Chromium has no windows that cover each other: the page is told what a browser would tell it.
TELL = """hidden => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    const state = hidden ? "hidden" : "visible";
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture
def web(start_web: Callable[..., Web]) -> Web:
    started = start_web("--llm-simulator", "ttft=60ms,itl=4ms", "--llm-sweep", "2", "--llm-requests", "100000",
                        "--autostart")  # fmt: skip
    started.await_start()
    return started


def questions(watched: Any) -> list[str]:
    return [url for url in watched.asked if "state.json" in url]


def see_again(page: Page) -> dict[str, Any]:
    """The window comes to the front; returns what it is told first."""
    with page.expect_response(lambda response: "state.json" in response.url) as first:
        page.evaluate(TELL, False)
    told: dict[str, Any] = first.value.json()
    return told


def test_it_does_not_ask_and_misses_nothing(web: Web, open_url: OpenUrl, watched: Any) -> None:
    page = open_url(f"{web.root}/llm")
    page.wait_for_selector("#llm-tokens canvas")
    page.wait_for_timeout(1500)
    with page.expect_response(lambda response: "state.json" in response.url) as last:
        pass
    page.evaluate(TELL, True)
    page.wait_for_timeout(1200)  # an answer may be on its way
    count, known = len(questions(watched)), samples(page)
    page.wait_for_timeout(4000)
    assert len(questions(watched)) == count
    assert samples(page) == known
    told = see_again(page)
    missed = told["samples"]["t"]
    assert not told["reset"], "only what it missed is sent"
    assert len(missed) >= 4
    assert missed[0] <= last.value.json()["now_s"] + 3.5, "from where it stopped on"
    assert max(b - a for a, b in pairwise(missed)) < 2.5
    page.wait_for_timeout(3000)
    assert known + 6 <= samples(page) <= known + 11
    assert 3 <= len(questions(watched)) - count <= 5, "once a second again, not twice"


def test_opened_in_the_background_it_waits(web: Web, open_url: OpenUrl, watched: Any) -> None:
    page = open_url("about:blank")
    page.add_init_script(f"({TELL})(true)")
    page.goto(f"{web.root}/llm")
    page.wait_for_timeout(2500)
    assert not questions(watched)
    assert see_again(page)["reset"]
    page.wait_for_selector("#llm-tokens canvas")
