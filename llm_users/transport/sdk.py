"""The SDK's own HTTP stack behind the exchange's face, for comparison (``--llm-transport sdk``).

Stamps are the monotonic clock when the SDK hands bytes over; connection handling is the SDK's and cannot be seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent

from llm_users.transport import clock
from llm_users.transport.errors import ConnectionLost, ResponseCut
from llm_users.transport.exchange import LINGER_S, Arrival


class SdkExchange:
    """Stamps of one request that the SDK sends by itself. Set ``body`` to the SDK's raw response when it has come."""

    connect_started_ns = 0
    connect_ns = 0
    reconnects = 0

    def __init__(self) -> None:
        self.body: Any = None  # httpx2.Response, unread
        self.sent_ns = 0
        self.sent_wall_ns = 0
        self.reads = 0
        self.received = 0  # bytes of the body
        self.retries = 0
        self.not_before: Callable[[], None] | None = None  # as in ``Exchange``
        self._pieces: Iterator[bytes] = iter(())

    def mark_sent(self) -> None:
        """t0, as near as the SDK lets us come: before it is asked to send."""
        if self.not_before is not None:
            wait, self.not_before = self.not_before, None
            wait()
        self.sent_ns = clock.now_ns()
        self.sent_wall_ns = self.sent_ns + clock.wall_offset_ns()

    def arrivals(self) -> Iterator[Arrival]:
        """The body as the SDK hands it over."""
        import httpx2

        self._pieces = self.body.iter_raw()
        try:
            for piece in self._pieces:
                self.reads += 1
                self.received += len(piece)
                yield Arrival(0, clock.now_ns(), [bytearray(piece)])
        except httpx2.RemoteProtocolError as error:
            raise ResponseCut(f"the connection was closed before the response was complete: {error}") from error
        except httpx2.TransportError as error:
            raise ConnectionLost(f"the connection was lost: {error}") from error

    def drain(self) -> None:
        """After the last event: read on to the end of the body, so that the SDK can use its connection again."""
        with contextlib.suppress(Exception), gevent.Timeout(LINGER_S, False):  # type: ignore[arg-type]
            for _piece in self._pieces:
                pass
        self.release()

    @property
    def body_reads(self) -> int:
        return self.reads

    def release(self) -> None:
        if self.body is not None:
            self.body.close()

    discard = release

    def clock_moved(self) -> bool:
        return False
