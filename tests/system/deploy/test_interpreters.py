"""The wheel on each supported Python that this machine has: it installs from the package index and measures a sweep.

`make test-system SUITE=deploy SLOW=1` runs it. Each Python takes about a minute.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_users.outcome import Outcome, outcome_of
from tests.project import PYTHONS, ROOT
from tests.system.deploy.conftest import SHORT, environment
from tests.system.deploy.installation_size import install, measure, report

MOST_MEGABYTES = 600
"""Measured: 493 MB with Python 3.11, 477 MB with 3.13."""


@pytest.fixture(scope="module", params=PYTHONS)
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment of this Python, with the wheel and everything that it requires."""
    python = next(interpreters(request.param), None)
    if python is None:
        pytest.skip(f"Python {request.param} is not on this machine")
    folder = tmp_path_factory.mktemp("installed")
    install(wheel, folder, python)
    return folder


def interpreters(version: str) -> Iterator[Path]:
    """The interpreters of this version in PATH, of pyenv and of uv that can make an environment."""
    home, name = Path.home(), f"python{version}"
    in_path = [Path(path)] if (path := shutil.which(name)) else []
    for python in [
        *in_path,
        *home.glob(f".pyenv/versions/{version}.*/bin/{name}"),
        *home.glob(f".local/share/uv/python/cpython-{version}.*/bin/{name}"),
    ]:
        # A command in PATH can be a shim of pyenv whose version is not selected here.
        done = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, timeout=60, check=False)
        if done.returncode == 0:
            yield python


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "messages", "converse"])
def test_the_installed_wheel_measures_a_sweep(api: str, installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "bin" / "llm-bench", "--headless", "--llm-api", api, "--llm-model", "simulated",
         "--llm-simulator", "ttft=5ms,itl=1ms", "--llm-sweep", "1,2", "--llm-requests", "4", *SHORT,
         "--csv", "out/run", "--llm-report"],
        cwd=tmp_path, env=environment(PYTHONWARNINGS="default", PYTHONPATH=""), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "run_llm_requests.csv").open(newline="") as file:
        measured = [row for row in csv.DictReader(file) if row["measured"] == "1"]
    assert len(measured) == 8
    # A busy machine can receive an answer of 8 ms at once ("buffered"), which is a success.
    assert {outcome_of(row["error_code"]) for row in measured} == {Outcome.OK}, done.stderr
    assert (tmp_path / "out" / "run_report" / "report.html").is_file()
    # A warning about our own code is an error of a later Python.
    assert not [line for line in done.stderr.splitlines() if "Warning: " in line and "/llm_" in line]


@pytest.mark.slow
def test_everything_that_is_installed_is_required(installed: Path) -> None:
    found = measure(installed)
    assert [distribution.name for distribution in found if not distribution.required_by] == ["locust-llm"]
    assert sum(distribution.megabytes for distribution in found) < MOST_MEGABYTES, report(found)


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_the_index_has_a_wheel_of_each_requirement_for_a_python_that_this_machine_lacks(
    version: str, wheel: Path, tmp_path: Path
) -> None:
    if next(interpreters(version), None):
        pytest.skip(f"Python {version} is on this machine: the wheel is installed there")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--target", tmp_path, "-qq",
         "--only-binary", ":all:", "--python-version", version, "--constraint", ROOT / "constraints.txt", wheel],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
