"""The command ``llm-bench``: Locust with the packaged locustfile of an API, and its subcommands.

``llm-bench`` takes every option of ``locust`` and of the extension. It differs from ``locust`` in its help, in the load
of a headless run without any option about load, and in the tables that it prints.
"""

from __future__ import annotations

import gc
import logging
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_users._version import __version__

logger = logging.getLogger(__name__)

CALIBRATE, QUICK = "calibrate", "quick"
DEFAULT_SWEEP = "1,2,4,8"
"""The load of a headless run in which no source of options defines a load."""

_UNUSABLE, _INTERRUPTED = 2, 130
_LOCUSTS_UNUSABLE = (1, -1)
"""Locust's exit codes for options and locustfiles that cannot be used."""

_LOCUSTFILES = {
    "messages": "messages.py",
    "converse": "bedrock.py",
    "invoke": "bedrock.py",
    "bedrock-chat": "bedrock_openai.py",
    "bedrock-responses": "bedrock_openai.py",
    "bedrock-messages": "bedrock_messages.py",
}
"""Keys are values of ``--llm-api``. All other APIs use ``sweep.py``, which supports all OpenAI APIs."""


def locustfile(api: str = "") -> Path:
    """Return the path of the locustfile for an API, inside the installed package or beside the package in a checkout.

    Raises ``FileNotFoundError`` if the installation has no such file.
    """
    name = _LOCUSTFILES.get(api, "sweep.py")
    package = Path(__file__).resolve().parent
    for folder in (package / "locustfiles", package.parent / "locustfiles"):
        path = folder / name
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is not in {package}: the installation is damaged, install it again")


def named_api(arguments: list[str]) -> str:
    """Return the value of ``--llm-api`` before Locust reads its options, or "" if the option is not given.

    Like Locust's parser, this function also reads the environment and configuration files. Locust's parser validates
    the value later.
    """
    from locust.argument_parser import get_empty_argument_parser

    from llm_users.options.table import option_named

    api = option_named("api")
    parser = get_empty_argument_parser(add_help=False)
    parser.allow_abbrev = False
    parser.add_argument(api.flag, dest=api.dest, nargs="?", env_var=api.variable)
    parsed, _others = parser.parse_known_args(arguments)
    return getattr(parsed, api.dest) or ""


def names_locustfile(arguments: list[str]) -> bool:
    """Return whether the arguments contain ``-f`` or ``--locustfile`` in any form that Locust accepts."""
    return any(
        argument in ("-f", "--locustfile")
        or argument.startswith("--locustfile=")
        or (argument.startswith("-f") and not argument.startswith("--"))
        for argument in arguments
    )


def main() -> None:
    """Run the command. Ctrl-C during the start, before Locust handles it, ends the process with one line."""
    process = os.getpid()
    try:
        _run()
    except KeyboardInterrupt:
        if os.getpid() == process:  # the workers of --processes leave the line to their parent
            print("llm-bench: interrupted before the run started", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def _run() -> None:
    """Run Locust with the command line's arguments. Locust ends the process with its exit code."""
    if sys.argv[1:2] == [CALIBRATE]:
        from llm_users.calibration.command import main as calibrate

        sys.exit(calibrate(sys.argv[2:], locustfile()))
    if sys.argv[1:2] == [QUICK]:
        from llm_users.quick.command import main as quick

        sys.exit(quick(sys.argv[2:], locustfile()))
    if {"-h", "--help"} & {*sys.argv[1:]}:
        from llm_users.options.short_help import short_help

        print(short_help())
        return
    if {"-V", "--version"} & {*sys.argv[1:]}:
        from importlib.metadata import version

        print(f"llm-bench {__version__} (Locust {version('locust')}, Python {platform.python_version()})")
        return
    # Almost nothing that a start creates is garbage, and looking for it takes a quarter of the CPU time of the imports.
    gc.disable()
    packaged = not names_locustfile(sys.argv[1:])
    if packaged:
        sys.argv[1:1] = ["-f", str(locustfile(named_api(sys.argv[1:])))]
    from gevent.hub import Hub
    from locust import events
    from locust.main import main as locust

    # Locust prints the help before it reads the locustfile, and the help must list the extension's options.
    import llm_users.extension  # noqa: F401

    Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)  # it is handled, and gevent would print it
    start = _Start()
    events.init.add_listener(_end_start)
    events.init.add_listener(_print_no_tables_of_locust)
    events.init.add_listener(start.on_init)
    events.init_command_line_parser.add_listener(start.on_parser)
    events.init_command_line_parser.add_listener(_change_help)
    events.init_command_line_parser.add_listener(_bind_to_loopback)
    if packaged:  # a locustfile of the user may have its own load
        sweep = DefaultSweep()
        events.init_command_line_parser.add_listener(sweep.on_parser)
        events.init.add_listener(sweep.on_init)
    start.run(locust)


