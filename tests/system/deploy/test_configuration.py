"""The example configuration files are run as they are, except for the endpoint and the length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llm_users.simulator.launch import Simulator
from tests.system.deploy.conftest import environment
from tests.system.deploy.manifests import DEPLOY, ROOT, SECRET

HERE = ["--llm-model", "simulated", "--llm-requests", "8", "--llm-sweep", "4", "--llm-output-tokens", "8,2"]


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "locustfiles").symlink_to(ROOT / "locustfiles")
    return subprocess.run(
        [sys.executable, "-m", "locust", *words], cwd=folder, env=environment(OPENAI_API_KEY=SECRET, **variables),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["locust.conf", "locust.toml"])
def test_a_configuration_file_gives_the_options(name: str, tmp_path: Path, simulator: Simulator) -> None:
    done = run(tmp_path, "--config", str(DEPLOY / name), "--headless", "--host", simulator.url, *HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Time to First Token" in done.stdout
    options = json.loads((tmp_path / "out" / "run_llm_run.json").read_text())["options"]
    given = {"llm_input_tokens", "llm_extra_body", "llm_metadata", "llm_report"}
    assert {key: options[key] for key in given} == {
        "llm_input_tokens": "550,150",
        "llm_extra_body": '{"temperature": 0}',
        "llm_metadata": ["team=search", "datacenter=eu-1"],
        "llm_report": True,
    }
    assert options["llm_sweep"] == "4", "the command line wins"


def test_a_locust_conf_in_the_folder_is_read_and_variables_win(tmp_path: Path, simulator: Simulator) -> None:
    (tmp_path / "locust.conf").write_text((DEPLOY / "locust.conf").read_text())
    variables = {"LOCUST_HOST": simulator.url, "LOCUST_LLM_MODEL": "simulated", "LOCUST_LLM_SWEEP": "2",
                 "LOCUST_LLM_REQUESTS": "8", "LOCUST_LLM_OUTPUT_TOKENS": "8,2"}  # fmt: skip
    done = run(tmp_path, "--headless", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    options = json.loads((tmp_path / "out" / "run_llm_run.json").read_text())["options"]
    assert (options["llm_sweep"], options["llm_input_tokens"]) == ("2", "550,150")
