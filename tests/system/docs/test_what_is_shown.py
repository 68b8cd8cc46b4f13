"""Every command and every locustfile in the documentation runs.

``tests/documented.py`` defines how commands run, and which commands are only parsed.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_users.options.table import OPTIONS
from llm_users.simulator.launch import launch
from tests.documented import (
    A_RUN,
    ENVIRONMENT,
    FAST,
    LOCUST,
    ONLY_PARSED,
    PAGES,
    PICTURES,
    ROOT,
    SHORT,
    SUBCOMMANDS,
    Command,
    Outcome,
    Site,
    commands,
    header_variables,
    locustfiles,
    prepare,
    run_block,
)
from tests.tracebacks import tracebacks

COMMANDS = commands()
RUN = [command for command in COMMANDS if command.why_not_run is None]
LOCUSTFILES = locustfiles()
IN_CI = ("README.md", "docs/distributed.md", "docs/own-user-class.md")
"""CI runs the commands of these pages and parses all others. `make test-system SUITE=docs` runs all of them."""
AT_ONCE = 2
"""Concurrent commands: most of the time of a command is the start of Python, on one core."""


def test_the_pages_have_commands_and_locustfiles() -> None:
    assert {command.program for command in RUN} == {*LOCUST, "llm-report", "llm-simulator"}
    assert {"README.md", "docs/distributed.md", "docs/own-user-class.md"} <= {command.page for command in RUN}
    assert len(LOCUSTFILES) > 5
    assert set(ONLY_PARSED) <= {"make", *PAGES}, "a reason for a page that does not exist"


def test_commands_parse(tmp_path: Path) -> None:
    folder = tmp_path / "commands"
    site = Site(folder, "")
    folder.mkdir()
    for name in ("locustfiles", "deploy", "examples"):
        (folder / name).symlink_to(ROOT / name)
    parsed = [command for command in COMMANDS if command.program in LOCUST and not SUBCOMMANDS & set(command.words)]
    given = [shlex.join(command.words[1:]) for command in parsed]
    variables = {name: "made-up" for command in parsed for name in header_variables(command)}
    site.environment = {**ENVIRONMENT, **variables}
    code = (
        "import shlex, sys, locust, llm_users.extension\n"
        "from locust.argument_parser import get_parser\n"
        "for line in sys.argv[1].splitlines():\n"
        "    get_parser().parse_args(shlex.split(line))\n"
    )
    done = site.run([sys.executable, "-c", code, "\n".join(given)])
    assert done.code == 0, done.err


# The first test runs the commands of all selected tests, two at a time.


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    with launch(FAST, max_seconds=600) as running:
        yield running.url


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, simulator: str) -> Path:
    """A folder with a finished run, for commands that read one."""
    folder = tmp_path_factory.mktemp("run")
    words = ["llm-bench", "--headless", "--host", simulator, "--llm-sweep", "1,2", *SHORT, "--csv", A_RUN]
    done = Site(folder, simulator).run(words)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, simulator: str, finished_run: Path
) -> dict[Command, Outcome]:
    folder = tmp_path_factory.mktemp("commands")
    wanted = {item.callspec.params.get("command") for item in request.session.items if hasattr(item, "callspec")}
    by_block = itertools.groupby(RUN, key=lambda command: (command.page, command.block))
    blocks = [block for block in (list(commands) for _, commands in by_block) if wanted & set(block)]
    sites = [prepare(folder / str(number), finished_run, simulator) for number in range(len(blocks))]
    work = list(zip(blocks, sites, strict=True))
    # Runs over several processes run alone, because a worker that is silent for 6 s counts as lost. A calibration also
    # runs alone, because it fails if the client is saturated.
    needy = {"--processes", "--master", "calibrate"}
    alone = [task for task in work if any(needy & set(command.words) for command in task[0])]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(lambda task: run_block(*task), [task for task in work if task not in alone]))
    done += [run_block(*task) for task in alone]
    return {command: outcome for each in done for command, outcome in each.items()}


@pytest.fixture(scope="module")
def locustfile_outcomes(tmp_path_factory: pytest.TempPathFactory, simulator: str) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("locustfiles")
    for name, content in PICTURES.items():
        (folder / name).write_bytes(content)

    def run(number: int, text: str) -> Outcome:
        # The address in a script is a placeholder.
        path = folder / f"shown_{number}.py"
        path.write_text(re.sub(r"http://127\.0\.0\.1:\d+/v1", simulator, text))
        site = Site(folder, simulator)
        return site.run([sys.executable, str(path)] if "attach(" in text else locust_command(path, simulator))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = pool.map(run, itertools.count(), [text for _, text in LOCUSTFILES])
        return dict(zip([name for name, _ in LOCUSTFILES], done, strict=True))


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, marks=[] if command.page in IN_CI else pytest.mark.slow) for command in RUN],
    ids=str,
)
def test_a_command_runs(command: Command, outcomes: dict[Command, Outcome]) -> None:
    done = outcomes[command]
    assert done.code == 0, done.out + done.err
    assert tracebacks(done.err) == [], done.err
    words = command.words
    if command.program == "llm-simulator":
        assert "listening on http://" in done.out
    elif command.program == "llm-report" or ("--llm-report" in words and "--worker" not in words):
        assert re.search("Time to First Token|ttft_s", done.out)


@pytest.mark.parametrize("name", [name for name, _ in LOCUSTFILES])
def test_a_locustfile_runs(name: str, locustfile_outcomes: dict[str, Outcome]) -> None:
    done = locustfile_outcomes[name]
    assert done.code == 0, done.out + done.err
    assert tracebacks(done.err) == [], done.err


# Other examples.


@pytest.mark.parametrize("name", ["chat.py", "listener.py"])
def test_an_example_runs_as_it_is(name: str, tmp_path: Path, simulator: str) -> None:
    command = locust_command(ROOT / "locustfiles" / name, simulator)
    done = Site(tmp_path, simulator).run([*command, "--csv", A_RUN])
    assert done.code == 0, done.err
    rows = (tmp_path / f"{A_RUN}_llm_requests.csv").read_text().splitlines()
    assert len(rows) > 4
    if name == "listener.py":
        assert "the slowest requests:" in done.out
        assert re.search(r"^\w+-0-\d+: \d+\.\d\d s, first token after 0\.\d+ s, \d+ tokens", done.out, re.MULTILINE)


def locust_command(path: Path, simulator: str) -> list[str]:
    return ["locust", "-f", str(path), "--headless", "-u", "2", "-r", "2", "--host", simulator, *SHORT,
            "--llm-warmup", "0"]  # fmt: skip


def test_llm_bench_lists_the_extensions_options(tmp_path: Path) -> None:
    done = Site(tmp_path, "").run(["llm-bench", "--help-all"])
    assert done.code == 0, done.err
    assert {option.flag for option in OPTIONS} <= set(re.findall(r"--llm-[a-z-]+", done.out))


def test_llm_bench_is_locust_with_the_packaged_locustfile(finished_run: Path) -> None:
    # The fixture shows that the command itself works.
    prefix = os.path.join(finished_run, A_RUN)  # noqa: PTH118 - the start of names, not a file
    assert "SweepUser" in Path(f"{prefix}_llm_requests.csv").read_text()


def test_llm_bench_takes_another_locustfile(tmp_path: Path) -> None:
    done = Site(tmp_path, "").run(["llm-bench", "-f", str(ROOT / "locustfiles" / "chat.py"), "--list"])
    assert done.code == 0, done.err
    assert "Chat" in done.out
    assert "SweepUser" not in done.out
