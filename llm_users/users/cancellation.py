"""Cancel a fraction of requests a given time after they are sent (``--llm-cancel``).

The seed and the request number select the requests. The module uses the exchange's t0 and the clock; it does not
handle the outcome of the request.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from gevent import get_hub, getcurrent

from llm_users.options.table import Options
from llm_users.outcome import CANCELLED
from llm_users.prompts.draws import stream
from llm_users.transport.errors import TransportError
from llm_users.transport.exchange import Exchange, SdkExchange

_NS = 1_000_000_000
_EARLIEST_S = 1e-6
_NO_CANCELLATION = nullcontext()


class RequestCancelled(TransportError):
    """The client cancelled the request."""

    code = CANCELLED


class Cancellation:
    """Raise ``RequestCancelled`` in the ``with`` block ``after_s`` seconds after t0. A new t0 restarts the time."""

    def __init__(self, exchange: Exchange | SdkExchange, after_s: float) -> None:
        self._exchange = exchange
        self._after_s = after_s
        self._timer: Any = None
        self._caller: Any = None

    def __enter__(self) -> None:
        self._caller = getcurrent()
        self._wait(self._after_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.stop()
        self._timer.close()

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        loop = get_hub().loop
        loop.update_now()  # a timer counts from the last iteration of the loop
        self._timer = loop.timer(max(_EARLIEST_S, seconds))
        self._timer.start(self._check)

    def _check(self) -> None:
        """In the hub: cancel the request, or wait again if less than ``after_s`` has passed since t0."""
        sent_ns = self._exchange.sent_ns
        if not sent_ns:
            self._wait(self._after_s)
            return
        remaining_s = self._after_s - (time.monotonic_ns() - sent_ns) / _NS
        if remaining_s > 0:
            self._wait(remaining_s)
        else:
            message = f"the client cancelled the request after {self._after_s:g} s (--llm-cancel)"
            self._caller.throw(RequestCancelled(message))


def cancellation(
    options: Options, worker: int, request_id: str, exchange: Exchange | SdkExchange
) -> AbstractContextManager[None]:
    """Return the cancellation of this request, which does nothing for requests that ``--llm-cancel`` does not select.

    The selection depends only on the seed, the worker and the number of the request.
    """
    if options.cancel is None:
        return _NO_CANCELLATION
    share, after_s = options.cancel
    number = request_id.rpartition("-")[2]
    chosen = stream(options.seed, "cancel", worker, number).random() < share
    return Cancellation(exchange, after_s) if chosen else _NO_CANCELLATION
