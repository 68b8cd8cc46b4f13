"""What the tab shows when a run is over: its state, the figures of the whole run, the result of a load search."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from llm_users.quantile import quantile
from tests.system.browser.tab.conftest import OpenUrl, Web
from tests.system.browser.tab.test_sweep_in_the_tab import cells

SIMULATED = ("--llm-simulator", "ttft=60ms,itl=4ms,jitter=0.3,capacity=4")


def measured_ttfts(web: Web) -> list[float]:
    with Path(f"{web.prefix}_llm_requests.csv").open(newline="") as file:
        return sorted(float(row["ttft_s"]) for row in csv.DictReader(file) if row["measured"] == "1" and row["ttft_s"])


def test_a_finished_run_shows_its_own_figures_not_those_of_the_last_seconds(
    start_web: Callable[..., Web], open_url: OpenUrl
) -> None:
    web = start_web(*SIMULATED, "--llm-sweep", "1,16", "--llm-requests", "40", "--autostart")
    web.await_start()
    page = open_url(f"{web.root}/?tab=llm")
    expect(page.locator(".llm-range")).to_have_text(re.compile(r"^Now: latencies of the last 10 s"))
    expect(page.locator(".llm-chip")).to_have_text("Finished", timeout=40_000)
    expect(page.locator(".llm-range")).to_have_text("Whole run: all measured requests of the 2 stages together.")
    tiles = page.locator(".llm-tiles > div")
    assert tiles.locator("dt").all_inner_texts()[4:] == ["Requests", "Failed"]
    assert tiles.nth(4).locator("dd").all_inner_texts() == ["80", "80 OK"]
    totals = web.state()["totals"]
    times = measured_ttfts(web)
    assert totals["ttft"]["median"] == pytest.approx(quantile(times, 0.5), rel=0.003)
    assert totals["ttft"]["p95"] == pytest.approx(quantile(times, 0.95), rel=0.003)
    page.wait_for_timeout(12_000)  # longer than the window of the live figures
    assert web.state()["totals"] == totals
    present = page.locator("#llm-panel .llm-now").all_inner_texts()
    assert len(present) >= 11
    assert set(present) == {""}


def test_a_load_search_has_its_result_and_its_loads_in_order(
    start_web: Callable[..., Web], open_url: OpenUrl, screenshots: Path
) -> None:
    web = start_web(*SIMULATED, "--llm-find", "tpot_p95<0.012", "--llm-sweep", "1,32", "--llm-requests", "15",
                    "--llm-stage-time", "1s", "--llm-find-stages", "6", "--autostart")  # fmt: skip
    web.await_start()
    page = open_url(f"{web.root}/?tab=llm", width=375)
    search = page.get_by_role("region", name="Load search")
    expect(search).to_contain_text("So far: ", timeout=40_000)
    expect(page.locator(".llm-chip")).to_have_text("Finished", timeout=60_000)
    expect(search.locator(".llm-conclusion")).to_have_text(
        re.compile(r"^(The highest load that meets|No load is confirmed to meet) tpot_p95<0.012: ")
    )
    rows = cells(page, "search")
    loads = [float(row[0]) for row in rows]
    assert loads == sorted(loads)
    assert len(loads) >= 3
    assert {row[1].split()[-1] for row in rows} == {"passed", "failed"}
    # The curve has the loads in order too, not in the order in which the search tried them.
    words = page.locator("#llm-curve-ttft .llm-chart-plot").get_attribute("aria-label") or ""
    drawn = [int(load) for load in re.findall(r"(\d+) parallel requests?:", words)]
    tried = [int(row["concurrency"]) for row in web.state()["stages"]]
    assert drawn == sorted(tried) != tried
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.screenshot(path=screenshots / "live-search.png", full_page=True)
