"""The tab as a part of Locust's page: its anchor, base path, login, themes, widths, who may read what."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.ports import free_port
from tests.system.browser.tab.conftest import OpenUrl, Web

SIMULATED = ("--llm-simulator", "ttft=60ms,itl=4ms,capacity=4,jitter=0.2")
ENDLESS = (*SIMULATED, "--llm-sweep", "2", "--llm-requests", "100000", "--autostart")
CHARTS = ("ttft", "gap", "tpot", "tokens", "requests", "flight", "errors", "lag", "cpu", "curve-ttft", "curve-tpot")


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A run that goes on, started without anybody at the form."""
    hostile = "<img src=x onerror=alert(1)>"
    web = Web(tmp_path_factory.mktemp("endless"), *ENDLESS, "--llm-framework", hostile, port=free_port())
    web.await_start()
    yield web
    web.end()


def watch(page: Page) -> None:
    page.wait_for_selector("#llm-table-ttft tbody tr")
    page.wait_for_selector("#llm-tokens canvas")


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.querySelector('.llm-card')).backgroundColor"))


def test_the_anchor_is_in_locusts_page(endless: Web, open_url: OpenUrl) -> None:
    # Fails when a new Locust changed its page: then users have the link to /llm only (see the next test).
    page = open_url(f"{endless.root}/?tab=llm")
    watch(page)
    assert page.locator("html").get_attribute("data-llm") == "tab"
    tab = page.get_by_role("tab", name="LLM", exact=True)
    assert tab.get_attribute("aria-selected") == "true"
    assert page.locator("main > #llm-panel").count() == 1
    assert page.locator("#llm-link").count() == 0


def test_without_the_anchor_there_is_a_link(endless: Web, open_url: OpenUrl) -> None:
    def without_extended_tabs(route: Route) -> None:
        answer = route.fetch()
        text = answer.text()
        assert "extendedTabs" in text
        route.fulfill(response=answer, body=text.replace("extendedTabs", "abandonedTabs"))

    page = open_url("about:blank")
    page.route(re.compile(r"/assets/.*\.js$"), lambda route: without_extended_tabs(route) if "/llm/" not in
               route.request.url else route.continue_())  # fmt: skip
    page.goto(f"{endless.root}/")
    page.get_by_role("tab", name="Statistics").wait_for()
    page.get_by_role("link", name="LLM: live view").click()
    assert page.url == f"{endless.root}/llm"
    watch(page)
    page.unroute_all(behavior="ignoreErrors")
    assert page.locator("html").get_attribute("data-llm") is None
    assert page.locator("h1").inner_text() == "LLM load test, live"
    page.get_by_role("link", name="Locust: start and stop").click()
    assert page.url == f"{endless.root}/"


def test_on_the_start_form_there_is_neither(start_web: Callable[..., Web], open_url: OpenUrl) -> None:
    web = start_web()
    page = open_url(f"{web.root}/")
    page.wait_for_selector("form")
    page.wait_for_timeout(4000)
    assert page.locator("#llm-link").count() == 0
    alone = open_url(f"{web.root}/llm")
    expect(alone.locator(".llm-stage")).to_have_text("No test has been started yet.")
    expect(alone.locator(".llm-chip")).to_have_text("Ready")


def test_texts_stay_texts_and_files_are_few(endless: Web, open_url: OpenUrl) -> None:
    page = open_url(f"{endless.root}/llm")
    watch(page)
    assert "<img src=x" in page.locator(".llm-about").inner_text()
    assert page.locator("img").count() == 0
    for name in ("report.js", "page.py", "..%2Fpage.py", "alone.html", ""):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{endless.root}/llm/assets/{name}", timeout=10)
    with urllib.request.urlopen(f"{endless.root}/llm", timeout=10) as response:
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        tag = response.headers["ETag"]
    again = urllib.request.Request(f"{endless.root}/llm", headers={"If-None-Match": tag})
    with pytest.raises(urllib.error.HTTPError, match="304"):
        urllib.request.urlopen(again, timeout=10)


