"""The cells of docs/notebooks.md run in order in one interpreter, as in a notebook, on the run that the page makes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_users.simulator.launch import launch
from tests.documented import ENVIRONMENT, FAST, PAGES

PAGE = PAGES["docs/notebooks.md"]
CELLS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
# Like a notebook: all cells share their names, and the value of a last expression is shown.
NOTEBOOK = """
import ast, json, sys
names, shown = {"__name__": "__main__"}, []
for cell in json.load(sys.stdin):
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    shown.append([type(value).__name__, str(value), hasattr(value, "_repr_svg_") or hasattr(value, "_repr_html_")])
print("\\nSHOWN " + json.dumps([shown, [name for name in ("locust", "gevent") if name in sys.modules]]))
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with launch(FAST, max_seconds=120) as running:
        yield running.url


def test_all_cells_run_in_order(tmp_path: Path, endpoint: str) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    (command,) = [shlex.split(line) for line in block.splitlines() if line.startswith("llm-bench")]
    environment = {**ENVIRONMENT, "MPLBACKEND": "Agg"}
    made = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert made.returncode == 0, made.stderr
    cells = [re.sub(r"http://127\.0\.0\.1:\d+/v1", endpoint, cell) for cell in CELLS]
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], input=json.dumps(cells), cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown, loaded = json.loads(done.stdout.rpartition("SHOWN ")[2])
    assert loaded == [], "the page says that Locust is not loaded"
    assert sum(kind == "DataFrame" for kind, _, _ in shown) >= 5
    assert any(kind == "Svg" for kind, _, _ in shown)
    assert all(can_be_shown for kind, _, can_be_shown in shown if kind in ("DataFrame", "Svg"))
    assert "Time to First Token" in done.stdout
    assert (tmp_path / "ttft.png").stat().st_size > 1000
    assert "count    1" in shown[-1][1]
