"""A page that stays open: it does not grow, and it survives the server's absence."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.ports import free_port
from tests.system.browser.tab.conftest import OpenUrl, Web

ENDLESS = ("--llm-simulator", "ttft=60ms,itl=4ms", "--llm-sweep", "2", "--llm-requests", "100000", "--autostart")

# A day of samples, one at a time as a page gets them, through the history and the charts that the page has.
A_DAY = """hours => {
    const host = document.createElement("div");
    host.className = "llm llm-live";
    const history = window.LLMHistory.history();
    const charts = window.LLMLiveCharts.overTime();
    host.append(charts.element);
    document.body.append(host);
    const names = ["ttft_p50", "ttft_p95", "ttft_p99", "gap_p50", "gap_p95", "gap_p99", "tpot_p50", "tpot_p95",
        "tpot_p99", "tokens_per_s", "requests_per_s", "in_flight", "users", "errors_per_s", "throttled_per_s",
        "lag_p99", "cpu_max", "cpu_mean"];
    let seq = 0;
    let most = 0;
    window.anHour = () => {
        for (let i = 0; i < 3600; i++) {
            const samples = { t: [seq], stage: [1 + Math.floor(seq / 20000)] };
            for (const name of names) samples[name] = [1 + Math.random()];
            history.take({ run: "day", seq: seq++, reset: false, samples });
            most = Math.max(most, history.length);
            if (i % 120 === 0) charts.draw(history.columns, { last_s: 0, log: false, same: true }, [], []);
        }
        const { columns } = history;
        const t = columns.t;
        return {
            most,
            lengths: [...new Set(Object.values(columns).map((column) => column.length))],
            rising: t.every((at, i) => i === 0 || at > t[i - 1]),
            first: t[0],
            fine: t.at(-1) - t.at(-800),
            nodes: host.querySelectorAll("*").length,
        };
    };
}"""


def heap_bytes(page: Page) -> float:
    """What the page's scripts hold, after the garbage is gone."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.enable")
    session.send("HeapProfiler.collectGarbage")
    used = float(session.send("Runtime.getHeapUsage")["usedSize"])
    session.detach()
    return used


def test_a_day_does_not_make_it_grow(start_web: Callable[..., Web], open_url: OpenUrl) -> None:
    web = start_web()
    page = open_url(f"{web.root}/llm")
    page.wait_for_selector(".llm-chip[data-state=ready]")
    page.evaluate(A_DAY)
    seen = []
    for hour in range(24):
        seen.append(page.evaluate("window.anHour()"))
        if hour == 3:
            early = heap_bytes(page)
    late = heap_bytes(page)
    last = seen[-1]
    assert last["most"] <= 1801
    assert len(last["lengths"]) == 1
    assert 900 <= last["lengths"][0] <= 1800
    assert last["rising"]
    assert last["first"] == 0  # the beginning of the run is still there
    assert last["fine"] < 2 * 3600  # and the recent past is finer than the rest
    assert last["nodes"] == seen[3]["nodes"]
    print(f"heap after 4 h {early / 1e6:.2f} MB, after 24 h {late / 1e6:.2f} MB")
    assert late < early + 500_000


def test_a_page_that_polls_does_not_grow(start_web: Callable[..., Web], open_url: OpenUrl) -> None:
    web = start_web(*ENDLESS)
    page = open_url(f"{web.root}/llm")
    page.wait_for_selector("#llm-table-ttft tbody tr")
    page.wait_for_timeout(3000)
    count = "document.querySelectorAll('*').length"
    nodes = page.evaluate(count)
    page.wait_for_timeout(12_000)  # what runs often is compiled, which takes room once
    heap = heap_bytes(page)
    page.wait_for_timeout(12_000)
    assert abs(page.evaluate(count) - nodes) < 20  # banners may come and go
    assert heap_bytes(page) < heap + 300_000


def test_the_server_goes_and_comes(start_web: Callable[..., Web], open_url: OpenUrl, watched: object) -> None:
    port = free_port()
    web = start_web(*ENDLESS, port=port)
    page = open_url(f"{web.root}/llm")
    page.wait_for_selector("#llm-table-ttft tbody tr")
    first = page.locator(".llm-live").get_attribute("data-run")
    os.killpg(web.process.pid, signal.SIGSTOP)  # it hangs: nothing is refused, nothing is answered
    page.wait_for_timeout(1000)
    os.killpg(web.process.pid, signal.SIGCONT)
    alert = page.get_by_role("alert").filter(has_text="Locust does not answer")
    web.end()
    expect(alert).to_be_visible()
    assert page.locator("#llm-table-ttft tbody tr").count() == 1  # what was known stays
    again = start_web(*ENDLESS, port=port)
    expect(alert).to_be_hidden(timeout=40_000)
    page.wait_for_function(
        "old => !['', old].includes(document.querySelector('.llm-live').dataset.run)", arg=first, timeout=30_000
    )
    assert again.state()["run"] == page.locator(".llm-live").get_attribute("data-run")
    page.close()
    said = watched.said  # type: ignore[attr-defined]
    assert all("net::ERR_" in line for line in said), said
    said.clear()