def test_every_figure_is_said_in_words_and_every_table_is_one(endless: Web, open_url: OpenUrl) -> None:
    page = open_url(f"{endless.root}/?tab=llm")
    watch(page)
    page.wait_for_timeout(1500)
    for chart in CHARTS:
        words = page.locator(f"#llm-{chart} .llm-chart-plot").get_attribute("aria-label")
        assert words is not None
        assert len(words) > 30
    panel = "#llm-panel"
    unnamed = page.eval_on_selector_all(
        f"{panel} table", "all => all.filter(t => !t.caption || !t.querySelector('thead th[scope=col]')).length"
    )
    assert unnamed == 0
    controls = page.eval_on_selector_all(f"{panel} select, {panel} input", "all => all.map(one => one.labels.length)")
    assert controls == [1] * 3
    bar = page.get_by_role("progressbar")
    assert bar.get_attribute("aria-valuetext") is not None
    # By keyboard: to a chart, along it, and the focus stays while the chart goes on.
    plot = page.locator("#llm-tokens .llm-chart-plot")
    plot.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    tip = page.locator("#llm-tokens .llm-chart-tip")
    expect(tip).to_contain_text("tokens/s")
    page.wait_for_timeout(2500)
    assert tip.is_visible()
    legend = page.locator("#llm-ttft").get_by_role("button", name="p99")
    legend.focus()
    page.wait_for_timeout(2500)
    assert page.evaluate("document.activeElement.textContent") == "p99"
    page.keyboard.press("Enter")
    assert legend.get_attribute("aria-pressed") == "false"
    assert page.evaluate("document.activeElement.textContent") == "p99"


