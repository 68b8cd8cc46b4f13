"""The command ``llm-bench quick``: measures a server in about a minute and says in three sentences what users get.

It finds the server, runs a sweep in a separate Locust process, prints a line per stage as it ends, and then the result.
The result does not depend on the caller's Locust options, environment variables or configuration files.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from llm_users.calibration.measured_run import locust_process
from llm_users.options.table import SIMULATOR_DEFAULTS, option_named
from llm_users.prices import Prices
from llm_users.quick.answer import LEGEND, cost, error_text, header, line, next_commands, notes, plan, sentences
from llm_users.quick.figures import StageFigures, first_failure, read_figures, usage_of
from llm_users.quick.server import LOCAL_PORTS, NoServer, Server, find_local, server_at
from llm_users.run_files import absolute, default_prefix
from llm_users.secrets import redact_start
from llm_users.simulator.launch import import_path
from llm_users.simulator.spec import Spec

FINE, NO_RESULT, INTERRUPTED = 0, 2, 130

_KEY_VARIABLE = "OPENAI_API_KEY"
_REMOVED_PREFIXES = ("LOCUST_", "OPENAI_")
_POLL_S = 0.2
_END_S = 30.0
"""Time for the requests in flight when the time of the sweep is over."""

_DEFAULTS = {"sweep": "1,2,4,8", "stage_time_s": "10s", "input_tokens": "550", "output_tokens": "150"}
"""Four stages take about a minute. Fixed lengths, because stages with a few requests are then comparable."""
_OPTIONS = ("model", "api", "prices", *_DEFAULTS)
_APIS = ("chat", "completions", "responses")

_DESCRIPTION = """\
Measures an OpenAI-compatible server in about a minute: a sweep of {sweep}
users, {stage_time_s} each, with {input_tokens} input tokens and up to {output_tokens} output tokens per
request. It prints a table, the result in three sentences, and the next command.

Without URL, it asks the usual ports of this machine and uses the first server
that lists models:
{ports}.
The key in {key} is sent only to a URL that you give.

Exit code 0: there is a result.
Exit code 2: the command found no server, or every request failed."""


def main(arguments: Sequence[str], locustfile: Path, ports: Mapping[int, str] = LOCAL_PORTS) -> int:
    """Run the command and return the exit code; ``locustfile`` is the file that the run uses."""
    options = _parser().parse_args(arguments)
    # SystemExit ends the run.
    old = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        return _run(options, locustfile, ports)
    except NoServer as error:
        print(error_text(str(error)), file=sys.stderr)
        return NO_RESULT
    except KeyboardInterrupt:
        print("\nllm-bench quick: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, old)


def _run(options: argparse.Namespace, locustfile: Path, ports: Mapping[int, str]) -> int:
    target, key = _target(options, ports)
    prefix = default_prefix()
    whole = Path(absolute(prefix))
    print(plan(*(getattr(options, name) for name in _DEFAULTS)), f"\n\n{header()}", sep="", flush=True)
    with tempfile.TemporaryDirectory(prefix="llm-bench-") as name, tempfile.TemporaryFile("w+") as log:
        command = ["-f", str(locustfile), "--headless", "--csv", str(whole), *target, *_settings(options)]
        with locust_process(command, Path(name), _environment(key), log) as process:
            _show_stages(whole, process.poll, _planned(options))
        problem = _problem(log)
    stages = read_figures(whole)
    good = [stage for stage in stages if stage.succeeded]
    if not good:
        reason = first_failure(whole) or problem or f"the run ended with exit code {process.returncode}"
        subject = "every request failed" if stages else "the run has no result"
        print(f"\n{error_text(f'{subject}: {reason}')}", file=sys.stderr)
        return NO_RESULT
    print(f"{LEGEND}\n\n{sentences(good)}")
    if options.prices:
        print(cost(usage_of(whole), Prices.read(Path(options.prices).expanduser())))
    for note in notes(stages, _planned(options), first_failure(whole)):
        print(note)
    print(f"\n{next_commands(good, target, prefix)}")
    return FINE


def _target(options: argparse.Namespace, ports: Mapping[int, str]) -> tuple[list[str], str]:
    """Return the options of the run that name the server and the model, and the key. Raises ``NoServer``."""
    model = [f"--llm-model={options.model}"] if options.model else []
    if options.simulator:
        print(f"Server: the simulated endpoint ({options.simulator})")
        spec = [] if options.simulator == SIMULATOR_DEFAULTS else [options.simulator]
        return ["--llm-simulator", *spec, *model], ""
    key = os.environ.get(_KEY_VARIABLE, "") if options.url else ""
    server = server_at(options.url, key, needs_models=not options.model) if options.url else find_local(ports)
    chosen = options.model or server.model()
    if not options.model and len(server.models) > 1:
        model = [f"--llm-model={chosen}"]  # one word, because the server can name a model like an option
    print(_introduction(server, chosen, given=bool(options.model)))
    return ["--host", server.url, *model], key


def _introduction(server: Server, model: str, *, given: bool) -> str:
    port = f" (the usual port of {server.port_of})" if server.port_of else ""
    others = len(server.models) - 1
    choice = f" (one of {others + 1}; choose with --llm-model)" if others > 0 and not given else ""
    return f"Server: {server.url}{port}\nModel: {model}{choice}"


def _settings(options: argparse.Namespace) -> list[str]:
    """Return the options of the run that do not name the server."""
    limit_s = _END_S + 1.5 * len(_planned(options)) * _parsed(options, "stage_time_s")
    api = [option_named("api").flag, options.api] if options.api else []
    return [
        *api,
        *(word for name in _DEFAULTS for word in (option_named(name).flag, getattr(options, name))),
        *("--llm-stop-on-errors", "0.99"),  # the following stages would fail too
        *("--run-time", f"{limit_s:.0f}s", "--stop-timeout", f"{_END_S:.0f}s"),
    ]


def _planned(options: argparse.Namespace) -> tuple[int, ...]:
    planned: tuple[int, ...] = _parsed(options, "sweep")
    return planned


def _parsed(options: argparse.Namespace, name: str) -> Any:
    return option_named(name).parse(getattr(options, name))


def _environment(key: str) -> dict[str, str]:
    """Return the environment of the run: without the caller's options, and with the key only for a given URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_REMOVED_PREFIXES)}
    return environment | import_path() | ({_KEY_VARIABLE: key} if key else {})


