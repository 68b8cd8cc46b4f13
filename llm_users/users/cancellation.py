"""Clients that hang up: some requests, chosen by the seed and their number, are given up a while after they were sent.

Knows the exchange's t0 and the clock; not what becomes of the request.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from gevent import get_hub, getcurrent

from llm_users.outcome import CANCELLED
from llm_users.prompts.order import stream
from llm_users.transport.errors import TransportError
from llm_users.transport.exchange import Exchange
from llm_users.transport.sdk import SdkExchange

_NS = 1_000_000_000
_EARLIEST_S = 1e-6


class RequestCancelled(TransportError):
    """The client gave the request up."""

    code = CANCELLED


class Cancellation:
    """Raise ``RequestCancelled`` in the block ``after_s`` after t0. A t0 that is taken again starts the time again."""

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
        loop.update_now()  # a timer counts from the loop's last turn
        self._timer = loop.timer(max(_EARLIEST_S, seconds))
        self._timer.start(self._look)

    def _look(self) -> None:
        """In the hub: hang up, or wait on when the request has not been out for so long yet."""
        sent_ns = self._exchange.sent_ns
        if not sent_ns:
            self._wait(self._after_s)
            return
        left_s = self._after_s - (time.monotonic_ns() - sent_ns) / _NS
        if left_s > 0:
            self._wait(left_s)
        else:
            self._caller.throw(RequestCancelled(f"the client hung up after {self._after_s:g} s (--llm-cancel)"))


def is_chosen(seed: int, worker: int, request_id: str, share: float) -> bool:
    """Whether this request is one of the ``share`` that are given up: always the same for its number."""
    number = request_id.rpartition("-")[2]
    return stream(seed, "cancel", worker, number).random() < share
