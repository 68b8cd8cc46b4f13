"""Send requests with the SDK's own HTTP stack through the interface of ``Exchange`` (``--llm-transport sdk``).

This path is for comparison. Its stamps are the monotonic clock when the SDK returns the bytes. The SDK manages the
connections, so reconnects and connect times cannot be observed.
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
    """One request that the SDK sends by itself, and its stamps. Set ``body`` to the SDK's raw response."""

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
        """Record t0 immediately before the SDK sends the request, which is as close as the SDK allows."""
        if self.not_before is not None:
            wait, self.not_before = self.not_before, None
            wait()
        self.sent_ns = clock.now_ns()
        self.sent_wall_ns = self.sent_ns + clock.wall_offset_ns()

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the body in the pieces that the SDK returns."""
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
        """Read to the end of the body after the last event, so that the SDK can reuse its connection."""
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
