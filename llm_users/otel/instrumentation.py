"""Keeps Locust's automatic instrumentation of ``requests`` and ``urllib3`` away from this package's own requests.

The transport of this package uses neither library. botocore uses urllib3: for credentials, and for the requests of
``--llm-transport sdk``. Without this module, calls for credentials would carry a ``traceparent`` header, and requests
would have two spans.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def without_instrumentation() -> AbstractContextManager[None]:
    """Return a context in which requests are not instrumented, for example for an export."""
    try:
        from opentelemetry.instrumentation.utils import suppress_instrumentation
    except ImportError:  # nothing is instrumented
        return nullcontext()
    return suppress_instrumentation()


def exclude_botocore() -> None:
    """Switch the instrumentation off for all requests of botocore. Further calls have no effect."""
    from botocore.httpsession import URLLib3Session

    send = URLLib3Session.send
    if getattr(send, "is_excluded", False):
        return

    @functools.wraps(send)
    def send_without_instrumentation(*arguments: Any, **named: Any) -> Any:
        with without_instrumentation():
            return send(*arguments, **named)

    send_without_instrumentation.is_excluded = True  # type: ignore[attr-defined]
    URLLib3Session.send = send_without_instrumentation
