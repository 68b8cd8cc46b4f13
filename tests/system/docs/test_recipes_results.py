"""docs/recipes-results.md: the snippets for trackers run against packages that record the calls, on a real run.

The trackers and the clouds are not asked. Their commands are parsed by a shell, with recording programs in their place.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documented import ENVIRONMENT, FAST, PAGES, Site

PAGE = PAGES["docs/recipes-results.md"]
SNIPPETS = {
    name: next(block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if name in block)
    for name in ("mlflow", "wandb")
}
COMMANDS = {
    block.split()[0]: block for block in re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
}
# Functions of the packages with their real parameters: a call that the package would refuse fails here too.
PACKAGES = {
    "mlflow": '''
import contextlib, json, math, pathlib
def _note(*call): pathlib.Path("calls.jsonl").open("a").write(json.dumps(call) + "\\n")
@contextlib.contextmanager
def start_run(run_id=None, experiment_id=None, run_name=None, nested=False, parent_run_id=None, tags=None):
    _note("start_run", run_name)
    yield
def log_params(params):
    assert all(len(value) <= 6000 for value in params.values())
    _note("log_params", params)
def log_metric(key, value, step=None):
    assert math.isfinite(value)
    _note("log_metric", key, float(value), int(step))
def log_artifact(local_path, artifact_path=None):
    assert pathlib.Path(local_path).is_file()
    _note("log_artifact", local_path)
def log_artifacts(local_dir, artifact_path=None):
    assert pathlib.Path(local_dir).is_dir()
    _note("log_artifacts", local_dir)
''',
    "wandb": '''
import contextlib, json, math, pathlib
def _note(*call): pathlib.Path("calls.jsonl").open("a").write(json.dumps(call) + "\\n")
class Table:
    def __init__(self, columns=None, data=None, dataframe=None): self.rows = len(dataframe)
class Artifact:
    def __init__(self, name, type): self.files = []
    def add_dir(self, local_path): assert pathlib.Path(local_path).is_dir(); self.files.append(local_path)
    def add_file(self, local_path): assert pathlib.Path(local_path).is_file(); self.files.append(local_path)
class Run:
    def log(self, data, step=None):
        numbers = {key: value for key, value in data.items() if not isinstance(value, Table)}
        assert all(math.isfinite(value) for value in numbers.values())
        _note("log", sorted(data), step)
    def log_artifact(self, artifact): _note("log_artifact", artifact.files)
@contextlib.contextmanager
def init(project=None, name=None, config=None):
    _note("init", project, name, config)
    yield Run()
''',
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("results")
    site = Site(folder, "")
    words = ["llm-bench", "--headless", "--only-summary", "--llm-simulator", FAST, "--llm-sweep", "1,2"]
    words += ["--llm-requests", "10", "--llm-output-tokens", "8,2", "--csv", "out/run", "--llm-report"]
    done = site.run(words)
    assert done.code == 0, done.err
    return site


def calls(snippet: str, site: Site, folder: Path) -> list[list[Any]]:
    (folder / "out").symlink_to(site.folder / "out")
    (folder / f"{snippet}.py").write_text(PACKAGES[snippet])
    done = subprocess.run(
        [sys.executable, "-c", SNIPPETS[snippet]], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]


def test_mlflow_gets_options_metrics_and_files(site: Site, tmp_path: Path) -> None:
    made = calls("mlflow", site, tmp_path)
    assert next(call for call in made if call[0] == "log_params")[1]["llm_sweep"] == "1,2"
    metrics = {(call[1], call[3]): call[2] for call in made if call[0] == "log_metric"}
    assert 0.004 < metrics["ttft_s.median", 1] < 0.2
    assert {stage for _, stage in metrics} == {1, 2}
    assert "output_throughput_token_per_s.mean" in {name for name, _ in metrics}
    files = {Path(call[1]).name for call in made if call[0].startswith("log_artifact")}
    assert {"run_llm_requests.csv", "run_llm_run.json", "run_report"} <= files


def test_weights_and_biases_gets_options_metrics_and_files(site: Site, tmp_path: Path) -> None:
    made = calls("wandb", site, tmp_path)
    (start,) = (call for call in made if call[0] == "init")
    assert start[3]["llm_requests"] == "10"
    logged = [call for call in made if call[0] == "log"]
    assert [call[2] for call in logged] == [1, 2, None]
    assert {"ttft_s.median", "output_throughput_token_per_s.mean"} <= set(logged[0][1])
    assert logged[2][1] == ["summary"]
    assert made[-1] == ["log_artifact", ["out/run_report", "out/run_llm_requests.csv"]]


@pytest.mark.parametrize("program", ["aws", "gcloud"])
def test_the_copy_command_names_files_of_the_run(program: str, site: Site, tmp_path: Path) -> None:
    recorder = tmp_path / program
    recorder.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/arguments"\n')
    recorder.chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PATH']}"}
    done = subprocess.run(["bash", "-euc", COMMANDS[program]], cwd=site.folder, env=environment, check=False)
    assert done.returncode == 0
    arguments = (tmp_path / "arguments").read_text().splitlines()
    if program == "aws":
        assert arguments[:3] == ["s3", "cp", "out/"]
        assert arguments[4:] == ["--recursive", "--exclude", "*", "--include", "run_*"]
    else:
        assert {"out/run_llm_requests.csv", "out/run_llm_run.json", "out/run_report"} <= set(arguments)
    assert any(re.fullmatch(r"(s3|gs)://BUCKET/llm/\d{4}-\d\d-\d\d/", word) for word in arguments)
