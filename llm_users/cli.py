"""The command ``llm-bench``: Locust with the packaged locustfile of an API, and its subcommands.

Locust itself runs unchanged: ``llm-bench`` takes every option of ``locust`` and of the extension.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

CALIBRATE, QUICK = "calibrate", "quick"
_HINT = """llm-bench quick [URL]: measure a server in about a minute, and say what its users get.
llm-bench calibrate: find how many streams this machine can measure.
Their options: llm-bench quick --help, llm-bench calibrate --help"""

_LOCUSTFILES = {"messages": "messages.py", "converse": "bedrock.py", "invoke": "bedrock.py"}
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
    """Run Locust with the command line's arguments. Locust ends the process with its exit code."""
    if sys.argv[1:2] == [CALIBRATE]:
        from llm_users.calibration.command import main as calibrate

        sys.exit(calibrate(sys.argv[2:], locustfile()))
    if sys.argv[1:2] == [QUICK]:
        from llm_users.quick.command import main as quick

        sys.exit(quick(sys.argv[2:], locustfile()))
    # Almost nothing that a start creates is garbage, and looking for it takes a quarter of the CPU time of the imports.
    gc.disable()
    if not names_locustfile(sys.argv[1:]):
        sys.argv[1:1] = ["-f", str(locustfile(named_api(sys.argv[1:])))]
    from locust import events
    from locust.main import main as locust

    # Locust prints --help before it reads the locustfile, and the help must list the extension's options.
    import llm_users.extension  # noqa: F401

    events.init.add_listener(_end_start)
    events.init_command_line_parser.add_listener(_mention_calibrate)
    events.init_command_line_parser.add_listener(_bind_to_loopback)
    locust()


def _end_start(**_kwargs: Any) -> None:
    gc.freeze()  # the first collection would look at all modules
    gc.enable()


def _mention_calibrate(parser: Any, **_kwargs: Any) -> None:
    parser.epilog = f"{_HINT}\n\n{parser.epilog or ''}"


def _bind_to_loopback(parser: Any, **_kwargs: Any) -> None:
    """Serve the web interface on loopback only, unless --web-host, its variable or a configuration file sets a host."""
    parser.set_defaults(web_host="127.0.0.1")


if __name__ == "__main__":
    main()
