"""The tab for those who have no mouse or see no colours, and what its controls do to the charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.ports import free_port
from tests.system.browser.tab.conftest import SWEEP, OpenUrl, Web
from tests.system.browser.tab.test_sweep_in_the_tab import start_from_form

OBJECTIVES = "ttft_p95<0.15,tpot_p95<0.012"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A sweep of two stages that is over, with objectives that both charts can show."""
    web = Web(tmp_path_factory.mktemp("finished"), "--llm-simulator", "ttft=60ms,itl=4ms,jitter=0.2", "--llm-sweep",
              "1,3", "--llm-requests", "20", "--llm-slo", OBJECTIVES, "--autostart", port=free_port())  # fmt: skip
    web.await_start()
    yield web
    web.end()


def watch(page: Page) -> None:
    expect(page.locator(".llm-stage")).to_contain_text("2 stages finished", timeout=40_000)
    expect(page.locator("#llm-table-stages tbody tr:not(.llm-running)")).to_have_count(2)
    page.wait_for_selector("#llm-tokens canvas")
    page.wait_for_timeout(300)


def pixels(page: Page, chart: str, colour: str) -> int:
    """How many pixels of a chart have a colour of the style sheet."""
    return int(
        page.evaluate(
            """([id, name]) => {
                const canvas = document.querySelector(`#llm-${id} .u-wrap canvas`);
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                const hex = getComputedStyle(document.querySelector(".llm-live")).getPropertyValue(`--llm-${name}`);
                const wanted = [1, 3, 5].map((at) => parseInt(hex.trim().slice(at, at + 2), 16));
                let found = 0;
                for (let i = 0; i < data.length; i += 4) {
                    if (wanted.every((value, k) => Math.abs(data[i + k] - value) < 3)) found++;
                }
                return found;
            }""",
            [chart, colour],
        )
    )


def picture(page: Page, chart: str) -> str:
    """A chart's pixels."""
    return str(page.evaluate(f"document.querySelector('#llm-{chart} .u-wrap canvas').toDataURL()"))


FOCUSED = """() => {
    const one = document.activeElement;
    const style = getComputedStyle(one);
    return {
        inside: Boolean(one.closest("#llm-panel")),
        place: [...document.querySelectorAll("#llm-panel *")].indexOf(one),
        what: one.tagName.toLowerCase() + (one.className.includes("llm-chart-plot") ? ".chart" : ""),
        name: one.getAttribute("aria-label") || one.labels?.[0]?.textContent || one.textContent,
        outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
    };
}"""


def test_everything_is_reached_by_tab_in_the_order_of_the_page(finished: Web, open_url: OpenUrl) -> None:
    page = open_url(f"{finished.root}/?tab=llm")
    watch(page)
    page.get_by_role("tab", name="LLM", exact=True).focus()
    reached: list[dict[str, Any]] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if not focused["inside"]:
            break
        reached.append(focused)
    places = [each["place"] for each in reached]
    assert places == sorted(set(places)), "in the order of the page, nothing twice, and out of it again"
    assert all(each["name"].strip() for each in reached), reached
    assert not [each for each in reached if not each["outlined"]], "a focus that nobody sees"
    kinds = [each["what"] for each in reached]
    assert kinds.count("div.chart") == 11
    assert kinds.count("select") == 1
    assert kinds.count("input") == 2
    assert kinds.count("a") == 5, "the downloads"
    assert {"Overview", "Time to First Token (seconds)"} <= {each["name"] for each in reached}


def test_roles_are_what_a_screen_reader_needs(finished: Web, open_url: OpenUrl) -> None:
    page = open_url(f"{finished.root}/?tab=llm")
    watch(page)
    panel = page.get_by_role("tabpanel", name="LLM")
    for name in ("Stages", "Throughput against latency", "Over time", "Downloads"):
        assert panel.get_by_role("region", name=name, exact=True).count() == 1, name
    assert panel.get_by_role("table").count() >= 3
    assert panel.get_by_role("img").count() == 11
    # Workers are listed while they send live metrics; these have sent none for a while.
    expect(panel.locator("h2", has_text="Client")).to_be_hidden(timeout=10_000)
    levels = panel.locator("h2:visible").all_inner_texts()
    assert levels == ["Results by stage", "Throughput against latency", "Over time", "Downloads"]
    assert panel.get_by_role("progressbar", name="Progress of the run").get_attribute("aria-valuenow") == "100"
    # What it says above comes first: the tables stand over the charts.
    above, below = page.locator("#llm-table-ttft").bounding_box(), page.locator("#llm-curve-ttft").bounding_box()
    assert above is not None
    assert below is not None
    assert above["y"] + above["height"] <= below["y"]


def test_objectives_are_lines_where_they_belong(finished: Web, open_url: OpenUrl) -> None:
    page = open_url(f"{finished.root}/?tab=llm")
    watch(page)
    for chart in ("curve-ttft", "curve-tpot", "ttft", "tpot"):
        assert pixels(page, chart, "bad") > 20, chart
    for chart in ("gap", "tokens", "cpu"):
        assert pixels(page, chart, "bad") == 0, chart


def test_a_logarithmic_axis_is_another_picture_and_the_way_back_is_there(finished: Web, open_url: OpenUrl) -> None:
    page = open_url(f"{finished.root}/?tab=llm")
    watch(page)
    for switch, changed, kept in (
        ("latencies logarithmic", ("ttft", "gap", "tpot"), ("tokens", "curve-ttft")),
        ("logarithmic", ("curve-ttft", "curve-tpot"), ("tokens", "ttft")),
    ):
        box = page.get_by_label(switch, exact=True)
        before = {chart: picture(page, chart) for chart in (*changed, *kept)}
        box.check()
        page.wait_for_timeout(300)
        assert not [chart for chart in changed if picture(page, chart) == before[chart]]
        assert not [chart for chart in kept if picture(page, chart) != before[chart]]
        box.uncheck()
        page.wait_for_timeout(300)
        assert not [chart for chart in (*changed, *kept) if picture(page, chart) != before[chart]]


SLOW_START = f"""
exec(compile(open({SWEEP!r}).read(), {SWEEP!r}, "exec"))
import gevent
from llm_users.load.coordinator.locust_users import SweepShape

first_tick = SweepShape.tick


def tick(shape):  # as on a machine that is busy when the test begins
    SweepShape.tick = first_tick
    gevent.sleep(5)
    return first_tick(shape)


SweepShape.tick = tick
"""


def test_the_form_keeps_what_was_edited_through_a_slow_start(
    start_web: Callable[..., Web], open_url: OpenUrl, tmp_path: Path
) -> None:
    locustfile = tmp_path / "slow_start.py"
    locustfile.write_text(SLOW_START)
    web = start_web("--llm-simulator", "ttft=20ms,itl=2ms", locustfile=str(locustfile))
    page = open_url(f"{web.root}/")
    start_from_form(page, llmSweep="2", llmRequests="5")
    expect(page.locator(".llm-stage")).to_contain_text("1 stage finished", timeout=30_000)
    # What was edited is there for the next start, after a reload too.
    page.reload()
    page.get_by_role("button", name="New").click()
    page.wait_for_selector("[data-llm-form]")
    assert page.input_value("form input[name=llmSweep]") == "2"
    assert page.input_value("form input[name=llmRequests]") == "5"
