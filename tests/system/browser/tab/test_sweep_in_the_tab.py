"""A person's way through a test: the form, the tab, values that move, reload, stop, another start, downloads."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from llm_users.simulator.launch import Simulator
from tests.ports import free_port
from tests.system.browser.tab.conftest import OpenUrl, Web

KEYS = ("median", "mean", "min", "max", "p25", "p75", "p95", "p99")
TABLES = {"ttft": "ttft_s", "throughput": "request_output_throughput_token_per_s", "tpot": "tpot_s",
          "e2e": "end_to_end_latency_s"}  # fmt: skip
CHARTS = ("ttft", "gap", "tpot", "tokens", "requests", "flight", "errors", "lag", "cpu", "curve-ttft", "curve-tpot")


def start_from_form(page: Page, **options: str) -> None:
    """Fill Locust's form; options by the names of its inputs."""
    page.wait_for_selector("[data-llm-form]")
    for name, value in options.items():
        page.fill(f"form input[name={name}]", value)
    page.get_by_role("button", name="Start", exact=True).click()


def open_tab(page: Page) -> None:
    page.get_by_role("tab", name="LLM", exact=True).click()
    page.wait_for_selector("#llm-panel .llm-chip[data-state]")


def cells(page: Page, table: str) -> list[list[str]]:
    found: list[list[str]] = page.eval_on_selector_all(
        f"#llm-table-{table} tbody tr",
        "rows => rows.map(r => [...r.cells].filter(c => !c.hidden).map(c => c.dataset.value ?? c.textContent))",
    )
    return found


def samples(page: Page) -> int:
    """How many samples the history has, as the chart of tokens tells in its text."""
    words = page.locator("#llm-tokens .llm-chart-plot").get_attribute("aria-label") or ""
    found = re.search(r"over ([\d:.]+)", words)
    if not found:
        return 0
    parts = [float(part) for part in found[1].split(":")]
    return int(sum(part * 60**k for k, part in enumerate(reversed(parts))))


def ink(page: Page, chart: str) -> int:
    """How many different colours a chart's canvas has: 1 when nothing was drawn."""
    return int(
        page.evaluate(
            """id => {
                const canvas = document.querySelector(`#llm-${id} .u-wrap canvas`);
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                return new Set(new Uint32Array(data.buffer)).size;
            }""",
            chart,
        )
    )


