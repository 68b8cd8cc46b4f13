"""An answer in server-sent events, or in one JSON body from a server that does not stream: what all such APIs share.

Knows HTTP's headers; what the events mean is in each API's own module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from llm_users.endpoint import UsageSupport
from llm_users.record import RequestRecord
from llm_users.transport.bodies import NOT_COMPRESSED
from llm_users.transport.errors import BadResponse, ResponseCut
from llm_users.transport.sse import MAX_EVENT_BYTES, EventTooLong, SseDecoder
from llm_users.transport.template import Head
from llm_users.users.buffering import body_came_at_once, chunks_came_at_once
from llm_users.users.reading import Events, Opened


class SseEvents(Events, Protocol):
    """What the events of an API add up to."""

    @property
    def settled(self) -> bool:
        """True when nothing more is to be said; usage may still come."""

    def take(self, data: bytes, stamp_ns: int, clock_ns: int) -> None:
        """One event."""

    def take_whole(self, body: bytes) -> None:
        """A complete, unstreamed answer (JSON) to a request that asked for a stream. Its chunks have no stamps."""


class OpenedSse(Opened):
    """An answer that has begun; subclasses count its tokens."""

    events: SseEvents
    terminator: ClassVar[str]
    """What ends a stream, in words."""

    def __init__(self, head: Head, events: SseEvents, usage: UsageSupport, note: Callable[[str], None]) -> None:
        headers = head.headers
        super().__init__(head.status_code, headers.get("x-request-id") or headers.get("request-id"))
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in NOT_COMPRESSED:
            raise BadResponse(f"the stream came compressed ({encoding}) although that was refused; switch it off there")
        content_type = headers.get("content-type", "").lower()
        self._usage = usage
        self._note = note
        self._framed = "content-length" in headers
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._whole = "json" in content_type
        if content_type.startswith("text/html"):
            raise BadResponse("the server answered with a page of HTML; is the base URL that of the API?")
        self.events = events
        self.decoder = _WholeBody() if self._whole else SseDecoder()
        # Bound here: one call less per event.
        self.take = self._take_whole if self._whole else events.take  # type: ignore[method-assign, assignment]

    def settled(self) -> bool:
        return self.events.settled

    def _take_whole(self, data: bytes, _stamp_ns: int, _clock_ns: int) -> None:
        self.events.take_whole(data)

    def verdict(self) -> Exception | None:
        if not self.events.complete:
            return ResponseCut(f"the stream ended without its terminator ({self.terminator})")
        return super().verdict()

    def buffered(self, record: RequestRecord, body_reads: int, client_delay_s: Callable[[], float]) -> bool:
        if self._whole:
            return True
        if self._chunked:
            return chunks_came_at_once(record, self.events.chunks, client_delay_s)
        return body_came_at_once(record, announced=self._framed, one_read=body_reads <= 1)

    def note_missing_usage(self, record: RequestRecord) -> None:
        """Say once per endpoint that a complete answer came without token counts."""
        if self.events.complete and self._usage.missing():
            self._note(f"{record.model}: the server sends no usage; output tokens are counted here")


class _WholeBody:
    """Decoder of an unstreamed body: one event, at the end."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0

    def feed(self, piece: bytearray) -> Sequence[bytes]:
        self._parts.append(bytes(piece))
        self._bytes += len(piece)
        if self._bytes > MAX_EVENT_BYTES:
            raise EventTooLong(f"an answer that is no stream is longer than {MAX_EVENT_BYTES >> 20} MiB")
        return []

    def finish(self) -> Sequence[bytes]:
        return [b"".join(self._parts)]
