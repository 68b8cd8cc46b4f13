"""The server's own metrics in the tab: two charts, a line beside the client's tokens, and the last values as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    said = {
        chart: page.locator(f"#llm-{chart} .llm-chart-plot").get_attribute("aria-label") or ""
        for chart in ("server", "server-share", "tokens")
    }
    assert "running now 8" in said["server"]
    assert "waiting now 2" in said["server"]
    assert "KV cache now 43 %" in said["server-share"]
    assert "GPU now" not in said["server-share"]
    assert "by the server now 880" in said["tokens"]
    assert all(ink(page, chart) > 3 for chart in said)


def test_without_metrics_of_a_server_there_is_neither_chart_nor_text(
    start_web: Callable[..., Web], open_url: OpenUrl
) -> None:
    page = open_url(f"{start_web().root}/llm")
    page.wait_for_selector(".llm-chip[data-state=ready]")
    page.evaluate(DRAW, state_of([], server_running=[None] * 30))
    assert page.locator("#llm-tokens").is_visible()
    for part in ("server", "server-share", "server-now"):
        assert not page.locator(f"#llm-{part}").is_visible()
