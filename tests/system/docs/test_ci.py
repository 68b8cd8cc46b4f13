"""The pipelines of docs/ci.md run: each script twice, on the main branch and in a pull request that has the baseline.

Only the folders that a cache or an artifact carries go from one run to the other. What installs packages is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from llm_users.simulator.launch import launch
from tests.documented import ENVIRONMENT, PAGES

PAGE = PAGES["docs/ci.md"]
GITHUB, GITLAB = (yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
(JENKINS,) = re.findall(r"^```groovy\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
MAIN, PULL_REQUEST = "main", "pull request"
# Long enough that the noise of a shared machine is a small share of each latency.
SPEC = "ttft=60ms,itl=3ms"
SHORTENED = ("--llm-output-tokens 150,80", "--llm-output-tokens 8,2")
SHORT = {"LOCUST_LLM_OUTPUT_TOKENS": "8,2"}

Script = tuple[list[str], dict[str, str]]
"""The shell scripts of a pipeline, in order, and their environment."""

CONDITIONS = {
    "${{ !cancelled() }}": (MAIN, PULL_REQUEST),
    "github.ref == 'refs/heads/main'": (MAIN,),
    "github.event_name == 'pull_request'": (PULL_REQUEST,),
    "${{ !cancelled() && github.event_name == 'pull_request' && hashFiles('out/baseline/*') != '' }}": (PULL_REQUEST,),
}


def github(event: str) -> Script:
    (job,) = GITHUB["jobs"].values()
    steps = [step for step in job["steps"] if "if" not in step or event in CONDITIONS[step["if"]]]
    scripts = [step["run"] for step in steps if "run" in step and "pip install" not in step["run"]]
    return [f"set -eo pipefail\n{script}" for script in scripts], {"GITHUB_STEP_SUMMARY": "summary.md"}


def gitlab(event: str) -> Script:
    rules = GITLAB["llm-load-test"]["rules"]
    (rule,) = (rule for rule in rules if ("merge_request" in rule["if"]) == (event == PULL_REQUEST))
    return ["set -e\n" + "\n".join(GITLAB["llm-load-test"]["script"])], rule["variables"]


def jenkins(event: str) -> Script:
    scripts = [first or second for first, second in re.findall(r"sh '''(.*?)'''|sh '([^'\n]+)'", JENKINS, re.DOTALL)]
    runs = [f"set -e\n{script}" for script in scripts if "pip install" not in script]
    return [script for script in runs if event == PULL_REQUEST or "compare" not in script], {}


PIPELINES: dict[str, tuple[Callable[[str], Script], str, str]] = {
    # A pipeline, the folder that it keeps on main, and where a pull request finds it.
    "github": (github, "out/baseline", "out/baseline"),
    "gitlab": (gitlab, "baseline", "baseline"),
    "jenkins": (jenkins, "out", "baseline"),
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with launch(SPEC, max_seconds=300) as running:
        yield running.url


def run(script: Script, folder: Path, url: str) -> str:
    scripts, variables = script
    environment = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("GITHUB_")}
    programs = folder / ".venv"
    if not programs.exists():
        programs.mkdir()
        (programs / "bin").symlink_to(ENVIRONMENT["PATH"].split(os.pathsep)[0])
    said = ""
    for each in scripts:
        script_text = each.replace(*SHORTENED)
        done = subprocess.run(
            ["bash", "-c", script_text], cwd=folder, env={**environment, **SHORT, **variables, "LLM_URL": url},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        said += done.stdout
        assert done.returncode == 0, said
    return said


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_passes_on_main_and_in_a_pull_request(name: str, tmp_path: Path, endpoint: str) -> None:
    script_of, kept, found = PIPELINES[name]
    failures = []
    for attempt in range(3):  # a busy machine makes a comparison undecided
        main, change = tmp_path / f"main{attempt}", tmp_path / f"change{attempt}"
        main.mkdir()
        change.mkdir()
        try:
            run(script_of(MAIN), main, endpoint)
            shutil.copytree(main / kept, change / found)
            run(script_of(PULL_REQUEST), change, endpoint)
            break
        except AssertionError as error:
            if not re.search("saturated|disturbed|undecided", str(error)):
                raise
            failures.append(str(error))
    else:
        pytest.fail("\n".join(failures))
    for suite in ("run_llm_gate.xml", "compare.xml"):
        cases = ElementTree.parse(change / "out" / suite).getroot()
        assert int(cases.attrib["tests"]) > 0, suite
        assert (cases.attrib["failures"], cases.attrib["errors"]) == ("0", "0"), suite
    if name == "github":
        summary = (change / "summary.md").read_text()
        assert "## Gate: passed" in summary
        assert "Time to First Token" in summary
        assert "ttft_s median" in summary, "the table of the comparison"


def test_the_caches_and_artifacts_carry_what_the_comparison_reads() -> None:
    (job,) = GITHUB["jobs"].values()
    cached = [step["with"] for step in job["steps"] if "actions/cache" in step.get("uses", "")]
    assert {step["path"] for step in cached} == {PIPELINES["github"][1]}
    assert all(step["key"].startswith("llm-baseline-") for step in cached)
    cache = GITLAB["llm-load-test"]["cache"]
    assert cache["paths"] == [f"{PIPELINES['gitlab'][1]}/"]
    assert cache["policy"] == "$BASELINE_POLICY"
    assert GITLAB["llm-load-test"]["artifacts"]["reports"] == {"junit": "out/*.xml"}


def test_github_publishes_the_verdicts_of_this_run_only() -> None:
    (job,) = GITHUB["jobs"].values()
    (step,) = (step for step in job["steps"] if "junit-report" in step.get("uses", ""))
    assert GITHUB["permissions"]["checks"] == "write"
    assert step["if"] == "${{ !cancelled() }}"
    assert step["with"] == {"report_paths": "out/*.xml"}, "out/baseline has the verdict of an older run"


def test_a_key_comes_only_from_the_secrets_of_the_ci_system() -> None:
    (job,) = GITHUB["jobs"].values()
    assert job["env"]["OPENAI_API_KEY"] == "${{ secrets.OPENAI_API_KEY }}"
    assert "OPENAI_API_KEY = credentials(" in JENKINS
    variables: dict[str, Any] = GITLAB["llm-load-test"]["variables"]
    assert set(variables) == {"LLM_URL"}
