"""The documentation says what the code does: generated pages are current, commands in the README can be given."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from llm_users.options import _OPTIONS
from llm_users.simulator.launch import launch

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]}
FAST = "ttft=5ms,itl=1ms"
# The commands as they are in a checkout, wherever the tests run.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "OPENAI_"))},
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}


def test_generated_pages_are_current() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    for name, text in pages.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, f"docs/{name} is old: run `make docs`"


def test_every_option_that_is_written_about_exists() -> None:
    known = {option.flag for option in _OPTIONS}
    for path, text in PAGES.items():
        # LLMPerf has an --llm-api too, and a trailing dash is a family of options.
        assert set(re.findall(r"--llm-[a-z-]*[a-z]", text)) <= known, path.name


def test_links_lead_somewhere() -> None:
    for path, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_make_targets_that_are_written_about_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {name for text in PAGES.values() for name in re.findall(r"`make ([a-z][a-z-]*)", text)}
    assert named <= targets


def commands(program: str) -> list[list[str]]:
    """The README's commands of one program: continued lines joined, variables in front of them taken off."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(re.sub(r"^([A-Z_]+=\S+ +)+", "", line), comments=True) for line in lines]
    return [found for found in words if found and found[0] == program]


@pytest.mark.parametrize("program", ["locust", "llm-bench"])
def test_readme_commands_parse(program: str) -> None:
    given = [words[1:] for words in commands(program)]
    assert given
    code = (
        "import sys, locust, llm_users.extension\n"
        "from locust.argument_parser import get_parser\n"
        "for line in sys.argv[1].splitlines():\n"
        "    import shlex; get_parser().parse_args(shlex.split(line))\n"
    )
    done = run(sys.executable, "-c", code, "\n".join(map(shlex.join, given)), cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_locustfiles_in_readme_commands_exist() -> None:
    named = set(re.findall(r"locustfiles/\w+\.py", README))
    assert named
    assert all((ROOT / name).is_file() for name in named)


def test_the_readme_locustfile_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    locustfile = tmp_path / "my_locustfile.py"
    locustfile.write_text(next(block for block in blocks if "(OpenAIUser)" in block))
    assert run_locustfile(locustfile, tmp_path).returncode == 0


@pytest.mark.parametrize("name", ["chat.py", "listener.py"])
def test_an_example_runs_as_it_is(name: str, tmp_path: Path) -> None:
    done = run_locustfile(ROOT / "locustfiles" / name, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "out" / "run_llm_requests.csv").read_text().splitlines()
    assert len(rows) > 4
    if name == "listener.py":
        assert "the slowest requests:" in done.stdout
        assert re.search(r"^\w+-0-\d+: \d+\.\d\d s, first token after 0\.\d+ s, \d+ tokens", done.stdout, re.MULTILINE)


def run_locustfile(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return run(
        "locust", "-f", str(path), "--headless", "--only-summary", "-u", "2", "-r", "2", "--llm-requests", "4",
        "--llm-input-tokens", "30,5", "--llm-output-tokens", "8,2", "--llm-warmup", "0", "--llm-simulator", FAST,
        "--csv", "out/run", cwd=folder,
    )  # fmt: skip


def test_llm_bench_lists_the_extensions_options() -> None:
    done = run("llm-bench", "--help", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert {option.flag for option in _OPTIONS} <= set(re.findall(r"--llm-[a-z-]+", done.stdout))


def test_llm_bench_is_locust_with_the_packaged_locustfile(tmp_path: Path) -> None:
    done = run(
        "llm-bench", "--headless", "--only-summary", "--llm-simulator", FAST, "--llm-sweep", "1,2",
        "--llm-requests", "2", "--llm-input-tokens", "30,5", "--llm-output-tokens", "8,2", "--csv", "out/run",
        "--llm-report", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Time to First Token (seconds)" in done.stdout
    assert (tmp_path / "out" / "run_report" / "summary.csv").is_file()


def test_llm_bench_takes_another_locustfile(tmp_path: Path) -> None:
    done = run("llm-bench", "-f", str(ROOT / "locustfiles" / "chat.py"), "--list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Chat" in done.stdout
    assert "SweepUser" not in done.stdout


def test_llm_bench_opens_the_web_interface_when_nothing_else_is_asked_for(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["llm-bench", "--web-host", "127.0.0.1", "--web-port", str(port)]
    with launch(FAST, max_seconds=60) as simulator:
        process = subprocess.Popen(
            [*command, "--host", simulator.url], cwd=tmp_path, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            page = fetch(f"http://127.0.0.1:{port}/")
        finally:
            process.terminate()
            process.wait(timeout=20)
    assert "llm_sweep" in page


def fetch(url: str) -> str:
    limit = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
