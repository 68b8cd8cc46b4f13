"""Work in gevent's pool of threads, for what must not hold up the event loop: reading files, counting tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import gevent

_Result = TypeVar("_Result")


def in_thread(work: Callable[[], _Result]) -> _Result:
    """What ``work`` returns or raises, while the event loop goes on.

    An exception travels as a value: gevent prints the traceback of every exception that leaves a function of its pool,
    also where the caller handles it and has one line to say.
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
