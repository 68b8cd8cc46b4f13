"""The page of an open loop: what it draws of the state that the tab is given, made from rows on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from llm_users.record import REQUEST_COLUMNS, STAGE_COLUMNS, RequestRecord, StageRecord
from llm_users.run_files import REQUESTS_CSV, STAGES_CSV, path_of
from tests.system.browser.tab.conftest import OpenUrl, Web
from tests.system.browser.tab.test_sweep_in_the_tab import KEYS, cells, ink, summary_of
from tests.unit.reports.open_loop_on_disk import write_rates
from tests.unit.web.finished_stages import finished, read

RATES = (5, 10, 20)
TABLES = {"ttft": "ttft_s", "e2e": "end_to_end_latency_s", "corrected-ttft": "corrected_ttft_s",
          "corrected-e2e": "corrected_end_to_end_latency_s"}  # fmt: skip

# The parts of the page by themselves, with a state and some samples of ours instead of the server's.
DRAW = """state => {
    const host = document.createElement("div");
    host.className = "llm llm-live";
    const parts = [window.LLMParts.progress(), window.LLMParts.figures(), window.LLMParts.stages()];
    const [curves, charts] = [window.LLMLiveCharts.curves(), window.LLMLiveCharts.overTime()];
    host.append(...[...parts, curves, charts].map((each) => each.element));
    document.body.replaceChildren(host);
    const history = window.LLMHistory.history();
    history.take(state);
    for (const part of parts) part.show(state, history);
    curves.draw(state.stages, false, state.objectives);
    charts.draw(history.columns, { last_s: 0, log: false, same: false }, state.stages, state.objectives);
}"""


def state_of(prefix: Path) -> dict[str, Any]:
    rows = read(path_of(prefix, REQUESTS_CSV), RequestRecord, REQUEST_COLUMNS)
    stages = finished(rows, read(path_of(prefix, STAGES_CSV), StageRecord, STAGE_COLUMNS))
    seconds = list(range(30))
    samples = {"t": seconds, "stage": [1 + t // 10 for t in seconds], "requests_per_s": [9.0] * 30,
               "in_flight": [4] * 30, "users": [None] * 30, "rate_per_s": [10.0] * 30}  # fmt: skip
    progress = {"stage": 3, "stages": 3, "concurrency": None, "rate_per_s": 20.0, "phase": "MEASURE", "done": 7,
                "of": 200, "left_s": 10.0}  # fmt: skip
    limit = {"text": "corrected_ttft_p95<0.5", "metric": "corrected_ttft", "percentile": 95, "limit": 0.5}
    return json.loads(json.dumps({"run": "r", "seq": 30, "reset": True, "state": "running", "now_s": 30.0,
                                  "samples": samples, "stages": stages, "progress": progress,
                                  "objectives": [limit]}))  # fmt: skip


def spoken(page: Page, chart: str) -> str:
    return page.locator(f"#llm-{chart} .llm-chart-plot").get_attribute("aria-label") or ""


def test_an_open_loop_is_shown_by_its_rate(
    start_web: Callable[..., Web], open_url: OpenUrl, tmp_path: Path, screenshots: Path
) -> None:
    prefix = write_rates(tmp_path / "open")
    page = open_url(f"{start_web().root}/llm")
    page.wait_for_selector(".llm-chip[data-state=ready]")
    page.evaluate(DRAW, state_of(prefix))
    assert page.locator(".llm-stage").inner_text() == "Stage 3 of 3, 20 requests/s · MEASURE: 7 of 200 requests"
    assert "at 10 requests/s" in page.locator(".llm-tiles").inner_text()
    lines = summary_of(prefix, tmp_path / "report")
    for table, metric in TABLES.items():
        expected = [line for line in lines if line["metric"] == metric]
        shown = cells(page, table)
        assert [row[0] for row in shown] == [line["rate_per_s"] for line in expected] == ["5", "10", "20"]
        assert all(len(row) == 1 + len(KEYS) for row in shown), "no column of concurrency"
        for row, line in zip(shown, expected, strict=True):
            assert [float(value) for value in row[1:]] == pytest.approx([float(line[key]) for key in KEYS], rel=1e-8)
    assert "target rate now 10" in spoken(page, "requests")
    assert "users" not in spoken(page, "flight")
    said = spoken(page, "curve-ttft")
    assert said.startswith("Output tokens per second against time to first token from the intended start.")
    assert "5 requests/s: " in said
    assert all(ink(page, chart) > 3 for chart in ("requests", "flight", "curve-ttft", "curve-tpot"))
    page.screenshot(path=screenshots / "live-open-loop.png", full_page=True)


def test_approximate_figures_have_a_mark(start_web: Callable[..., Web], open_url: OpenUrl, tmp_path: Path) -> None:
    page = open_url(f"{start_web().root}/llm")
    page.wait_for_selector(".llm-chip[data-state=ready]")
    state = state_of(write_rates(tmp_path / "open"))
    state["stages"][0]["exact"] = False  # it had too many values
    page.evaluate(DRAW, state)
    texts = page.eval_on_selector_all(
        "#llm-table-ttft tbody tr",
        "rows => rows.map(r => [...r.cells].filter(c => !c.hidden).map(c => c.textContent))",
    )
    assert [text.startswith("≈ ") for text in texts[0][1:]] == [key not in ("mean", "min", "max") for key in KEYS]
    assert not any("≈" in text for row in texts[1:] for text in row)
    overview = page.locator("#llm-table-stages tbody tr")
    expect(overview.nth(0)).to_contain_text("finished, approximate")
    expect(overview.nth(1)).not_to_contain_text("approximate")
