"""The files of a comparison and of a leaderboard: curves overlaid, bars per endpoint, texts that refer to them."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from llm_reports.compare.leaderboard import leaderboard
from llm_reports.input.loader import load_all
from llm_reports.main import main
from llm_reports.plots.images import bar_chart
from tests.unit.reports.sweep_on_disk import HOSTILE, write_sweep


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        str(write_sweep(folder / name, levels=(1, 4, 16), requests=60, seed=seed, model=model))
        for name, seed, model in (("before", 5, "llama"), ("after", 6, "llama"), ("other", 7, HOSTILE))
    ]


def test_the_curves_of_all_runs_are_overlaid(runs: list[str], tmp_path: Path) -> None:
    assert main(["compare", *runs[:2], "--out", str(tmp_path), "--plots", "svg"]) == 0
    page = (tmp_path / "comparison.html").read_text()
    found = re.search(r'id="llm-data">(.*?)</script>', page, re.DOTALL)
    assert found
    curves = json.loads(found[1])["curves"]
    assert [curve["name"] for curve in curves] == ["before", "after"]
    assert [[point["load"] for point in curve["points"]] for curve in curves] == [[1, 4, 16]] * 2
    picture = ET.fromstring((tmp_path / "plot_curve_e2e.svg").read_text())
    words = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"before", "after"} <= set(words)
    assert words.count("16") == 2
    text = (tmp_path / "comparison.md").read_text()
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (tmp_path / name).is_file()
    assert "](plot_curve_e2e.svg)" in text
    assert "differs significantly" in text
    assert "differs significantly" in page


def test_without_images_the_text_refers_to_the_page(runs: list[str], tmp_path: Path) -> None:
    assert main(["compare", *runs, "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.html", "comparison.md"]
    assert "](comparison.html)" in (tmp_path / "comparison.md").read_text()
    assert HOSTILE not in (tmp_path / "comparison.html").read_text()


def test_a_bar_for_each_endpoint(runs: list[str], tmp_path: Path) -> None:
    assert main(["leaderboard", *runs, "--concurrency", "4", "--out", str(tmp_path), "--plots", "svg"]) == 0
    text, page = (tmp_path / "leaderboard.md").read_text(), (tmp_path / "leaderboard.html").read_text()
    charts = {table.metric: bar_chart(table) for table in leaderboard(load_all(runs), concurrency=4)}
    tables = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    for table, metric in zip(tables, ("ttft_s", "request_output_throughput_token_per_s"), strict=True):
        header = [cell.strip() for cell in next(line for line in table.splitlines() if "| Median" in line).split("|")]
        place = header.index("Median")
        medians = [float(line.split("|")[place]) for line in table.splitlines() if line.startswith("| vllm")]
        assert len(medians) == 3
        assert ET.fromstring((tmp_path / f"plot_{metric}.svg").read_text()).tag.endswith("svg")
        axes = charts[metric].axes
        # The bars are as long as the figures of the table say, up to their rounding.
        lengths = [bar.get_width() for bar in axes.patches]
        assert lengths == pytest.approx(medians, abs=0.006)
        assert [float(label.get_text()) for label in axes.texts] == medians
        for middle, bar in zip(axes.lines, axes.patches, strict=True):
            low, high = middle.get_xdata()
            assert low < bar.get_width() < high
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first one is on top
        assert f"](plot_{metric}.svg)" in table
    assert HOSTILE not in page
    assert "<script" not in page
    assert len(re.findall(r'src="data:image/svg\+xml;base64,', page)) == 2
    data = re.findall(r'base64,([^"]+)"', page)[0]
    assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")


def test_images_as_png(runs: list[str], tmp_path: Path) -> None:
    assert main(["compare", *runs[:2], "--out", str(tmp_path), "--plots", "png"]) == 0
    assert main(["leaderboard", *runs, "--out", str(tmp_path), "--plots", "png"]) == 0
    for name in ("plot_curve_e2e.png", "plot_ttft_s.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (1920, 1120)


def test_images_need_a_folder(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("compare", "leaderboard"):
        assert main([command, *runs[:2], "--plots", "svg"]) == 2
        assert f"--out out/{command}" in capsys.readouterr().err


def test_objectives_are_lines_on_the_curve(runs: list[str], tmp_path: Path) -> None:
    objectives = "e2e_p95<3,ttft_p90<0.3,e2e_p50<2,tpot_mean<0.05,errors<0.5,throughput_p5>1"
    assert main([runs[0], "--format", "html", "--plots", "svg", "--out", str(tmp_path), "--slo", objectives]) == 3
    page = (tmp_path / "report.html").read_text()
    found = re.search(r'id="llm-data">(.*?)</script>', page, re.DOTALL)
    assert found
    data = json.loads(found[1])
    assert [(each["metric"], each["figure"], each["limit_s"]) for each in data["limits"]] == [
        ("e2e", "p95", 3.0), ("ttft", "p90", 0.3), ("e2e", "p50", 2.0), ("tpot", "mean", 0.05)
    ]  # fmt: skip
    assert set(data["curves"][0]["points"][0]["latency_s"]["ttft"]) == {"p50", "p95", "p99", "p90", "mean"}
    assert '<option value="p95" selected>' in page
    assert ">e2e_p50&lt;2</text>" in (tmp_path / "plot_curve_e2e.svg").read_text()
    for name, line in (
        ("e2e_p95", "e2e_p95&lt;3"),
        ("ttft_p90", "ttft_p90&lt;0.3"),
        ("tpot_mean", "tpot_mean&lt;0.05"),
    ):
        assert f">{line}</text>" in (tmp_path / f"plot_curve_{name}.svg").read_text()
    assert "&lt;" not in re.sub(r"<desc.*?</desc>", "", (tmp_path / "plot_curve_ttft.svg").read_text())


def test_the_leaderboard_says_which_entries_include_connecting(tmp_path: Path) -> None:
    answer = {
        "error_code": None, "error_msg": "", "inter_token_latency_s": 0.01, "ttft_s": 0.2, "end_to_end_latency_s": 1.0,
        "request_output_throughput_token_per_s": 50.0, "number_total_tokens": 600, "number_output_tokens": 50,
        "number_input_tokens": 550,
    }  # fmt: skip
    old = tmp_path / "old_individual_responses.json"
    old.write_text(json.dumps([answer] * 100))
    runs = load_all([old, write_sweep(tmp_path / "new", levels=(4,), requests=60)])
    note = "Not comparable: the time to connect is part of some TTFT and latencies: included in those of old; not"
    assert any(line.startswith(note) for line in leaderboard(runs)[0].notes)
    # The connections of the new run stayed open, so there is no time that --count-connect could add.
    assert any(line.startswith(note) for line in leaderboard(runs, count_connect=True)[0].notes)
    assert not any(line.startswith(note) for line in leaderboard(runs[:1])[0].notes)
    assert leaderboard(runs)[1].subtitle == "Figures are per request, not the rate of the whole system."


def test_the_leaderboard_says_which_loads_are_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {
        "error_code": None, "error_msg": "", "inter_token_latency_s": 0.01, "ttft_s": 0.2, "end_to_end_latency_s": 1.0,
        "request_output_throughput_token_per_s": 50.0, "number_total_tokens": 600, "number_output_tokens": 50,
        "number_input_tokens": 550,
    }  # fmt: skip
    for name in ("one", "two"):
        (tmp_path / f"{name}_individual_responses.json").write_text(json.dumps([answer] * 30))
    files = sorted(tmp_path.glob("*.json"))
    inputs = [str(write_sweep(tmp_path / "new", levels=(4,), requests=60)), *map(str, files)]
    assert main(["leaderboard", *inputs, "--concurrency", "4", "--out", str(tmp_path / "board")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    words = "the load of one and two is unknown, because the files do not state it"
    board = " ".join((tmp_path / "board" / "leaderboard.md").read_text().split())
    for shown in (text, board):
        assert shown.count(words) == 1
        assert "the other entries have concurrency 4." in shown
        # One note names all entries that it concerns, and both tables have it only once.
        assert shown.count("P99 of fewer than 100 values is not reliable") == 1
        assert re.search(r"one[^;]*, two[^;]* \(30 values\)", shown)
    assert main(["leaderboard", *inputs]) == 0
    assert words in " ".join(capsys.readouterr().out.split())
