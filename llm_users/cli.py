"""The command ``llm-bench``: Locust with the packaged locustfile of an API, and ``llm-bench calibrate``.

Every option is Locust's or the extension's.

Locust itself is started unchanged, so whatever ``locust`` takes, ``llm-bench`` takes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

CALIBRATE = "calibrate"
_HINT = "llm-bench calibrate: how many streams this machine's load processes can measure; it has a --help of its own"

_LOCUSTFILES = {"messages": "messages.py", "converse": "bedrock.py", "invoke": "bedrock.py"}
"""By --llm-api; OpenAI's are all in ``sweep.py``."""


def locustfile(api: str = "") -> Path:
    """The locustfile of an API: inside the installed package, or beside the package in a checkout."""
    name = _LOCUSTFILES.get(api, "sweep.py")
    package = Path(__file__).resolve().parent
    for folder in (package / "locustfiles", package.parent / "locustfiles"):
        path = folder / name
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is not in {package}: the installation is damaged, install it again")


def named_api(arguments: list[str]) -> str:
    """What --llm-api says, on the command line or else in its variable; empty when nothing does."""
    named = os.environ.get("LOCUST_LLM_API", "")
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if argument == "--llm-api":
            named = following
        elif argument.startswith("--llm-api="):
            named = argument.partition("=")[2]
    return named


def names_locustfile(arguments: list[str]) -> bool:
    """True when -f or --locustfile is among the arguments, in any of the forms that Locust takes."""
    return any(
        argument in ("-f", "--locustfile")
        or argument.startswith("--locustfile=")
        or (argument.startswith("-f") and not argument.startswith("--"))
        for argument in arguments
    )


def main() -> None:
    """Run Locust on the command line's arguments; it ends the process with its exit code."""
    if sys.argv[1:2] == [CALIBRATE]:
        from llm_users.calibration.command import main as calibrate

        sys.exit(calibrate(sys.argv[2:], locustfile()))
    if not names_locustfile(sys.argv[1:]):
        sys.argv[1:1] = ["-f", str(locustfile(named_api(sys.argv[1:])))]
    from locust import events
    from locust.main import main as locust

    # Locust answers --help before it reads the locustfile; the extension's options must be in that answer.
    import llm_users.extension  # noqa: F401

    events.init_command_line_parser.add_listener(_mention_calibrate)
    events.init_command_line_parser.add_listener(_bind_to_loopback)
    locust()


def _mention_calibrate(parser: Any, **_kwargs: Any) -> None:
    parser.epilog = f"{_HINT}\n\n{parser.epilog or ''}"


def _bind_to_loopback(parser: Any, **_kwargs: Any) -> None:
    """Serve the web interface to this machine only unless --web-host, its variable or a file says otherwise."""
    parser.set_defaults(web_host="127.0.0.1")


if __name__ == "__main__":
    main()