class _Start:
    """Runs Locust. Until its ``init`` event, an error means that its options or the locustfile cannot be used."""

    def __init__(self) -> None:
        self._has_locustfile = self._is_over = False

    def on_parser(self, **_kwargs: Any) -> None:
        """Note that Locust parses its options, which it does after it has loaded the locustfile."""
        self._has_locustfile = True

    def on_init(self, **_kwargs: Any) -> None:
        self._is_over = True

    def run(self, locust: Callable[[], None]) -> None:
        try:
            locust()
        except SystemExit as end:
            if self._is_over or end.code not in _LOCUSTS_UNUSABLE:
                raise
            sys.exit(_UNUSABLE)  # Locust has printed why
        except Exception as error:
            if self._has_locustfile:
                raise
            from llm_users.wiring.locustfile_errors import describe

            print(f"llm-bench: error: {describe(error)}", file=sys.stderr)
            sys.exit(_UNUSABLE)


def _end_start(**_kwargs: Any) -> None:
    gc.freeze()  # the first collection would look at all modules
    gc.enable()


def _print_no_tables_of_locust(environment: Any, **_kwargs: Any) -> None:
    """Leave out Locust's tables of milliseconds unless ``--print-stats`` asks for them."""
    from locust import stats

    if not environment.parsed_options.print_stats:
        stats.print_stats = _print_nothing
        stats.print_percentile_stats = _print_nothing


def _print_nothing(*_args: Any, **_kwargs: Any) -> None:
    pass


def _change_help(parser: Any, **_kwargs: Any) -> None:
    from llm_users.options.short_help import EXAMPLES, HELP_ALL, USAGE

    parser.add_argument(HELP_ALL, action="help", help="Show this help message and exit")
    parser.description, parser.epilog = USAGE, EXAMPLES


def _bind_to_loopback(parser: Any, **_kwargs: Any) -> None:
    """Serve the web interface on loopback only, unless --web-host, its variable or a configuration file sets a host."""
    parser.set_defaults(web_host="127.0.0.1")


class DefaultSweep:
    """Makes a headless run a sweep if neither the command line nor a variable nor a file defines its load."""

    def __init__(self) -> None:
        self._chosen = False

    def on_parser(self, parser: Any, **_kwargs: Any) -> None:
        """Change the options after they are parsed, because only then all their sources are known."""
        from llm_users.options.table import STAGING

        parse, loads = parser.parse_args, (*STAGING, "num_users", "spawn_rate", "run_time")

        def parse_args(*args: Any, **kwargs: Any) -> Any:
            parsed = parse(*args, **kwargs)
            if parsed.headless and not parsed.worker and not any(getattr(parsed, name) for name in loads):
                self._chosen, parsed.llm_sweep = True, DEFAULT_SWEEP
            return parsed

        parser.parse_args = parse_args

    def on_init(self, environment: Any, **_kwargs: Any) -> None:
        """Say what was chosen, when Locust has set up the log. The workers of ``--processes`` say nothing."""
        if self._chosen and not environment.parsed_options.worker:
            logger.info(
                "no option defines the load, so this run sweeps %s users; choose with --llm-sweep, --llm-rate, "
                "--llm-find, --llm-trace or -u",
                DEFAULT_SWEEP,
            )


if __name__ == "__main__":
    main()