def _show_stages(prefix: Path, poll: Callable[[], int | None], planned: Sequence[int]) -> None:
    """Print a line per stage when it ends, and in a terminal the present stage, until the run ends."""
    shown, began_s, is_terminal = 0, time.monotonic(), sys.stderr.isatty()
    ended = False
    while not ended:
        ended = poll() is not None
        stages: list[StageFigures] = read_figures(prefix, complete_only=not ended)
        for stage in stages[shown:]:
            print(f"\r{line(stage)}" if is_terminal else line(stage), flush=True)
        shown = len(stages)
        if is_terminal and not ended and shown < len(planned):
            done = f"stage {shown + 1} of {len(planned)}, {time.monotonic() - began_s:.0f} s"
            print(f"\r{planned[shown]:>5}  {done}", end="", file=sys.stderr)
        if not ended:
            time.sleep(_POLL_S)
    if is_terminal:
        print(f"\r{'':40}\r", end="", file=sys.stderr)


def _problem(log: IO[str]) -> str:
    """Return the reason why a run was refused, from its error output."""
    log.seek(0)
    lines = [text.strip() for text in log.read()[-20_000:].splitlines() if text.strip()]
    reasons = [text for text in lines if text.startswith("locust-llm: ") or "/ERROR/" in text]
    return redact_start((reasons or lines or [""])[0].removeprefix("locust-llm: "), 500)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-bench quick",
        description=_DESCRIPTION.format(
            **_DEFAULTS,
            ports=", ".join(f"{program} {port}" for port, program in LOCAL_PORTS.items()),
            key=_KEY_VARIABLE,
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("url", nargs="?", metavar="URL", help="server to measure: http://HOST:8000 or the base URL")
    simulator = option_named("simulator")
    where.add_argument(
        simulator.flag,
        dest="simulator",
        nargs="?",
        const=SIMULATOR_DEFAULTS,
        type=_simulator_spec,
        metavar=simulator.metavar,
        help="measure the simulated endpoint instead: ttft=200ms,itl=20ms,capacity=8",
    )
    for name in _OPTIONS:
        option = option_named(name)
        default = _DEFAULTS.get(name)
        more = {"choices": _APIS} if name == "api" else {"metavar": option.metavar, "type": _checked(name)}
        help_text = option.help.split(". Default")[0] + (f". Default: {default}" if default else "")
        parser.add_argument(option.flag, dest=name, default=default, help=help_text.replace("%", "%%"), **more)
    return parser


def _checked(name: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        """Return the text unchanged after checking it as the run does."""
        try:
            option_named(name).parse(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None  # argparse shows only messages of this type
        return value

    return check


def _simulator_spec(value: str) -> str:
    try:
        if value != SIMULATOR_DEFAULTS:
            Spec.parse(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value
