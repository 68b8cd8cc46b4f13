"""report.html as a reader has it: opened from the disk in a real browser, without a network."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from llm_reports.charts.figures import figures
from llm_reports.content import content_of
from llm_reports.input.loader import load
from llm_reports.main import main
from llm_reports.report import report_run
from tests.unit.reports.open_loop_on_disk import write_rates
from tests.unit.reports.sweep_on_disk import write_sweep

OpenPage = Callable[..., Page]
CHARTS = ("curve", "load", "system", "user", "distribution", "timeline", "model", "input")
LEVELS = (1, 2, 4, 8, 16, 32)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    return write_sweep(folder / "run", levels=LEVELS, healths=("strained",))


@pytest.fixture(scope="module")
def report(prefix: Path) -> Path:
    report_run(prefix, formats=("html", "csv"))
    return prefix.with_name("run_report") / "report.html"


def texts(page: Page, selector: str) -> list[list[str]]:
    found: list[list[str]] = page.eval_on_selector_all(
        f"{selector} tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return found


def ink(page: Page, chart: str) -> int:
    """How many different colours a chart's canvas has: 1 when nothing was drawn."""
    return int(
        page.evaluate(
            """id => {
                const canvas = document.querySelector(`#${id} .u-wrap canvas`);
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                return new Set(new Uint32Array(data.buffer)).size;
            }""",
            f"{chart}-chart",
        )
    )


def test_it_opens_without_network_and_draws_every_chart(report: Path, open_page: OpenPage, watched: Any) -> None:
    page = open_page(report)
    assert watched.asked == [report.resolve().as_uri()]
    assert page.locator("html[data-drawn]").count() == 1
    assert {chart: ink(page, chart) > 3 for chart in CHARTS} == dict.fromkeys(CHARTS, True)


