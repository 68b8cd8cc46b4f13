"""A timer over one request, which ends the request when a time has passed since its bytes were sent or read.

The stall limit and the cancellation of a request are such timers.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from gevent import get_hub, getcurrent

from llm_users.transport import clock
from llm_users.transport.errors import TransportError
from llm_users.transport.exchange import Exchange, SdkExchange

_NS = 1_000_000_000
_EARLIEST_S = 1e-6


class RequestTimer:
    """Raise an error in the ``with`` block when ``timeout_s`` seconds have passed since ``since_ns``.

    The timer is not restarted at each read: when it fires, it waits for the rest of the time. So a request costs one
    timer per ``timeout_s``, and a token costs nothing. While the connection is made, which has its own limit, the timer
    waits.
    """

    def __init__(self, exchange: Exchange | SdkExchange, timeout_s: float) -> None:
        self.exchange = exchange
        self.timeout_s = timeout_s
        self._timer: Any = None
        self._caller: Any = None

    def since_ns(self) -> int:
        """Return the time from which the seconds count. The default is t0; a new t0 restarts the time."""
        return self.exchange.sent_ns

    def error(self) -> TransportError:
        """Return the error that ends the request."""
        raise NotImplementedError

    def __enter__(self) -> None:
        self._caller = getcurrent()
        self._wait(self.timeout_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.stop()
        self._timer.close()

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        self._timer = get_hub().loop.timer(max(_EARLIEST_S, seconds), priority=-1)  # after reads of the same iteration
        self._timer.start(self._check, update=True)

    def _check(self) -> None:
        """In the hub: end the request, or wait for the rest of the time."""
        if not self.exchange.sent_ns:
            self._wait(self.timeout_s)
            return
        rest_s = self.timeout_s - (clock.now_ns() - self.since_ns()) / _NS
        if rest_s > 0:
            self._wait(rest_s)
        else:
            self._caller.throw(self.error())