def summary_of(prefix: Path, out: Path) -> list[dict[str, str]]:
    """What llm-report says of the run's files."""
    subprocess.run(
        [sys.executable, "-c", "from llm_reports.main import main; raise SystemExit(main())", str(prefix), "--out",
         str(out), "--format", "csv"], check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    with (out / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_from_the_form_to_the_report(
    processes: int,
    start_web: Callable[..., Web],
    simulator: Simulator,
    open_url: OpenUrl,
    tmp_path: Path,
    screenshots: Path,
) -> None:
    rpc = str(free_port())
    workers = ("--processes", "2", "--master-bind-port", rpc, "--master-port", rpc) if processes == 2 else ()
    web = start_web(*workers)
    web.await_workers(len(workers) and 2)
    page = open_url(f"{web.root}/")
    start_from_form(page, host=simulator.url, llmSweep="1,2,8", llmRequests="40", llmSlo="ttft_p95<0.3")
    page.wait_for_selector("#llm-panel .llm-chip[data-state]")  # the start leads to the tab
    assert "tab=llm" in page.url

    # Values move while the test runs, the running stage among them.
    expect(page.locator(".llm-chip")).to_have_text("Running")
    expect(page.locator(".llm-stage")).to_contain_text(
        re.compile(r"Stage 2 of 3, 2 parallel requests · MEASURE"), timeout=30_000
    )
    page.wait_for_function("document.querySelector('#llm-table-stages tbody tr:nth-child(2).llm-running') !== null")
    curve = page.locator("#llm-curve-ttft .llm-chart-plot")
    expect(curve).to_have_attribute("aria-label", re.compile(r"2 parallel requests \(running\)|2 parallel \(running\)"))
    expect(page.locator("#llm-panel")).to_contain_text(re.compile(r"about .+ left in this stage"))
    before = samples(page)
    page.wait_for_timeout(2500)
    assert before + 2 <= samples(page) <= before + 5
    assert float(page.locator(".llm-tiles dd").nth(4).inner_text()) > 0  # tokens/s
    page.screenshot(path=screenshots / "live-running.png")

    # Reloading in the middle loses nothing.
    known = samples(page)
    page.reload()
    page.wait_for_selector("#llm-tokens canvas")
    assert samples(page) >= known

    # The finished stages are what llm-report makes of the rows: every digit.
    expect(page.locator(".llm-stage")).to_contain_text("3 stages finished", timeout=60_000)
    page.wait_for_function("document.querySelectorAll('#llm-table-stages tbody tr:not(.llm-running)').length === 3")
    lines = summary_of(web.prefix, tmp_path / "report")
    for table, metric in TABLES.items():
        expected = [line for line in lines if line["metric"] == metric]
        shown = cells(page, table)
        assert [row[0] for row in shown] == [line["concurrency"] for line in expected] == ["1", "2", "8"]
        for row, line in zip(shown, expected, strict=True):
            assert [float(value) for value in row[1:]] == pytest.approx([float(line[key]) for key in KEYS], rel=1e-8)
    overview = cells(page, "stages")
    assert [row[2:5] for row in overview] == [["40", "40", "0"]] * 3
    assert all(ink(page, chart) > 3 for chart in CHARTS)
    assert "8 parallel" in (page.locator("#llm-curve-ttft .llm-chart-plot").get_attribute("aria-label") or "")
    expect(page.get_by_text("Objectives: ttft_p95<0.3.")).to_be_visible()

    # What can be taken away, here and in Locust's own list.
    with page.expect_download() as rows:
        page.get_by_role("link", name="Rows so far (CSV)").click()
    taken = Path(rows.value.path()).read_text()
    assert taken == Path(f"{web.prefix}_llm_requests.csv").read_text()
    page.get_by_role("tab", name="Download Data").click()
    expect(page.get_by_role("link", name="Download LLM requests CSV")).to_be_visible()
    assert page.locator("#llm-panel").is_hidden()
    if processes == 2:
        return
    for name, width, height, scheme in (
        ("light", 1440, 900, "light"), ("dark", 1440, 900, "dark"), ("narrow", 390, 844, "light"),
        ("narrow-dark", 390, 844, "dark"), ("4k", 3840, 2160, "light"),
    ):  # fmt: skip
        window = open_url(f"{web.root}/?tab=llm", width=width, height=height, scheme=scheme)
        window.wait_for_selector("#llm-tokens canvas")
        window.screenshot(path=screenshots / f"live-{name}.png", full_page=True)
        window.close()


def test_stop_and_start_again(start_web: Callable[..., Web], simulator: Simulator, open_url: OpenUrl) -> None:
    web = start_web("--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "100000", "--autostart")
    web.await_start()
    page = open_url(f"{web.root}/?tab=llm")
    page.wait_for_selector("#llm-table-ttft tbody tr")
    other = open_url(f"{web.root}/llm")  # somebody else watches
    other.wait_for_selector("#llm-table-ttft tbody tr")
    first = page.locator(".llm-live").get_attribute("data-run")
    assert first == other.locator(".llm-live").get_attribute("data-run") == web.state()["run"]
    page.get_by_role("button", name="Stop").click()
    for each in (page, other):
        expect(each.locator(".llm-chip")).to_have_text("Stopped", timeout=30_000)
        expect(each.locator("#llm-table-stages tbody tr")).to_have_count(1)
    page.get_by_role("button", name="New").click()
    start_from_form(page, llmSweep="1,4", llmRequests="10")
    for each in (page, other):
        each.wait_for_function("old => !['', old].includes(document.querySelector('.llm-live').dataset.run)", arg=first)
        expect(each.locator(".llm-stage")).to_contain_text("2 stages finished", timeout=30_000)
        assert [row[0] for row in cells(each, "stages")] == ["1", "4"]


def test_only_a_visible_tab_asks(start_web: Callable[..., Web], open_url: OpenUrl, watched: Any) -> None:
    web = start_web("--llm-simulator", "ttft=20ms,itl=2ms", "--llm-sweep", "1", "--llm-requests", "100000",
                    "--autostart")  # fmt: skip
    web.await_start()
    page = open_url(f"{web.root}/")
    page.get_by_role("tab", name="Statistics").wait_for()
    page.wait_for_timeout(2500)
    assert not [url for url in watched.asked if "state.json" in url]
    open_tab(page)
    page.wait_for_timeout(4000)
    asked = [url for url in watched.asked if "state.json" in url]
    assert 3 <= len(asked) <= 6
    assert all("since=" in url for url in asked[1:])
    page.get_by_role("tab", name="Charts").click()
    page.wait_for_timeout(1500)
    count = len([url for url in watched.asked if "state.json" in url])
    page.wait_for_timeout(2500)
    assert len([url for url in watched.asked if "state.json" in url]) == count
    # Locust's reset empties the charts, not the tables.
    open_tab(page)
    page.wait_for_selector("#llm-table-ttft tbody tr")
    known = samples(page)
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function(
        "most => { const said = document.querySelector('#llm-tokens .llm-chart-plot').getAttribute('aria-label');"
        " const found = said.match(/over ([\\d.]+) s/); return !found || Number(found[1]) < most - 2; }",
        arg=known,
    )
    assert len(cells(page, "ttft")) == 1