def test_its_tables_are_those_of_summary_csv(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    with report.with_name("summary.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert page.eval_on_selector_all("#summary thead th", "cells => cells.map(cell => cell.textContent)") == header
    assert texts(page, "#summary") == rows
    columns = {"median": 3, "mean": 4, "min": 5, "max": 6, "p25": 7, "p75": 8, "p95": 9, "p99": 10}
    metrics = {"llmperf-1": ("ttft_s", 0.0051), "llmperf-2": ("request_output_throughput_token_per_s", 0.0051)}
    for table, (metric, rounding) in metrics.items():
        lines = [dict(zip(header, row, strict=True)) for row in rows if row[header.index("metric")] == metric]
        shown = texts(page, f"#{table}")
        assert [row[2] for row in shown] == [line["concurrency"] for line in lines] == list(map(str, LEVELS))
        for row, line in zip(shown, lines, strict=True):
            assert {name: float(row[at]) for name, at in columns.items()} == {
                name: pytest.approx(float(line[name]), abs=rounding) for name in columns
            }


def test_texts_from_a_server_stay_texts(report: Path, open_page: OpenPage, watched: Any) -> None:
    page = open_page(report)
    assert page.title() == "LLM load test: run"
    assert page.locator("#errors-table").get_by_text("</script><script>").count() > 0
    assert page.locator("img").count() == 0
    # Were a text not escaped after all, the page's own policy would not let it run.
    page.evaluate("document.body.insertAdjacentHTML('afterbegin', '<b id=probe onclick=\"document.title=1\">x</b>')")
    page.click("#probe")
    assert page.title() == "LLM load test: run"
    assert "Content Security Policy" in watched.said.pop()


def test_the_budget_finds_the_best_point(report: Path, prefix: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    page.fill("#curve-budget", "2.5")
    content = content_of([load(prefix)])
    best = figures(content.runs, content.groups, content.points).curves[0].best("e2e", "p50", 2.5)
    assert best is not None
    assert page.locator("#curve-best").inner_text().startswith(f"Best within 2.5 s: {best.name} parallel requests")
    page.fill("#curve-budget", "0.1")
    assert page.locator("#curve-best").inner_text() == "No point is within 0.1 s."


def test_stages_can_be_hidden_and_axes_changed(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    chart = page.locator("#distribution-chart")
    before = chart.locator("canvas").first.screenshot()
    stage = chart.get_by_role("button", name="concurrency 32")
    stage.click()
    stage = chart.get_by_role("button", name="concurrency 32")
    assert stage.get_attribute("aria-pressed") == "false"
    hidden = chart.locator("canvas").first.screenshot()
    assert hidden != before
    for control, value in (("#distribution-view", "histogram"), ("#distribution-latency", "tpot")):
        page.select_option(control, value)
        after = chart.locator("canvas").first.screenshot()
        assert after != hidden
        hidden = after
    page.set_checked("#distribution-log", not page.is_checked("#distribution-log"))
    assert chart.locator("canvas").first.screenshot() != hidden


def test_pointer_and_keys_reach_the_points(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    plot = page.locator("#curve-chart .llm-chart-plot")
    plot.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    tip = page.locator("#curve-chart .llm-chart-tip")
    assert "8 parallel requests" in tip.inner_text()
    assert page.locator("#curve-chart [aria-live]").text_content() == tip.text_content()
    ring = page.locator("#curve-chart .llm-chart-ring").bounding_box()
    assert ring is not None
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.mouse.move(ring["x"] + 8, ring["y"] + 8)
    assert "8 parallel requests" in tip.inner_text()


def test_a_drag_zooms_and_a_double_click_goes_back(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    chart = page.locator("#timeline-chart")
    box = chart.locator(".u-over").bounding_box()
    assert box is not None
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 160, steps=4)
    page.mouse.up()
    assert chart.get_attribute("data-zoomed") is not None
    page.mouse.dblclick(box["x"] + 300, box["y"] + 100)
    assert chart.get_attribute("data-zoomed") is None


def test_every_figure_is_said_in_words_and_every_table_is_one(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    for chart in CHARTS:
        words = page.locator(f"#{chart}-chart .llm-chart-plot").get_attribute("aria-label")
        assert words is not None
        assert len(words) > 30
    unnamed = page.eval_on_selector_all(
        "table", "all => all.filter(t => !t.caption || !t.querySelector('thead th[scope=col]')).length"
    )
    assert unnamed == 0
    assert page.eval_on_selector_all("select, input", "all => all.filter(one => !one.labels.length).length") == 0
    assert page.locator("h1").count() == 1


def test_without_a_script_all_tables_are_there(report: Path, open_page: OpenPage) -> None:
    page = open_page(report, java_script_enabled=False)
    assert page.locator("#unscripted").is_visible()
    assert page.locator("#llmperf-1 tbody tr").count() == len(LEVELS)


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("light", 1280, "light"), ("dark", 1280, "dark"), ("narrow", 390, "light")]
)
def test_it_fits_its_window(
    name: str, width: int, scheme: str, report: Path, open_page: OpenPage, screenshots: Path
) -> None:
    page = open_page(report, width=width, scheme=scheme)
    page.fill("#curve-budget", "2.5")
    page.mouse.move(0, 0)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=screenshots / f"report-{name}.png", full_page=True)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert dark == (scheme == "dark")
    page.click("#theme")
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)") != dark
    assert all(ink(page, chart) > 3 for chart in CHARTS)


def test_the_summary_needs_no_scrolling_at_1200_pixels(tmp_path: Path, open_page: OpenPage) -> None:
    prefix = write_sweep(tmp_path / "run", levels=LEVELS, requests=40, healths=("disturbed",) * 3)
    report_run(prefix, formats=("html",))
    page = open_page(tmp_path / "run_report" / "report.html", width=1200)
    sizes = page.eval_on_selector("#summary-table", "t => [t.parentElement.scrollWidth, t.parentElement.clientWidth]")
    assert sizes[0] <= sizes[1]


def test_the_curve_opens_on_the_objective(prefix: Path, tmp_path: Path, open_page: OpenPage, screenshots: Path) -> None:
    out = tmp_path / "out"
    assert main([str(prefix), "--format", "html", "--out", str(out), "--slo", "e2e_p95<3.5,ttft_p90<0.3"]) == 3
    page = open_page(out / "report.html", width=1100)
    assert page.input_value("#curve-latency") == "e2e"
    assert page.input_value("#curve-figure") == "p95"
    chart = page.locator("#curve-chart canvas").first
    with_line = chart.screenshot()
    page.locator("#curve").screenshot(path=screenshots / "report-curve.png")  # docs/images/report.png
    page.evaluate("document.getElementById('curve-figure').value = 'p99'")
    page.dispatch_event("#curve-figure", "input")
    assert chart.screenshot() != with_line
    page.select_option("#curve-latency", "ttft")
    page.select_option("#curve-figure", "p90")
    assert "(e2e_p95<3.5, ttft_p90<0.3)" in page.locator("#curve figcaption").first.inner_text()
    assert ink(page, "curve") > 3


JUDGED = ["--slo", "e2e_p95<3.5,ttft_p90<0.3,errors<0.05"]
IN_VIEW = """selector => [...document.querySelectorAll(selector)].every((one) => {
    const box = one.getBoundingClientRect();
    return box.width > 0 && box.left >= 0 && box.right <= document.documentElement.clientWidth;
})"""


def test_the_answer_is_seen_at_400_pixels_and_on_paper(prefix: Path, tmp_path: Path, open_page: OpenPage) -> None:
    main([str(prefix), "--format", "html", "--out", str(tmp_path), *JUDGED])
    page = open_page(tmp_path / "report.html", width=400)
    assert page.locator("#answer .card .word").inner_text().split()[:2] == ["✗", "Failed"]  # at 32 users
    assert page.locator("#decisions .verdict").count() > len(LEVELS)
    for selector in ("#answer .card", "#decisions .verdict", "#summary-table .word"):
        assert page.evaluate(IN_VIEW, selector), selector
    page.set_viewport_size({"width": 718, "height": 1000})
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    for selector in ("#answer .card", "#decisions .verdict", "#summary-table td", ".uplot", ".u-wrap canvas"):
        assert page.evaluate(IN_VIEW, selector), selector
    # Notes are open on paper, and as they were afterwards.
    assert page.evaluate("[...document.querySelectorAll('details.on-paper')].every((one) => one.open)")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.evaluate("[...document.querySelectorAll('details.on-paper')].some((one) => one.open)")


def test_the_caption_of_the_curve_says_what_it_shows(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    caption = page.locator("#curve-words")
    first = caption.inner_text()
    assert first.startswith("Output tokens/s of the whole system against the median of the end-to-end latency.")
    page.select_option("#curve-figure", "p99")
    page.select_option("#curve-latency", "ttft")
    assert caption.inner_text().startswith(
        "Output tokens/s of the whole system against the 99th percentile of the time to first token."
    )
    assert page.locator("#curve-chart .llm-chart-plot").get_attribute("aria-label") == caption.text_content()
    page.select_option("#curve-figure", "p50")
    page.select_option("#curve-latency", "e2e")
    assert caption.inner_text() == first  # the script says it in the words of the page


def test_six_runs_are_told_apart(tmp_path: Path, open_page: OpenPage, screenshots: Path) -> None:
    runs = [str(write_sweep(tmp_path / f"run{i}", levels=(1, 4, 16), requests=40, seed=i)) for i in range(6)]
    assert main([*runs, "--format", "html", "--out", str(tmp_path / "out")]) == 0
    page = open_page(tmp_path / "out" / "report.html")
    swatches = page.eval_on_selector_all(
        "#curve-chart .llm-chart-legend canvas", "all => new Set(all.map((one) => one.toDataURL())).size"
    )
    assert swatches == 6
    legend, plot = (
        page.locator(f"#distribution-chart .{name}").bounding_box() for name in ("llm-chart-legend", "u-wrap")
    )
    assert legend is not None
    assert plot is not None
    assert legend["y"] >= plot["y"] + plot["height"]
    shown = page.locator("#distribution-chart .llm-chart-legend [aria-pressed=true]")
    assert shown.count() == 6  # of eighteen stages, the highest load of each run
    assert page.locator("#tables details.on-paper").count() > 0
    page.screenshot(path=screenshots / "report-six-runs.png", full_page=True)


def test_a_comparison_overlays_its_runs(prefix: Path, tmp_path: Path, open_page: OpenPage, screenshots: Path) -> None:
    other = write_sweep(tmp_path / "after", levels=LEVELS, seed=8)
    assert main(["compare", str(prefix), str(other), "--out", str(tmp_path)]) == 0
    page = open_page(tmp_path / "comparison.html")
    assert page.locator("html[data-drawn]").count() == 1
    for name in ("run", "after"):
        assert page.locator("#curve-chart").get_by_role("button", name=name, exact=True).count() == 1
    assert all(ink(page, chart) > 3 for chart in ("curve", "system", "user", "distribution", "timeline"))
    assert page.locator("#comparison tbody tr").count() == 9 * len(LEVELS)
    page.screenshot(path=screenshots / "comparison.png", full_page=True)


def test_a_leaderboard_shows_its_bars(prefix: Path, tmp_path: Path, open_page: OpenPage, screenshots: Path) -> None:
    assert main(["leaderboard", str(prefix), "--out", str(tmp_path)]) == 0
    page = open_page(tmp_path / "leaderboard.html")
    sizes = page.eval_on_selector_all("img", "all => all.map(one => [one.complete, one.naturalWidth, one.alt.length])")
    assert len(sizes) == 2
    assert all(complete and width > 900 and words > 50 for complete, width, words in sizes)
    page.screenshot(path=screenshots / "leaderboard.png", full_page=True)


def test_it_prints(report: Path, open_page: OpenPage, screenshots: Path) -> None:
    page = open_page(report, scheme="dark")
    printed = page.pdf(path=screenshots / "report.pdf", format="A4", print_background=True)
    assert printed.startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    widths = page.eval_on_selector_all(".uplot", "all => all.map(one => one.clientWidth)")
    assert max(widths) <= 690


def test_a_hundred_thousand_rows_do_not_lag(tmp_path: Path, open_page: OpenPage) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(4, 8, 16, 32), requests=25_000)
    report_run(prefix, formats=("html",))
    path = tmp_path / "run_report" / "report.html"
    assert path.stat().st_size < 6_000_000
    started = time.perf_counter()
    page = open_page(path)
    page.wait_for_selector("html[data-drawn]", state="attached")
    opened_s = time.perf_counter() - started
    slowest_ms = page.evaluate(
        """async () => {
            // uPlot paints in a microtask after the event: the next task begins when it is done.
            const painted = () => new Promise((resolve) => setTimeout(resolve, 0));
            const times = [];
            for (let i = 0; i < 6; i++) {
                const started = performance.now();
                const box = document.getElementById("timeline-log");
                box.checked = !box.checked;
                box.dispatchEvent(new Event("input"));
                await painted();
                times.push(performance.now() - started);
            }
            return Math.max(...times);
        }"""
    )
    moves_ms = page.evaluate(
        """async () => {
            const painted = () => new Promise((resolve) => setTimeout(resolve, 0));
            const over = document.querySelector("#timeline-chart .u-over");
            const box = over.getBoundingClientRect();
            const started = performance.now();
            for (let i = 0; i < 100; i++) {
                over.dispatchEvent(new MouseEvent("mousemove", { clientX: box.x + 5 * i, clientY: box.y + 2 * i }));
                await painted();
            }
            return (performance.now() - started) / 100;
        }"""
    )
    print(f"opened in {opened_s:.2f} s, redrawn in {slowest_ms:.0f} ms, pointer moved in {moves_ms:.2f} ms")
    assert "requests are drawn" in page.locator("#timeline figcaption").inner_text()
    assert opened_s < 5
    assert slowest_ms < 400
    assert moves_ms < 16


def test_an_open_loop_is_drawn_by_its_rate(open_page: OpenPage, tmp_path: Path, screenshots: Path) -> None:
    report = report_run(write_rates(tmp_path / "open"), formats=("html",)).files[0]
    page = open_page(report)
    assert {chart: ink(page, chart) > 3 for chart in CHARTS} == dict.fromkeys(CHARTS, True)
    for table in ("llmperf-1", "llmperf-2", "open-loop-1", "open-loop-2", "open-loop-3"):
        assert [row[2] for row in texts(page, f"#{table}")] == ["5", "10", "20"]
    assert page.locator("#curve-latency").input_value() == "corrected_e2e"
    page.fill("#curve-budget", "0.6")
    assert page.locator("#curve-best").inner_text().startswith("Best within 0.6 s: 10 requests/s, ")
    timeline = page.locator("#timeline-chart")
    timeline.locator(".llm-chart-plot").focus()
    page.keyboard.press("ArrowRight")
    assert "5 requests/s" in page.locator(".llm-chart-tip:visible").inner_text()
    page.screenshot(path=screenshots / "report-open-loop.png", full_page=True)
