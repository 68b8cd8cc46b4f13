"""What the figures show: thinning that loses no extreme, distributions that count everything, lines that are right."""

from __future__ import annotations

import html
import json
import math
import random
import re
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llm_reports.charts.curve import WORDS_PER_TOKEN, Curve, Point
from llm_reports.charts.downsampling import drawn, evenly, short, thinned
from llm_reports.charts.figures import figures
from llm_reports.content import Content, Questions, content_of
from llm_reports.html.fragment import fragment_of
from llm_reports.html.page import page as report_page
from llm_reports.input.loader import load
from llm_reports.main import main
from llm_reports.metrics.latency_model import latency_model, robust_line
from llm_reports.plots import drawing
from llm_reports.plots.images import drawings, files, ramp
from llm_reports.slo.objectives import parse_objectives
from llm_users.quantile import quantile
from llm_users.record import StageLoad
from tests.unit.reports.rows_on_disk import record, write_rows
from tests.unit.reports.sweep_on_disk import write_sweep


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    folder = tmp_path_factory.mktemp("sweep")
    return content_of([load(write_sweep(folder / "run", levels=(2, 8, 32), requests=400, healths=("strained",)))])


def test_the_page_draws_the_latency_of_an_objective_against_the_load(tmp_path: Path) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(2, 8, 32), requests=80)
    page = report_page(content_of([load(prefix)], questions=Questions(parse_objectives("ttft_p95<0.5"))))
    caption = (
        "The 95th percentile of the time to first token, selected above, against parallel requests. "
        "The line is the objective ttft_p95&lt;0.5."
    )
    assert f'<div id="load-chart" data-label="{caption}">' in page
    assert page.index('id="curve-chart"') < page.index('id="load-chart"') < page.index('id="stages"')
    data = json.loads(page.split('id="llm-data"')[1].partition(">")[2].partition("</script>")[0])
    assert [(limit["metric"], limit["figure"], limit["limit_s"]) for limit in data["limits"]] == [("ttft", "p95", 0.5)]
    assert [point["load"] for point in data["curves"][0]["points"]] == [2, 8, 32]


def test_thinning_keeps_the_extremes_of_every_slice() -> None:
    dice = np.random.default_rng(1)
    x, y = np.sort(dice.uniform(0, 1000, 50_000)), dice.lognormal(0, 1, 50_000)
    kept = thinned(x, y, 4000)
    assert len(kept) <= 4100
    assert np.all(np.diff(kept) > 0)
    assert {int(y.argmax()), int(y.argmin()), 0, len(x) - 1} <= set(kept.tolist())
    borders = np.linspace(0, len(x), 1001).astype(int)
    for start, end in pairwise(borders.tolist()):
        of_slice = y[kept[(kept >= start) & (kept < end)]]
        assert of_slice.max() == y[start:end].max()
        assert of_slice.min() == y[start:end].min()


def test_few_points_are_all_drawn_and_thinning_is_said() -> None:
    assert thinned(np.arange(10.0), np.full(10, math.nan), 50).tolist() == list(range(10))
    assert len(thinned(np.arange(1000.0), np.full(1000, math.nan), 50)) <= 120
    assert evenly(5, 3).tolist() == [0, 2, 4]
    assert drawn(10, 10) == ""
    assert drawn(10, 12_345).startswith("10 of 12,345 requests are drawn")
    assert short([0.123456789, math.nan]) == [0.12346, None]


def test_the_distributions_are_of_all_requests(content: Content) -> None:
    made = figures(content.runs, content.groups, content.points)
    assert [each.key for each in made.distributions] == ["e2e", "ttft", "tpot", "gap"]
    for each in made.distributions[:3]:
        for k, group in enumerate(content.groups):
            values = sorted(group.ok[{"e2e": "end_to_end_latency_s"}.get(each.key, f"{each.key}_s")].dropna())
            assert each.cumulative[k].n == len(values)
            for at, share in zip(each.cumulative[k].x, each.cumulative[k].y, strict=True):
                assert at is not None
                assert share is not None
                # x is rounded to five digits, so to half of the last one
                least, most = (sum(value <= at * (1 + slip) for value in values) for slip in (-6e-5, 6e-5))
                assert least <= round(share * len(values)) <= most
            for histogram in (each.linear, each.log):
                assert sum(filter(None, histogram.shares[k])) == pytest.approx(1, abs=1e-3)
                assert len(histogram.borders) == len(histogram.shares[k]) + 1


def test_every_outcome_is_counted(content: Content) -> None:
    timeline = figures(content.runs, content.groups, content.points).timelines[0]
    rows = content.runs[0].requests
    counts = {outcome.key: outcome.count for outcome in timeline.outcomes}
    assert sum(counts.values()) == timeline.total == len(rows)
    assert counts["throttled"] == (rows["error_code"] == "429").sum()
    assert counts["aborted"] == (rows["error_code"] == "aborted").sum()
    assert counts["unmeasured"] == (rows["measured"] == 0).sum()
    assert [label for _, _, label in timeline.stages] == ["2", "8", "32"]


