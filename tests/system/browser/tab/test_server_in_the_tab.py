"""The server's own metrics in the tab: two charts, a line beside the client's tokens, and the last values as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from llm_users.simulator.launch import launch
from tests.system.browser.tab.conftest import OpenUrl, Web
from tests.system.browser.tab.test_sweep_in_the_tab import ink

# The parts of the page by themselves, with a state of ours instead of the server's.
DRAW = """state => {
    const host = document.createElement("div");
    host.className = "llm llm-live";
    const [server, charts] = [window.LLMParts.server(), window.LLMLiveCharts.overTime()];
    host.append(server.element, charts.element);
    document.body.replaceChildren(host);
    const history = window.LLMHistory.history();
    history.take(state);
    server.show(state, history);
    charts.draw(history.columns, { last_s: 0, log: false, same: false }, [], []);
}"""


def state_of(servers: list[dict[str, Any]], **columns: list[float | None]) -> dict[str, Any]:
    samples = {"t": list(range(30)), "stage": [1] * 30, "tokens_per_s": [900.0] * 30, **columns}
    return {"run": "r", "seq": 30, "reset": True, "samples": samples, "server": servers}


def said(page: Page, chart: str) -> str:
    return page.locator(f"#llm-{chart} .llm-chart-plot").get_attribute("aria-label") or ""


def test_charts_and_text_show_what_the_server_says(start_web: Callable[..., Web], open_url: OpenUrl) -> None:
    page = open_url(f"{start_web().root}/llm")
    page.wait_for_selector(".llm-chip[data-state=ready]")
    metrics = {"requests_running": 8, "requests_waiting": 2, "kv_cache_usage": 0.425, "generation_tokens": 880.0}
    hostile = "<img src=x onerror=alert(1)>"
    servers = [
        {"server": "http://127.0.0.1:8000/metrics", "engine": "vllm", "metrics": metrics},
        {"server": hostile, "engine": hostile, "metrics": {}},
    ]
    page.evaluate(
        DRAW,
        state_of(
            servers,
            server_running=[8.0] * 30,
            server_waiting=[2.0] * 30,
            server_kv_cache=[0.425] * 30,
            server_tokens_per_s=[880.0] * 30,
        ),
    )
    first, second = page.locator("#llm-server-now p").all_inner_texts()
    assert first == (
        "Server (vllm): 8 running · 2 waiting · KV cache 43 % · 880 output tokens/s http://127.0.0.1:8000/metrics"
    )
    assert second == f"Server ({hostile}): no values yet {hostile}"
    assert "running now 8" in said(page, "server")
    assert "waiting now 2" in said(page, "server")
    assert "KV cache now 43 %" in said(page, "server-share")
    assert "GPU now" not in said(page, "server-share")
    assert "by the server now 880" in said(page, "tokens")
    assert all(ink(page, chart) > 3 for chart in ("server", "server-share", "tokens"))


def test_without_metrics_of_a_server_there_is_neither_chart_nor_text(
    start_web: Callable[..., Web], open_url: OpenUrl
) -> None:
    page = open_url(f"{start_web().root}/llm")
    page.wait_for_selector(".llm-chip[data-state=ready]")
    page.evaluate(DRAW, state_of([], server_running=[None] * 30))
    assert page.locator("#llm-tokens").is_visible()
    for part in ("server", "server-share", "server-now"):
        assert not page.locator(f"#llm-{part}").is_visible()


def test_a_sweep_shows_the_server_beside_the_client(
    start_web: Callable[..., Web], open_url: OpenUrl, screenshots: Path
) -> None:
    with launch("ttft=80ms,itl=5ms,capacity=4,metrics=vllm", max_seconds=120) as simulator:
        web = start_web(
            "--host", simulator.url, "--autostart", "--llm-sweep", "2,8", "--llm-stage-time", "10s",
            "--llm-output-tokens", "60,5",
        )  # fmt: skip
        web.await_start()
        page = open_url(f"{web.root}/llm", height=2400)
        page.wait_for_selector("#llm-server-now p")
        page.get_by_text("Stage 2 of 2").first.wait_for()
        page.wait_for_timeout(6000)
        text = page.locator("#llm-server-now p").inner_text()
        assert re.match(
            r"Server \(vllm\): \d+ running · 0 waiting · KV cache \d+ % · [\d,.]+ prompt tokens/s · [\d,.]+ output",
            text,
        )
        assert text.endswith("/metrics")
        state = web.state()
        samples = {name: [value for value in values if value is not None] for name, values in state["samples"].items()}
        # 8 users are at the server, or between two requests. A scrape can be a moment older than the client's sample.
        assert max(samples["server_running"]) == 8
        server_tokens, client_tokens = (sum(samples[name][-5:]) for name in ("server_tokens_per_s", "tokens_per_s"))
        assert server_tokens == pytest.approx(client_tokens, rel=0.2)
        assert max(samples["server_kv_cache"]) == 1
        for chart in ("server", "server-share", "tokens"):
            assert ink(page, chart) > 3
        assert "by the server now" in said(page, "tokens")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.wait_for_timeout(500)
            page.screenshot(path=screenshots / f"server-{scheme}.png", full_page=True)
        page.wait_for_selector(".llm-chip[data-state=finished]")
        page.locator("#llm-server-now").wait_for(state="hidden")
        assert page.locator("#llm-server").is_visible()