def test_one_time_axis(endless: Web, open_url: OpenUrl) -> None:
    page = open_url(f"{endless.root}/?tab=llm")
    watch(page)
    page.wait_for_timeout(2000)
    plot = page.locator("#llm-ttft .u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 30, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 25, steps=4)
    page.mouse.up()
    zoomed = "#llm-panel .llm-charts [data-zoomed]"
    page.wait_for_timeout(2500)  # new samples do not end the zoom
    assert page.locator(zoomed).count() == 9
    page.mouse.dblclick(box["x"] + 60, box["y"] + 40)
    assert page.locator(zoomed).count() == 0
    page.get_by_label("latencies logarithmic").check()
    page.get_by_label("Show").select_option("last minute")
    page.reload()
    watch(page)
    assert page.get_by_label("latencies logarithmic").is_checked()
    assert page.get_by_label("Show").input_value() == "60"


def test_the_theme_is_locusts(endless: Web, open_url: OpenUrl) -> None:
    page = open_url(f"{endless.root}/?tab=llm", scheme="light")
    watch(page)
    assert background(page) == "rgb(255, 255, 255)"
    page.locator("header button").last.click()
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert background(page) == "rgb(30, 30, 30)"
    # The page of its own takes over what was chosen, against the system's choice.
    page.goto(f"{endless.root}/llm")
    watch(page)
    assert background(page) == "rgb(30, 30, 30)"
    page.click("#llm-theme")
    assert background(page) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("path", ["/?tab=llm", "/llm"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (768, "dark"), (1280, "light"), (3840, "dark")])
def test_it_fits_its_window(path: str, width: int, scheme: str, endless: Web, open_url: OpenUrl) -> None:
    page = open_url(f"{endless.root}{path}", width=width, scheme=scheme)
    watch(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    dark = page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert dark == (scheme == "dark")


WITH_LOGIN = """
import os
from flask import redirect, request
from flask_login import UserMixin, login_user
from locust import events, task
from llm_users import OpenAIUser


class SweepUser(OpenAIUser):
    @task
    def ask(self):
        self.chat()


class Known(UserMixin):
    def get_id(self):
        return "known"


@events.init.add_listener
def with_login(environment, **_):
    ui = environment.web_ui
    ui.app.secret_key = os.urandom(16)
    ui.login_manager.user_loader(lambda _: Known())
    ui.auth_args = {"username_password_callback": "/load/enter"}

    @ui.app.route("/load/enter", methods=["POST"])
    def enter():
        login_user(Known())
        return redirect("/load/")
"""


def test_below_a_base_path_and_behind_a_login(
    start_web: Callable[..., Web], open_url: OpenUrl, watched: Any, tmp_path: Path
) -> None:
    locustfile = tmp_path / "with_login.py"
    locustfile.write_text(WITH_LOGIN)
    web = start_web(*ENDLESS, "--web-login", locustfile=str(locustfile), base="/load")
    web.await_start()
    for path in ("llm", "llm/assets/tab.js", "llm/assets/live.js", "llm/state.json", "llm/download/rows.csv"):
        with urllib.request.urlopen(f"{web.root}/{path}", timeout=10) as response:
            assert "/load/login" in response.url, f"{path} is open to everybody"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(web.root.removesuffix("/load") + "/llm", timeout=10)
    page = open_url(f"{web.root}/")
    page.fill("input[name=username]", "somebody")
    page.fill("input[name=password]", "anything")
    page.get_by_role("button", name="Login").click()
    page.get_by_role("tab", name="Statistics").wait_for()
    watched.said = [line for line in watched.said if "autocomplete" not in line]  # a remark on Locust's login page
    page.get_by_role("tab", name="LLM", exact=True).click()
    watch(page)
    page.goto(f"{web.root}/llm")
    watch(page)
    # The session ends while somebody watches.
    page.context.clear_cookies()
    expect(page.get_by_role("alert").filter(has_text="You are signed out")).to_be_visible()


def test_workers_are_listed(start_web: Callable[..., Web], open_url: OpenUrl) -> None:
    rpc = str(free_port())
    web = start_web(*SIMULATED, "--processes", "2", "--master-bind-port", rpc, "--master-port", rpc, "--llm-sweep", "4",
                    "--llm-requests", "100000", "--autostart", "--expect-workers", "2")  # fmt: skip
    web.await_start()
    page = open_url(f"{web.root}/?tab=llm")
    watch(page)
    expect(page.locator("#llm-table-workers tbody tr")).to_have_count(2)
    page.wait_for_function(
        "[...document.querySelectorAll('#llm-table-workers tbody tr')].every(r => r.cells[1].textContent.endsWith('%'))"
    )
    flight = page.eval_on_selector_all(
        "#llm-table-workers tbody tr", "rows => rows.map(r => Number(r.cells[3].textContent))"
    )
    assert 0 < sum(flight) <= 4
    names = page.eval_on_selector_all(
        "#llm-table-workers tbody tr", "rows => rows.map(r => r.cells[0].textContent.split(' · ')[0])"
    )
    assert names == ["worker 0", "worker 1"]
    # The chart of their CPU has a line for the busiest one and one for the mean.
    expect(page.locator("#llm-cpu .llm-chart-legend button")).to_have_text(["maximum", "mean"])
    words = re.compile(r"maximum now \d+ %.*; mean now \d+ %")
    expect(page.locator("#llm-cpu .llm-chart-plot")).to_have_attribute("aria-label", words)


def test_secrets_are_not_in_the_page(start_web: Callable[..., Web], open_url: OpenUrl) -> None:
    secret = "sk-tab-3f9c2d7e51a84b60"
    web = start_web(*SIMULATED, "--llm-model", f"model-{secret}", "--llm-sweep", "1", "--llm-requests", "20",
                    "--autostart")  # fmt: skip
    page = open_url(f"{web.root}/llm")
    expect(page.locator(".llm-stage")).to_contain_text("1 stage finished", timeout=30_000)
    assert secret not in page.content()
    with urllib.request.urlopen(f"{web.root}/llm/state.json", timeout=10) as response:
        assert secret.encode() not in response.read()
