"""The commands and locustfiles that the documentation shows, as something that a test can run.

A command runs as it is written, in a folder of its own, except for what a reader would put in its place: see
``STAND_INS``. Options given twice count as the last one, so everything is appended.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.ports import free_port, master_ports
from tests.project import ROOT

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
}
FAST = "ttft=5ms,itl=1ms"
LOCUST = ("locust", "llm-bench")
PROGRAMS = (*LOCUST, "llm-report", "llm-simulator", "make")

# Option: its value in the test. HOST and friends cannot be reached, and nobody wants to wait for 100 requests.
STAND_INS = {
    "--host": "{simulator}",
    "--llm-model": "simulated",
    "--llm-simulator": FAST,
    "--llm-sweep": "1,2",
    "--llm-stage-time": "1s",
    "--llm-rate": "10,20",
    "--llm-find": "e2e_mean<10",  # four requests decide no percentile
    "--run-time": "2s",
    "-t": "2s",
    "-u": "2",
    "-r": "2",
    "--processes": "2",
    "--expect-workers": "2",
}
# What every run gets besides, to be short.
SHORT = ("--llm-requests", "4", "--llm-input-tokens", "30,5", "--llm-output-tokens", "8,2", "--llm-ramp", "0.1s",
         "--only-summary")  # fmt: skip
# The same for `llm-bench calibrate`, which would climb for minutes and is not judged here.
SMALL_LADDER = ("--streams", "2", "--tokens", "4", "--error", "10s")
# The same for `llm-bench quick`, which takes a minute.
SHORT_QUICK = ("--llm-sweep", "1,2", "--llm-stage-time", "1s", "--llm-input-tokens", "30", "--llm-output-tokens", "8")
SUBCOMMANDS = {"calibrate", "quick"}
"""Words after `llm-bench` whose options Locust's parser does not read."""
# Content of files that a command names and that are the reader's own, by option.
FILES = {
    "--llm-prompts": '{"prompt": "Name a river."}\n',
    "--llm-conversations": '{"turns": ["Name a river.", "How long is it?"]}\n',
    "--llm-trace": '{"timestamp": 0, "input_length": 600, "output_length": 4, "hash_ids": [1, 2]}\n',
    "--llm-prices": '{"models": {"claude-3-haiku": {"input": 0.25, "output": 1.25}}}',
}
BEDROCK = "locustfiles/bedrock.py"
"""Models are left as they are where this runs: their ids say what to ask for."""
# The same where a column of a table is named behind the file.
TABLE = "question\nName a river.\n"
# Files that locustfiles of the pages read.
PICTURES = {"cat.png": b"\x89PNG\r\n\x1a\n"}
A_RUN = "out/run"
"""Stands for the INPUT of llm-report when that does not exist: a finished run in the command's folder."""

# Commands that are only parsed, by page or by program, and why. Those of a page that bring the simulated endpoint along
# or ask this machine are run all the same.
ONLY_PARSED = {
    "make": "each is a job of minutes, or the test suite itself; targets and variables are looked up",
    "docs/reports.md": "shows gates that fail, and needs runs of hundreds of requests; tests/unit runs them",
}

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "OPENAI_", "AWS_"))},
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    # The commands as they are in a checkout, wherever the tests run.
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}
_LOCAL = "http://127.0.0.1:"
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str
    block: int
    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"

    @property
    def program(self) -> str:
        return self.words[0]

    @property
    def why_not_run(self) -> str | None:
        nothing_needed = "--llm-simulator" in self.words or any(word.startswith(_LOCAL) for word in self.words)
        return ONLY_PARSED.get(self.program) or (None if nothing_needed else ONLY_PARSED.get(self.page))


@dataclass
class Outcome:
    """What became of a command."""

    code: int | None
    out: str = ""
    err: str = ""


@dataclass
class Site:
    """Where commands run: a folder with the checkout's locustfiles and a finished run, and an endpoint."""

    folder: Path
    simulator: str
    environment: dict[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))

    def run(self, words: list[str]) -> Outcome:
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


def commands() -> list[Command]:
    """The commands of this project in all fenced ``sh`` blocks."""
    found = []
    for page, text in PAGES.items():
        for number, block in enumerate(_blocks(text, "sh")):
            exported: tuple[tuple[str, str], ...] = ()
            for line in _simple_commands(block):
                variables, words = _leading_variables(line)
                if words and words[0] == "export":
                    exported += _leading_variables(words[1:])[0]
                elif words and words[0] in PROGRAMS:
                    found.append(Command(page, number, tuple(words), exported + variables))
    return found


def locustfiles() -> list[tuple[str, str]]:
    """(page and number, text) of the ``python`` blocks that are locustfiles or scripts with users."""
    return [
        (f"{page} python {number}", block)
        for page, text in PAGES.items()
        for number, block in enumerate(_blocks(text, "python"), 1)
        if any(
            f"({name}):" in block
            for name in (
                "OpenAIUser",
                "AnthropicUser",
                "BedrockUser",
                "ConversationUser",
                "ConversationMixin, AnthropicUser",
            )
        )
    ]


