"""Options in the processes themselves: names that are refused, and the web form."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request

import pytest

from llm_users.options.table import OPTIONS
from tests.system.runs.conftest import Locust
from tests.system.runs.test_distributed import free_port


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["--llm-prefix", "9x2"], {}, "unknown option --llm-prefix; did you mean --llm-shared-prefix?"),
        (
            [],
            {"LOCUST_LLM_PREFIX": "9x2"},
            "unknown environment variable LOCUST_LLM_PREFIX; did you mean LOCUST_LLM_SHARED_PREFIX?",
        ),
        (["--config", "own.conf"], {}, "unknown option --llm-prefix; did you mean --llm-shared-prefix?"),
    ],
)
def test_a_run_does_not_start_with_an_unknown_name(
    locust: Locust, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    (locust.folder / "own.conf").write_text("llm-prefix = 9x2\n")
    done = locust.run("--llm-simulator", *arguments, env=variables)
    assert (done.code, said in done.err) == (2, True), done.err


@pytest.mark.parametrize(
    "words",
    [
        ["llm_reports.main", "run", "--form", "md"],
        ["llm_reports.main", "compare", "run", "run", "--thresh", "5%"],
        ["llm_users.simulator.main", "--ttf", "1s"],
        ["llm_users.cli", "calibrate", "--stream", "4"],
    ],
    ids=" ".join,
)
def test_other_commands_refuse_shortened_names(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "unrecognized arguments" in done.stderr) == (2, True), done.stderr


def test_the_form_has_all_options_in_the_order_of_the_table(locust: Locust) -> None:
    """In each group, the common options come first."""
    groups = list(dict.fromkeys(option.group for option in OPTIONS))
    expected = sorted(OPTIONS, key=lambda option: (groups.index(option.group), not option.common))
    port = str(free_port())
    running = locust.start("--web-port", port, "--web-host", "127.0.0.1", headless=False)
    page = fetched(f"http://127.0.0.1:{port}/")
    arguments, _end = json.JSONDecoder().raw_decode(page.split("window.templateArgs = ")[1])
    shown = {name: field for name, field in arguments["extra_options"].items() if name.startswith("llm_")}
    assert list(shown) == [option.dest for option in expected]
    assert [field["help_text"] for field in shown.values()] == [option.help_line for option in expected]
    given = {"llm_input_tokens": "20,5", "llm_output_tokens": "8,2"}  # on the command line
    for option in OPTIONS:
        field = shown[option.dest]
        assert field["default_value"] == (False if option.switch else given.get(option.dest, option.default))
        assert [choice for choice in field["choices"] or () if choice] == list(option.choices or ())
    running.interrupt()
    assert running.finish().code == 0


def fetched(url: str, timeout_s: float = 30) -> str:
    """A page of a server that is still starting."""
    limit = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                text: str = response.read().decode()
                return text
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.2)