def test_the_line_is_found_through_outliers() -> None:
    dice = random.Random(7)
    tokens = np.array([float(dice.randint(10, 400)) for _ in range(400)])
    latency = 0.25 + 0.02 * tokens + np.array([dice.gauss(0, 0.01) for _ in range(400)])
    clean = robust_line(np.sort(tokens), latency[np.argsort(tokens)])
    slope, constant = np.polyfit(tokens, latency, 1)
    assert clean.slope == pytest.approx(slope, rel=0.005)
    assert clean.constant == pytest.approx(constant, abs=0.005)
    latency[dice.sample(range(400), 20)] += 30.0
    order = np.argsort(tokens)
    stalled = robust_line(tokens[order], latency[order])
    assert stalled.slope == pytest.approx(0.02, rel=0.02)
    assert stalled.constant == pytest.approx(0.25, abs=0.03)
    assert abs(np.polyfit(tokens, latency, 1)[1] - 0.25) > 0.3  # which plain least squares does not find


def test_lines_that_cannot_be_fitted_say_why() -> None:
    assert "too few" in robust_line(np.arange(3.0), np.arange(3.0)).problem
    assert "same length" in robust_line(np.full(20, 5.0), np.arange(20.0)).problem
    exact = robust_line(np.arange(20.0), 3.0 + 2.0 * np.arange(20.0))
    assert (exact.constant, exact.slope) == (pytest.approx(3), pytest.approx(2))


def test_the_model_takes_latency_apart(content: Content) -> None:
    for group in content.groups:
        model = latency_model(group)
        assert model.n == len(group.ok)
        assert model.tpot_s == pytest.approx(quantile(sorted(group.ok["tpot_s"]), 0.5), rel=0.06)
        assert model.ttft_s == pytest.approx(quantile(sorted(group.ok["ttft_s"]), 0.5), abs=0.15)
        assert model.explained > 0.6


def test_the_best_point_is_the_fastest_within_the_budget() -> None:
    def point(level: int, throughput: float, latency_s: float) -> Point:
        latencies = {"e2e": {"p50": latency_s}}
        return Point("", StageLoad(level), "ok", throughput, False, 1.0, 10.0, throughput, latencies)

    curve = Curve("", (point(1, 10, 1.0), point(2, 20, 1.1), point(4, 30, 2.0), point(8, math.nan, 1.0)))
    best = curve.best("e2e", "p50", 1.5)
    assert best is not None
    assert best.load.users == 2
    assert best.words_per_minute == 10 * 60 * WORDS_PER_TOKEN == 450
    assert curve.best("e2e", "p50", 0.5) is None


def test_the_curve_has_the_stages_own_rates(content: Content) -> None:
    curve = figures(content.runs, content.groups, content.points).curves[0]
    stages = content.runs[0].stages
    for point, throughput in zip(curve.points, stages["output_throughput_token_per_s"], strict=True):
        assert point.throughput_token_per_s == pytest.approx(throughput, rel=1e-6)
        assert not point.estimated
    assert [point.name for point in curve.points] == ["2", "8", "32 (strained, 7 % failed)"]


def test_plots_are_pictures_with_words(content: Content) -> None:
    svg_files = files(content, "svg")
    assert len(svg_files) == 11
    assert {"plot_load_ttft.svg", "plot_load_tpot.svg"} <= set(svg_files)
    assert "P95" in svg_files["plot_load_tpot.svg"]
    for text in svg_files.values():
        root = ET.fromstring(text)
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        assert len(list(root.iter())) > 20
    assert ">32 (strained, 7 % failed)</text>" in svg_files["plot_curve_e2e.svg"]
    assert len({ramp(k, 6) for k in range(6)}) == 6


def test_the_curve_of_a_picture_is_the_curve_of_the_page(content: Content) -> None:
    curve = figures(content.runs, content.groups, content.points).curves[0]
    by_name = {picture.name: picture for picture in drawings(content)}
    for name, key, figure in (("curve_e2e", "e2e", "p50"), ("curve_ttft", "ttft", "p95")):
        axes = by_name[name].axes
        line, hollow = axes.lines
        throughput = [point.throughput_token_per_s for point in curve.points]
        latency = [point.latency_s[key][figure] for point in curve.points]
        assert (list(line.get_xdata()), list(line.get_ydata())) == (latency, throughput)
        assert list(hollow.get_xdata()) == [latency[2]]  # the strained stage is a hollow point
        assert not line.get_clip_on()  # the mark of a point at the end of an axis is complete
        assert [text.get_text() for text in axes.texts] == ["2", "8", "32 (strained, 7 % failed)"]
        assert (axes.get_xlim()[0], axes.get_ylim()[0], axes.get_xscale()) == (0, 0, "linear")
        assert axes.get_ylabel() == "System, output tokens/s"
    assert by_name["curve_e2e"].axes.get_xlabel() == "End-to-end latency, median (s)"
    assert by_name["curve_ttft"].axes.get_xlabel() == "Time to first token, p95 (s)"