def prepare(folder: Path, run: Path, simulator: str) -> Site:
    """A folder to run commands in; ``run`` is the folder with a finished run."""
    shutil.copytree(run, folder)
    for name in ("locustfiles", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    return Site(folder, simulator)


def run_block(block: list[Command], site: Site) -> dict[Command, Outcome]:
    """A block's commands one after the other, as a reader gives them; a master together with its workers."""
    outcomes: dict[Command, Outcome] = {}
    workers = [command for command in block if "--worker" in command.words]
    for command in block:
        if command in workers:
            continue
        # Keys are made up: nothing real is asked.
        names = [name for name, _ in command.variables] + header_variables(command)
        site.environment = {
            **ENVIRONMENT, **dict.fromkeys(names, "made-up"), **_certificates(command, site), **_profile(site),
        }  # fmt: skip
        if "--master" in command.words:
            outcomes.update(_run_distributed(command, workers, site))
        else:
            outcomes[command] = _run(command, site)
    return outcomes


def header_variables(command: Command) -> list[str]:
    """The environment variables that its headers come from."""
    return [word.partition("=")[2] for before, word in _pairs(command.words) if before == "--llm-header-env"]


def parse_arguments(command: Command, site: Site) -> list[str]:
    """A Locust command's arguments for its parser alone; files that are the reader's own exist."""
    _write_files(command, site)
    return list(command.words[1:])


def _run(command: Command, site: Site) -> Outcome:
    if command.program == "llm-report":
        inputs = [A_RUN if _is_missing(word, before, site) else word for before, word in _pairs(command.words)]
        return site.run([command.program, *inputs])
    if command.program == "llm-simulator":
        return site.run([*command.words, "--port", "0", "--max-seconds", "0.2"])
    if "calibrate" in command.words:
        site.environment["LOCUST_LLM_CALIBRATION"] = str(site.folder / "calibration.json")
        return site.run([*command.words, *SMALL_LADDER])
    if "quick" in command.words:
        server = ["--llm-simulator", FAST] if "--llm-simulator" in command.words else [site.simulator]
        return site.run([*command.words[:2], *server, *SHORT_QUICK])
    words = _shortened(command, site)
    if "--processes" in words:
        words += master_ports()
    if "--headless" in words:
        return site.run(words)
    return _run_with_web(words, site)


def _shortened(command: Command, site: Site) -> list[str]:
    _write_files(command, site)
    given = [word.partition("=")[0] for word in command.words]
    stand_ins = [[option, value.format(simulator=site.simulator)] for option, value in STAND_INS.items()
                 if option in given and not (option == "--llm-model" and BEDROCK in given)]  # fmt: skip
    if BEDROCK in given and not {"--host", "--llm-simulator"} & set(given):
        stand_ins.append(["--host", site.simulator])  # instead of AWS
    if "--llm-find" in given and "--llm-stage-time" not in given:
        stand_ins.append(["--llm-stage-time", STAND_INS["--llm-stage-time"]])  # in place of at least 30 s
    return [*command.words, *itertools.chain.from_iterable(stand_ins), *SHORT]


def _run_with_web(words: list[str], site: Site) -> Outcome:
    """The web interface opens with the extension's options in its form."""
    port = str(free_port())
    process = site.start([*words, "--web-host", "127.0.0.1", "--web-port", port])
    page = ""
    try:
        page = fetch(f"http://127.0.0.1:{port}/")
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = _ended(process)
    return Outcome(0 if "llm_sweep" in page else None, out, err)


def _run_distributed(master: Command, workers: list[Command], site: Site) -> dict[Command, Outcome]:
    port = str(free_port())
    running = [(master, site.start([*_shortened(master, site), "--master-bind-port", port]))]
    for worker in itertools.islice(itertools.cycle(workers), int(STAND_INS["--expect-workers"])):
        words = [*worker.words, "--master-host", "127.0.0.1", "--master-port", port]
        running.append((worker, site.start(words)))
    outcomes = {}
    for command, process in running:
        out, err = _ended(process)
        outcomes[command] = Outcome(process.returncode, out, err)
    return outcomes


def _ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def fetch(url: str) -> str:
    """The page at this address, as soon as there is one."""
    limit = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def _simple_commands(block: str) -> Iterator[list[str]]:
    """Words of each command: continued lines joined, comments left out, lines split at the shell's operators."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if word in ("&&", "||", ";", "&", "|"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def _leading_variables(words: list[str]) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    assignments = list(itertools.takewhile(re.compile(r"[A-Z][A-Z0-9_]*=").match, words))
    pairs = [word.partition("=") for word in assignments]
    return tuple((name, value) for name, _, value in pairs), words[len(assignments) :]


def _write_files(command: Command, site: Site) -> None:
    for option, word in _pairs(command.words):
        file, column, _ = word.partition(".csv:")
        path = site.folder / (f"{file}.csv" if column else word)
        if option in FILES and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(TABLE if column else FILES[option])


def _certificates(command: Command, site: Site) -> dict[str, str]:
    """The reader's own authority and client certificate, where a command names such files."""
    variables = {name: value for name, value in command.variables if name == "SSL_CERT_FILE"}
    authority = trustme.CA()
    for name in variables.values():
        authority.cert_pem.write_to_path(str(site.folder / name))
    for option, word in _pairs(command.words):
        if option == "--llm-client-cert":
            certificate, key = word.split(",")
            client = authority.issue_cert("client.example")
            client.cert_chain_pems[0].write_to_path(str(site.folder / certificate))
            client.private_key_pem.write_to_path(str(site.folder / key))
    return variables


def _profile(site: Site) -> dict[str, str]:
    """A reader's AWS profile; its name is the made-up one that every variable gets."""
    config = site.folder / "aws.ini"
    config.write_text("[profile made-up]\naws_access_key_id = made-up\naws_secret_access_key = made-up\n")
    return {"AWS_CONFIG_FILE": str(config)}


def _pairs(words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each word behind the program, with the one before it."""
    return itertools.pairwise(words)


def _is_missing(word: str, before: str, site: Site) -> bool:
    """True for an INPUT of llm-report that does not exist in the folder."""
    is_value = before in (
        "--out",
        "--format",
        "--framework",
        "--model",
        "--slo",
        "--slo-stage",
        "--prices",
    )
    return not word.startswith("-") and not is_value and not list(site.folder.glob(f"{word}*"))
