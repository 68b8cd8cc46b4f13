"""Import httpcore2, the HTTP stack of the SDKs (``--llm-transport sdk``), without trio.

httpcore2 imports trio if it is installed, although only asynchronous clients use it. Trio cannot be imported after
gevent's patch, which removes ``select.epoll``.
"""

from __future__ import annotations

import importlib
import sys

_TRIO = "trio"


def import_httpcore() -> None:
    """Import httpcore2. A program that has imported trio itself keeps it."""
    hidden = _TRIO not in sys.modules
    if hidden:
        sys.modules[_TRIO] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        importlib.import_module("httpcore2")
    finally:
        if hidden:
            del sys.modules[_TRIO]
