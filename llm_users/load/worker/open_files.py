"""The limit of open files of this process: each connection of a user is an open file."""

from __future__ import annotations

import contextlib


def raise_limit() -> None:
    """Raise the soft limit of open files to the hard limit. Locust raises it to 10,000 at most.

    Nothing changes where the system has no such limit (Windows), or does not accept the hard limit (macOS, where it
    can be infinite).
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
