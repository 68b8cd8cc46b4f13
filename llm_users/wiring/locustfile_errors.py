"""The text for a locustfile that cannot be loaded: one line with the place, instead of Locust's own traceback."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from pathlib import Path

from llm_users.secrets import redact

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def describe(error: Exception) -> str:
    """Return where the code of the user failed while Locust loaded a locustfile, why, and what to do."""
    if isinstance(error, SyntaxError) and error.filename:
        code = f": {error.text.strip()}" if error.text else ""
        return redact(f"{_near(error.filename)}, line {error.lineno}: {type(error).__name__}: {error.msg}{code}")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_of_user(frame.filename)]
    place = f"{_near(frames[-1].filename)}, line {frames[-1].lineno}" if frames else "the locustfile"
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, ModuleNotFoundError):
        advice = f". Check the name, or install the package for {sys.executable}"
    else:
        advice = f". For the traceback, run: python {_near(frames[0].filename)}" if frames else ""
    return redact(f"{place}: {reason}{advice}")


def _is_of_user(name: str) -> bool:
    """Return whether a file is neither generated code nor part of Python, a library or this package."""
    package = str(Path(__file__).resolve().parents[1]) + os.sep
    return name.endswith(".py") and not name.startswith(("<", package, *_LIBRARIES)) and "site-packages" not in name


def _near(name: str) -> str:
    """Return the path relative to the working directory if it is below it."""
    path = Path(name)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else name
