"""The files for GitHub: they follow GitHub's schemas, and the commands of the workflows name what the project has."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import llm_users
from llm_users.options.table import OPTIONS
from tests.project import PROJECT, PYTHONS, ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
SCHEMAS = {
    "citation-file-format": [ROOT / "CITATION.cff"],
    "dependabot": [GITHUB / "dependabot.yml"],
    "github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "github-issue-forms": [path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"],
    "github-workflows": WORKFLOWS,
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_follows_its_schema(schema: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *SCHEMAS[schema]],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_for_github_is_checked_or_prose() -> None:
    checked = {path for paths in SCHEMAS.values() for path in paths}
    assert {path for path in GITHUB.rglob("*") if path.is_file() and path.suffix != ".md"} <= checked


def test_the_citation_names_this_version_and_its_repository() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == llm_users.__version__
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            yield f"{path.stem}.{name}", job


def commands(job: dict[str, Any]) -> Iterator[list[str]]:
    """The commands of a job as words, once for each value of a variable of its matrix."""
    for step in job["steps"]:
        for line in step.get("run", "").splitlines():
            variable = re.search(r"\$\{\{ *matrix\.(\w+) *\}\}", line)
            values = job["strategy"]["matrix"][variable[1]] if variable else [""]
            for value in values:
                yield shlex.split(line.replace(variable[0], str(value)) if variable else line)


COMMANDS = [pytest.param(words, id=f"{name}: {' '.join(words)}") for name, job in jobs() for words in commands(job)]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_names_what_the_project_has(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    if words[0] == "make":
        variables = dict(word.split("=", 1) for word in words[2:])
        assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE)
        assert all(re.search(rf"\$\$?\(?{name}\b", makefile) for name in variables)
        assert (ROOT / "tests" / "system" / variables.get("SUITE", "")).is_dir()
    elif words[0] == "llm-bench":
        assert {word for word in words if word.startswith("--llm-")} <= {option.flag for option in OPTIONS}
        assert words[0] in PROJECT["scripts"]
    elif words[0] == "test":
        assert words[-1].replace("${GITHUB_REF_NAME#v}", llm_users.__version__) == (
            f"dist/{PROJECT['name'].replace('-', '_')}-{llm_users.__version__}.tar.gz"
        )
    else:
        assert words[:3] in (["python", "-m", "pip"], ["python", "-m", "build"], ["python", "-m", "twine"])


def test_the_unit_tests_and_the_wheel_run_on_every_supported_python() -> None:
    matrices = {name: job["strategy"]["matrix"] for name, job in jobs() if "strategy" in job}
    assert matrices["ci.test"]["python"] == PYTHONS
    assert matrices["release.install"]["python"] == PYTHONS


def test_every_suite_of_the_system_tests_runs() -> None:
    (suites,) = (job["strategy"]["matrix"]["suite"] for name, job in jobs() if name == "ci.system")
    folders = {path.parent.name for path in (ROOT / "tests" / "system").glob("*/__init__.py")}
    assert set(suites) == folders - {"accuracy"}, "accuracy needs a machine that nothing else uses"


def test_only_a_tag_publishes_and_what_publishes_waits_for_the_wheel_to_run() -> None:
    release = yaml.safe_load((GITHUB / "workflows" / "release.yml").read_text())
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key "on" as true
    publishing = {name: job for name, job in release["jobs"].items() if "write" in job.get("permissions", {}).values()}
    assert set(publishing) == {"pypi", "image"}
    assert all(job["needs"] == "install" for job in publishing.values())
    assert publishing["pypi"]["permissions"] == {"id-token": "write"}, "trusted publishing, without a stored secret"


def test_permissions_are_minimal_and_no_secret_is_used() -> None:
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
        assert "secrets." not in path.read_text()


def test_every_action_has_a_version_and_every_file_that_a_step_names_exists() -> None:
    for name, job in jobs():
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"]), name
            for key in ("file", "cache-dependency-path"):
                named = Path(step.get("with", {}).get(key, "."))
                assert (ROOT / named).exists(), f"{name}: {named}"
            assert not set(re.findall(r"steps\.(\w+)\.", str(step))) - {other.get("id") for other in job["steps"]}
