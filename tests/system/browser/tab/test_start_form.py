"""The options of the extension in Locust's start form: groups, hidden options, refusals, the way to the tab."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from llm_users.options.table import GROUPS, OPTIONS
from tests.ports import free_port
from tests.system.browser.tab.conftest import OpenUrl, Web
from tests.system.browser.tab.test_sweep_in_the_tab import start_from_form


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A process that waits for a start."""
    made = Web(tmp_path_factory.mktemp("form"), "--llm-simulator", "ttft=20ms,itl=2ms", "--llm-seed", "7",
               port=free_port())  # fmt: skip
    yield made
    made.end()


def open_form(open_url: OpenUrl, web: Web, **window: object) -> Page:
    page = open_url(f"{web.root}/", **window)
    page.wait_for_selector("[data-llm-form]")
    return page


def visible(page: Page) -> list[str]:
    names: list[str] = page.eval_on_selector_all(
        "[data-llm-form] [name]", "all => all.filter(one => one.checkVisibility()).map(one => one.name)"
    )
    return names


def test_the_options_have_groups_and_the_rare_ones_are_behind_a_button(web: Web, open_url: OpenUrl) -> None:
    page = open_form(open_url, web)
    expect(page.get_by_role("button", name="LLM options")).to_have_attribute("aria-expanded", "true")
    assert page.locator(".llm-form-title").all_inner_texts() == [f"LLM: {group}" for group in GROUPS]
    assert page.locator("[data-llm-form] [name]").count() == len(OPTIONS)
    page.wait_for_timeout(500)  # the section opens
    shown = visible(page)
    assert {"llmModel", "llmSweep", "llmRequests", "llmSlo", "llmReport"} <= {*shown}
    assert "llmTraceSpeed" not in shown
    assert "llmSeed" in shown, "its value is not the default"
    load = page.get_by_role("button", name=re.compile("^LLM: .*load: Show"))
    load.press("Enter")
    assert "llmTraceSpeed" in visible(page)
    page.get_by_role("button", name=re.compile("^LLM: .*load: Show fewer")).press("Enter")
    assert visible(page) == shown
    # Each field has a short name, its help text and its flag.
    field = page.get_by_label("Stage time", exact=True)
    help_id = field.get_attribute("aria-describedby")
    expect(page.locator(f"#{help_id}")).to_contain_text("Measure each stage for this time")
    assert page.locator("[title='--llm-stage-time']").count() == 1
    described = page.eval_on_selector_all(
        "[data-llm-form] [name]",
        "all => all.filter(one => document.getElementById(one.getAttribute('aria-describedby'))?.textContent).length",
    )
    assert described == len(OPTIONS)


@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (375, "light"), (1280, "dark")])
def test_the_form_fits_its_window_and_its_text_is_readable(
    width: int, scheme: str, web: Web, open_url: OpenUrl
) -> None:
    page = open_form(open_url, web, width=width, scheme=scheme)
    for button in reversed(page.locator(".llm-form-more[aria-expanded=false]").all()):
        button.press("Enter")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    texts = page.locator(".llm-form-title, .llm-form-help, .llm-form-more")
    colours = {str(each.evaluate("one => getComputedStyle(one).color")) for each in texts.all()}
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) > 3 * 128 for colour in colours]
    assert light == [scheme == "dark"] * len(light), colours


def test_a_refusal_is_in_the_form_and_the_corrected_start_leads_to_the_tab(
    start_web: Callable[..., Web], open_url: OpenUrl
) -> None:
    web = start_web("--llm-simulator", "ttft=20ms,itl=2ms")
    page = open_form(open_url, web)
    start_from_form(page, llmSweep="1,<img src=x>", llmRequests="5")
    alert = page.locator("form [role=alert]")
    expect(alert).to_contain_text("--llm-sweep: ")
    expect(alert).to_contain_text("<img src=x>")
    assert page.locator("form img").count() == 0
    assert page.input_value("form input[name=llmRequests]") == "5"
    start_from_form(page, llmSweep="1,2")
    expect(page.locator(".llm-stage")).to_contain_text("2 stages finished", timeout=30_000)
    assert "tab=llm" in page.url
    # Another tab stays open until the next start.
    page.get_by_role("tab", name="Statistics").click()
    page.wait_for_timeout(500)
    assert "tab=stats" in page.url
    page.get_by_role("button", name="New").click()
    start_from_form(page, llmSweep="1")
    expect(page.locator(".llm-stage")).to_contain_text("1 stage finished", timeout=30_000)
    assert "tab=llm" in page.url
