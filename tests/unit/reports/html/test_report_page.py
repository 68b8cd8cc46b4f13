"""report.html without a browser: what is in it, that it is safe, and that it says the same as the other formats."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llm_reports.charts.assets import asset
from llm_reports.content import content_of
from llm_reports.html.rendering import render
from llm_reports.input.loader import load, load_all
from llm_reports.main import main
from llm_reports.report import report_run, report_runs
from llm_reports.sections.section import Grid, Section, section_text
from llm_users.run_files import REQUESTS_CSV, path_of
from tests.unit.reports.sweep_on_disk import HOSTILE, write_sweep


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep") / "run", levels=(1, 4, 16, 32), requests=150)


def page_of(prefix: Path, **options: object) -> str:
    report = report_run(prefix, formats=("html",), **options)  # type: ignore[arg-type]
    return report.files[0].read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="llm-data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, object] = json.loads(found[1])
    return data


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of one table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def test_it_is_one_file_that_asks_for_nothing(prefix: Path) -> None:
    page = page_of(prefix)
    assert len(page) < 1_000_000
    for tag, attributes in Elements(page).elements:
        for name in ("src", "href", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), f"{tag} {name}={attributes[name]}"
        assert not [name for name in attributes if name.startswith("on")]
    assert "@import" not in page
    assert not re.search(r"url\((?!['\"]?data:)", page)


def test_only_its_own_script_may_run(prefix: Path) -> None:
    page = page_of(prefix)
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for tag, a in Elements(page).elements if a.get("http-equiv")) or ""
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_texts_of_servers_and_files_are_never_markup(tmp_path: Path) -> None:
    page = page_of(write_sweep(tmp_path / "run", levels=(16, 32), model=HOSTILE))
    assert HOSTILE not in page
    tags = [tag for tag, _ in Elements(page).elements]
    assert "img" not in tags
    assert tags.count("script") == 2
    assert HOSTILE in json.dumps(data_of(page)["curves"]).replace('\\"', '"')


def test_the_order_of_the_rows_does_not_show(prefix: Path, tmp_path: Path) -> None:
    lines = path_of(prefix, REQUESTS_CSV).read_text().splitlines(keepends=True)
    rows = lines[1:]
    random.Random(3).shuffle(rows)
    other = tmp_path / "run"
    for kind in ("stages.csv", "gaps.csv", "run.json"):
        Path(f"{other}_llm_{kind}").write_bytes(Path(f"{prefix}_llm_{kind}").read_bytes())
    path_of(other, REQUESTS_CSV).write_text("".join([lines[0], *rows]))
    assert page_of(other) == page_of(prefix)


def test_the_client_comes_first(tmp_path: Path) -> None:
    page = page_of(write_sweep(tmp_path / "run", levels=(1, 2), requests=20, healths=("saturated",)))
    assert page.index("the load generator was the limit") < page.index("<h3>Time to First Token")
    assert "Marked saturated: concurrency 2." in page
    assert "2 (saturated)" in json.dumps(data_of(page))
    disturbed = page_of(write_sweep(tmp_path / "shared", levels=(1, 2), requests=20, healths=("disturbed",)))
    assert "took CPU time from the load generator" in disturbed
    assert "Marked disturbed: concurrency 2." in disturbed
    assert "2 (disturbed)" in json.dumps(data_of(disturbed))
    unknown = page_of(write_sweep(tmp_path / "other", levels=(1,), requests=20))
    assert "the load generator kept up in every stage" in unknown


def test_errors_have_classes_and_examples_and_nothing_is_left_out_in_silence(prefix: Path) -> None:
    page = page_of(prefix)
    errors = page[page.index('id="errors"') : page.index('id="excluded"')]
    assert "rate limit reached" in errors
    assert "truncated" in errors
    excluded = page[page.index('id="excluded"') : page.index('id="configuration"')]
    assert "in warmup" in excluded


def test_several_runs_share_one_page(prefix: Path, tmp_path: Path) -> None:
    other = write_sweep(tmp_path / "other", levels=(1, 4), requests=50, model="mixtral", seed=9)
    report_runs(load_all([prefix, other]), out=tmp_path / "both", formats=("html",))
    data = data_of((tmp_path / "both" / "report.html").read_text())
    assert [curve["name"] for curve in data["curves"]] == [  # type: ignore[attr-defined]
        "llama-3.1-8b-instruct run",
        "mixtral other",
    ]
    assert len(data["timelines"]) == 2  # type: ignore[arg-type]


def test_a_foreign_file_and_an_empty_run_have_a_page_too(
    write_responses: Callable[..., Path], write_run: Callable[..., Path], tmp_path: Path
) -> None:
    foreign = write_responses("vllm_tiny_individual_responses.json")
    report_runs([load(foreign)], out=tmp_path / "foreign", formats=("html",))
    page = (tmp_path / "foreign" / "report.html").read_text()
    assert "does not contain the start times of requests" in page
    assert "It is unknown whether the client kept up" in page
    empty = report_runs([load(write_run([]))], out=tmp_path / "empty", formats=("html",))
    assert empty.exit_code == 3
    assert "No latency was measured" in empty.files[0].read_text()


def test_decisions_are_said_as_in_the_markdown() -> None:
    grid = Grid(["a", "b|c"], [["`x<1`", "**no**"]])
    section = Section("Gate: FAILED", [grid, ["it is\n  not met", "<b>"], "`1<2`"])
    page = render("fragment.html.j2", content=content_of([]), decisions=[section], images=[], pictures=True)
    text = section_text(section)
    assert "## Gate: FAILED" in text
    assert "b\\|c" in text
    assert "<h3>Gate: FAILED</h3>" in page
    assert "b|c</th>" in page
    assert "<code>x&lt;1</code>" in page
    assert "<strong>no</strong>" in page
    assert "<li>it is not met</li>" in page
    assert "<li>&lt;b&gt;</li>" in page
    assert "<p><code>1&lt;2</code></p>" in page


def test_what_is_vendored_is_what_the_notice_says() -> None:
    notice = asset("NOTICE.txt")
    for name in ("uPlot.iife.min.js", "uPlot.min.css"):
        digest = hashlib.sha256(asset(name).encode()).hexdigest()
        assert re.search(rf"{digest}\s+{re.escape(name)}", notice)
    assert "MIT" in asset("uPlot.LICENSE.txt")
    assert "(v1.6.32)" in asset("uPlot.iife.min.js")


def test_the_command_writes_page_and_plots(prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(prefix), "--format", "html", "--plots", "svg", "--out", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"report.html", "plot_curve_e2e.svg", "plot_ttft.svg", "plot_timeline.svg", "plot_model.svg"} <= names
    assert "report.html" in capsys.readouterr().err


def test_the_words_of_the_curve_are_the_figures(prefix: Path) -> None:
    content = content_of([load(prefix)])
    page = page_of(prefix)
    for point in content.points:
        assert f'<td class="number">{point.tokens_per_s:,.1f}</td>' in page
