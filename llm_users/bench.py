"""The command ``llm-bench``: Locust with the packaged sweep locustfile; every option is Locust's or the extension's.

Locust itself is started unchanged, so whatever ``locust`` takes, ``llm-bench`` takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

_LOCUSTFILE = "sweep.py"


def locustfile() -> Path:
    """The sweep locustfile: inside the installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "locustfiles", package.parent / "locustfiles"):
        path = folder / _LOCUSTFILE
        if path.is_file():
            return path
    raise FileNotFoundError(f"{_LOCUSTFILE} is not in {package}: the installation is damaged, install it again")


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
    if not names_locustfile(sys.argv[1:]):
        sys.argv[1:1] = ["-f", str(locustfile())]
    from locust.main import main as locust

    # Locust answers --help before it reads the locustfile; the extension's options must be in that answer.
    import llm_users.extension  # noqa: F401

    locust()


if __name__ == "__main__":
    main()