def test_the_other_pictures_show_the_data_of_the_page(content: Content) -> None:
    made = figures(content.runs, content.groups, content.points)
    by_name = {picture.name: picture for picture in drawings(content)}
    for distribution in made.distributions:
        axes = by_name[distribution.key].axes
        borders = [border for border in distribution.log.borders if border]
        assert axes.get_xscale() == ("log" if borders[-1] / borders[0] > 20 else "linear")
        for line, cumulative in zip(axes.lines, distribution.cumulative, strict=True):
            assert list(line.get_ydata()) == [0.0, *cumulative.y]
            assert list(line.get_xdata())[1:] == cumulative.x
    (timeline,) = made.timelines
    axes = by_name["timeline"].axes
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == [f"{outcome.name} ({outcome.count:,})" for outcome in timeline.outcomes]
    for line, outcome in zip(axes.lines, timeline.outcomes, strict=True):
        assert list(line.get_xdata()) == outcome.started_s
        assert list(line.get_ydata()) == [latency or 0.0 for latency in outcome.e2e]  # without a latency: at the bottom
    points, fits = by_name["model"].axes.lines[::2], by_name["model"].axes.lines[1::2]
    for line, fit, scatter, model in zip(points, fits, made.outputs, made.models, strict=True):
        assert (list(line.get_xdata()), list(line.get_ydata())) == (scatter.x, scatter.y)
        (x0, x1), (y0, y1) = fit.get_xdata(), fit.get_ydata()
        assert (y1 - y0) / (x1 - x0) == pytest.approx(model.tpot_s)
        assert y0 == pytest.approx(model.ttft_s + model.tpot_s * (x0 - 1))


def test_the_ticks_of_a_logarithmic_axis_are_round_numbers() -> None:
    for high, ticks in ((30.0, ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20"]), (1e6, ["0.1", "1", "10", "100"])):
        with drawing.style():
            picture = drawing.sheet("name", "Title", "x", "y")
            picture.axes.plot([0.1, high], [0, 1])
            drawing.logarithmic_x(picture.axes)
            picture.figure.canvas.draw()
        low, upper = picture.axes.get_xlim()
        labels = [
            label.get_text()
            for label, at in zip(picture.axes.get_xticklabels(), picture.axes.get_xticks(), strict=True)
            if low <= at <= upper
        ]
        assert labels[: len(ticks)] == ticks


def test_without_matplotlib_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1, 4), requests=30)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for kind in ("svg", "png"):
        assert main([str(prefix), "--plots", kind]) == 2
        printed = capsys.readouterr()
        assert "pip install '.[plots]'" in printed.err
        assert "Time to First Token" in printed.out  # the tables are printed all the same
    assert main(["leaderboard", str(prefix), "--out", str(tmp_path / "board")]) == 0
    page = (tmp_path / "board" / "leaderboard.html").read_text()
    for text in (page, fragment_of(prefix)):
        assert "<img" not in text
        assert "pip install '.[plots]'" in html.unescape(text)


def test_plots_as_png(content: Content, tmp_path: Path) -> None:
    name, data = next(iter(files(content, "png").items()))
    (tmp_path / name).write_bytes(data)
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (1920, 1120)
        assert len(picture.convert("RGB").getcolors(100_000)) > 20


def test_a_slope_that_is_not_told_from_0_is_no_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    x = np.sort(rng.normal(550, 150, 200).round())
    line = robust_line(x, 0.2 + 0.05 * rng.standard_normal(200))
    assert "the 95 % interval of the slope contains 0" in line.problem
    assert (math.isnan(line.slope), math.isnan(line.constant)) == (True, True)
    assert line.slope_interval.low < 0 < line.slope_interval.high
    # The page prints the interval, no slope, and draws no line.
    rows = [
        record(i, input_tokens=int(tokens), ttft_s=float(ttft), output_tokens=50)
        for i, (tokens, ttft) in enumerate(zip(x, 0.2 + 0.05 * np.abs(rng.standard_normal(200)), strict=True))
    ]
    write_rows(tmp_path / "run_llm_requests.csv", rows)
    made = content_of([load(tmp_path / "run")])
    page = report_page(made).partition('id="input"')[2].partition("</section>")[0]
    assert "No slope differs significantly from 0" in page
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert cells[1:3] == ["-", "-"]
    assert re.fullmatch(r"-[\d.]+ to [\d.]+", cells[3])


def test_one_long_request_does_not_make_a_slope() -> None:
    x = np.array([100.0] * 30 + [5000.0])
    y = np.array([0.2 + 0.001 * (i % 5) for i in range(30)] + [0.9])
    assert robust_line(x, y).slope_interval.high == math.inf
    assert robust_line(x, y).problem


def test_the_interval_holds_the_slope_of_a_known_line() -> None:
    rng = np.random.default_rng(8)
    x = np.sort(rng.integers(10, 400, 300).astype(float))
    line = robust_line(x, 0.3 + 0.02 * x + 0.0005 * x * rng.standard_normal(300))
    assert line.slope_interval.low < 0.02 < line.slope_interval.high
    assert line.slope_interval.high - line.slope_interval.low < 0.001
