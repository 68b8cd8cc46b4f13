"""Runs work in gevent's thread pool that must not block the event loop: reading files, counting tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import gevent

_Result = TypeVar("_Result")


def in_thread(work: Callable[[], _Result]) -> _Result:
    """Return or raise the result of ``work``, while the event loop continues.

    The pool passes an exception as a value, because gevent prints the traceback of every exception that leaves a pool
    function, even if the caller handles it.
    """

    def outcome() -> tuple[_Result, None] | tuple[None, BaseException]:
        try:
            return work(), None
        except BaseException as error:
            return None, error

    result, error = gevent.get_hub().threadpool.apply(outcome)
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
