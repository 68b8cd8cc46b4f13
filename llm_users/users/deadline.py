"""The time limits of a request: its deadline, and the longest time without bytes.

Each is one timer, whose error is created only when the time is over. ``gevent.Timeout`` with an exception takes 0.5 kB
more, and a process can have 10,000 requests that wait.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from gevent import get_hub, getcurrent

from llm_users.transport.errors import DeadlineExceeded, Stalled
from llm_users.transport.exchange import Exchange, SdkExchange
from llm_users.users.request_timer import RequestTimer

_NO_LIMIT = nullcontext()


class Deadline:
    """Raise ``DeadlineExceeded`` in the ``with`` block after ``timeout_s`` seconds."""

    __slots__ = ("_timeout_s", "_timer")

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._timer: Any = None

    def __enter__(self) -> None:
        self._timer = get_hub().loop.timer(self._timeout_s, priority=-1)  # after reads of the same iteration
        self._timer.start(_expire, getcurrent(), self._timeout_s, update=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.stop()
        self._timer.close()


def _expire(caller: Any, timeout_s: float) -> None:
    """In the hub: end the wait of the caller."""
    caller.throw(DeadlineExceeded(f"no complete answer within {timeout_s:g} s (--llm-timeout)"))


def stall_limit(exchange: Exchange | SdkExchange, timeout_s: float | None) -> AbstractContextManager[None]:
    """Return a context that raises ``Stalled`` when no bytes arrive for ``timeout_s``, or that does nothing if None."""
    return _NO_LIMIT if timeout_s is None else _StallLimit(exchange, timeout_s)


class _StallLimit(RequestTimer):
    """Raise ``Stalled`` in the ``with`` block when nothing was read for ``timeout_s`` seconds after t0."""

    def since_ns(self) -> int:
        return max(self.exchange.sent_ns, self.exchange.last_read_ns)

    def error(self) -> Stalled:
        return Stalled(f"the server sent nothing for {self.timeout_s:g} s (--llm-stall-timeout)")
