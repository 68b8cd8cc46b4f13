"""A real server with a real model, collected only when asked for by path: it downloads 130 MB at its first run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.system.llama.command import CONVERSATIONS, SWEEP, Counted, Recorded, run
from tests.system.llama.llama import LlamaServer
from tests.system.llama.parts import model_file, server_packages
from tests.system.llama.recording_proxy import RecordingProxy

HERE = Path(__file__).parent
TABLES = pytest.StashKey[str]()
DIFFERENCES = pytest.StashKey[dict[str, list[float]]]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Everything here, unless this folder was named on the command line."""
    named = [(config.invocation_params.dir / text.partition("::")[0]).resolve() for text in config.args]
    return None if any(path.is_relative_to(HERE) for path in named) else True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the tables of the sweep as the command printed them, and the differences from the server's own times."""
    tables = config.stash.get(TABLES, "")
    if tables:
        terminalreporter.section("sweep against llama.cpp")
        terminalreporter.write(tables)
    differences = config.stash.get(DIFFERENCES, {})
    if differences:
        terminalreporter.section("client minus server, one user, ms")
    for name, values in differences.items():
        figures = f"min {min(values) * 1e3:.2f}, median {median(values) * 1e3:.2f}, max {max(values) * 1e3:.2f}"
        terminalreporter.write(f"{name}: {figures} of {len(values)} requests\n")


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaServer]:
    server = LlamaServer(server_packages(), model_file(), slots=4)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def sweep(llama: LlamaServer, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Counted:
    """1, 2 and 4 users, eight measured requests each; answers of equal length, so that times can be added up."""
    before = llama.settled()
    made = run(
        SWEEP, llama.url, tmp_path_factory.mktemp("sweep") / "run",
        "--llm-sweep", "1,2,4", "--llm-requests", "8", "--llm-input-tokens", "60,10", "--llm-output-tokens", "40,0",
        "--llm-extra-body", '{"ignore_eos": true}', "--llm-framework", "llama.cpp", "--llm-report",
    )  # fmt: skip
    after = llama.settled()
    pytestconfig.stash[TABLES] = made.printed
    return Counted(made, {name: after[name] - before[name] for name in after})


def _recorded(llama: LlamaServer, folder: Path, locustfile: Path, *options: str) -> Recorded:
    # Prompts of their own: those of the sweep would be in the server's cache.
    proxy = RecordingProxy(llama.port)
    try:
        made = run(
            locustfile,
            proxy.url,
            folder / "run",
            "--llm-sweep",
            "2",
            "--llm-requests",
            "6",
            "--llm-seed",
            "7",
            *options,
        )
        return Recorded(made, proxy.said())
    finally:
        proxy.stop()


@pytest.fixture(scope="session")
def chat(llama: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """One user, so that the server does one thing at a time and its timings are those of one request."""
    lengths = ("--llm-input-tokens", "60,10", "--llm-output-tokens", "40,0")
    return _recorded(llama, tmp_path_factory.mktemp("chat"), SWEEP, "--llm-sweep", "1", *lengths)


@pytest.fixture(scope="session", params=["length", "stop"])
def finished(request: pytest.FixtureRequest, llama: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """One user's answers that all end at the cap, or by the model's own stop token."""
    ends = {
        "length": ("--llm-input-tokens", "60,10", "--llm-output-tokens", "60,0", "--llm-extra-body",
                   '{"ignore_eos": true}'),
        "stop": ("--llm-prompt", "Who are you?", "--llm-output-tokens", "300,0", "--llm-extra-body",
                 '{"temperature": 0}'),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp(str(request.param))
    return _recorded(llama, folder, SWEEP, "--llm-sweep", "1", *ends[request.param])


@pytest.fixture(scope="session")
def completions(llama: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    lengths = ("--llm-input-tokens", "40,5", "--llm-output-tokens", "24,4", "--llm-api", "completions")
    return _recorded(llama, tmp_path_factory.mktemp("completions"), SWEEP, *lengths)


@pytest.fixture(scope="session")
def conversation(llama: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Two users who talk in three turns each, with the answers that the model really gave in between."""
    return _recorded(
        llama, tmp_path_factory.mktemp("conversation"), CONVERSATIONS, "--llm-turns", "fixed:3",
        "--llm-think-time", "100ms", "--llm-warmup", "0", "--llm-input-tokens", "40,5", "--llm-output-tokens", "24,0",
    )  # fmt: skip


@pytest.fixture(scope="session")
def hung_up(llama: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Counted:
    """Clients that give half of their requests up in the middle of the answer."""
    made = run(
        CONVERSATIONS, llama.url, tmp_path_factory.mktemp("hung_up") / "run",
        "--llm-sweep", "2", "--llm-requests", "10", "--llm-seed", "9", "--llm-turns", "fixed:2",
        "--llm-think-time", "0", "--llm-input-tokens", "30,5", "--llm-output-tokens", "100,0",
        "--llm-extra-body", '{"ignore_eos": true}', "--llm-cancel", "0.5:300ms",
    )  # fmt: skip
    return Counted(made, llama.settled())
