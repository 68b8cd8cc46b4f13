"""The notebook's example in docs/reports.md, run: typed frames and figures, by the functions that the command uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import llm_reports
from llm_reports.main import main
from tests.project import ROOT
from tests.unit.reports.sweep_on_disk import write_sweep


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for name, seed in (("run", 5), ("before", 6)):
        write_sweep(tmp_path / "out" / name, levels=(1, 4, 16), requests=100, seed=seed, model="llama-3-8b")
    page, costs = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("reports.md", "costs.md"))
    (prices,) = re.findall(r"^```toml\n(.*?)^```", costs, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "prices.toml").write_text(prices)
    (cells,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    shown = []
    for statement in re.split(r"\n(?=\S)", cells.strip()):
        code = statement.partition("  # ")[0]
        try:
            shown.append(eval(compile(code, "docs/reports.md", "eval"), names))
        except SyntaxError:
            exec(compile(statement, "docs/reports.md", "exec"), names)
    frames = [each for each in shown if isinstance(each, pd.DataFrame)]
    assert len(frames) >= 4
    assert all(len(frame) for frame in frames)
    assert str(names["run"].requests["output_tokens"].dtype) == "Int64"
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")
    capsys.readouterr()


def test_the_command_says_what_the_functions_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = write_sweep(tmp_path / "run", levels=(1, 4), requests=80)
    assert main([str(prefix)]) == 0
    run = llm_reports.load(prefix)
    printed = capsys.readouterr().out
    for table in llm_reports.tables([run]):
        assert llm_reports.to_markdown(table).split("\n\n")[1] in printed
    text = (tmp_path / "run_report" / "summary.csv").read_text()
    frame = llm_reports.summary([run])
    assert len(text.splitlines()) == len(frame) + 1
    assert {str(frame[name].dtype) for name in ("n", "mean", "p99_ci_high")} <= {"int64", "float64"}


def test_every_name_that_is_offered_is_there() -> None:
    for name in llm_reports.__all__:
        assert getattr(llm_reports, name) is not None
