"""Reading one answer: from the arrivals of the transport to chunks with stamps. The hot path.

Knows the record and the extension's two token events; not how requests are made or counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import gevent

from llm_users.record import RequestRecord
from llm_users.transport import clock
from llm_users.transport.errors import BadResponse, ConnectionLost, DeadlineExceeded, ResponseCut
from llm_users.transport.exchange import Arrival, Exchange, SdkExchange
from llm_users.users.bad_events import StreamFailure, finish_failure, is_heartbeat
from llm_users.users.bounds import Bounds
from llm_users.users.chunks import Chunks, time_chunks

_NS = 1_000_000_000

FINISH_GRACE_S = 1.0
"""Silence after the finish reason and usage that ends an answer: some servers keep the connection open."""

USAGE_GRACE_S = 10.0
"""The same while usage was asked for and has not come. Gateways that count tokens themselves send it seconds later."""

SILENT_NOTE = (
    "{model}: the server keeps the connection open after its answers, without [DONE] or an end; a request ends "
    "{seconds:g} s after its last event{why}. end_to_end_latency_s ends at that event, but these seconds are part of "
    "the user's cycle: fewer requests are sent in the same time"
)


class Events(Protocol):
    """What a stream's events add up to. One implementation per wire format."""

    chunks: Chunks
    response_id: str | None
    finish_reason: str | None
    done: bool
    """Nothing more will come: stop reading."""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls of the first choice."""

    @property
    def complete(self) -> bool:
        """True when the answer ended with a terminator."""

    @property
    def empty(self) -> bool:
        """True when there was no output of any kind."""


class Decoder(Protocol):
    """From pieces of a body to the data of events: bytes, or messages with headers."""

    def feed(self, piece: bytearray) -> Sequence[Any]:
        """The events that ended in this piece."""

    def finish(self) -> Sequence[Any]:
        """What is left at the end of the body."""


class EmptyAnswer(BadResponse):
    """A complete answer without output."""

    code = "empty"


class ResponseStream:
    """An answer that has begun: how to read it and what to make of its end. One subclass per wire format."""

    events: Events
    decoder: Decoder

    def __init__(self, status: int, request_id: str | None) -> None:
        self.status = status
        self.request_id = request_id

    def take(self, data: Any, stamp_ns: int, clock_ns: int) -> None:
        """One event's data and the two stamps of the read that completed it."""
        raise NotImplementedError

    def output_complete(self) -> bool:
        """True when the answer is complete and only what is said about it, such as usage, can still come."""
        return self.events.complete

    def awaits_usage(self) -> bool:
        """True when the server was asked for token counts that have not come."""
        return False

    def buffered(
        self,
        record: RequestRecord,  # noqa: ARG002 - for subclasses
        body_reads: int,  # noqa: ARG002
        client_delay_s: Callable[[], float],  # noqa: ARG002
    ) -> bool:
        """True when the answer came all at once although a stream was asked for.

        ``client_delay_s()``: how late the event loop was, at most, since one second before the first chunk.
        """
        return False

    def verdict(self) -> Exception | None:
        """What was wrong with an answer that ended without an error."""
        if not self.events.complete:
            return ResponseCut("the stream ended without its terminator (finish reason or [DONE])")
        events = self.events
        failure = finish_failure([events.finish_reason, *(end.reason for end in events.chunks.endings.values())])
        if failure is not None:
            return failure
        if events.empty:
            return EmptyAnswer("the answer ended properly without any output")
        return None

    def count_usage(self, record: RequestRecord) -> None:
        """Fill the token counts that the server gave."""
        raise NotImplementedError


class Reader:
    """Reads one answer and stamps it."""

    def __init__(self, user: Any, record: RequestRecord, exchange: Exchange | SdkExchange) -> None:
        self._user = user
        self._record = record
        self._exchange = exchange
        self._first_told = False
        self._told = 0
        self._end_stamp_ns = self._end_clock_ns = 0
        self.finished = False
        """The answer was read to its end."""

    def read(self, response: ResponseStream) -> None:
        """Take every event of the stream. Raises what the transport and the events raise."""
        exchange, events = self._exchange, response.events
        feed, take = response.decoder.feed, response.take
        seen = events.chunks.stamps_ns
        has_listeners = self._user.environment.events.llm_token._handlers
        bounds = Bounds(events.chunks, self._user.max_answer_chunks, self._user.max_answer_characters)
        stamp_ns = clock_ns = 0
        arrivals = exchange.arrivals()
        try:
            for stamp_ns, clock_ns, pieces in arrivals:
                for piece in pieces:
                    for data in feed(piece):
                        take(data, stamp_ns, clock_ns)
                if exchange.received >= bounds.look_at:
                    bounds.look(exchange.received)
                if seen and (has_listeners or not self._first_told):
                    self._tell(events.chunks)
                if events.done:
                    break
                if (
                    events.finish_reason is not None
                    and response.output_complete()
                    and self._read_tail(response, arrivals, bounds, stamp_ns, clock_ns)
                ):
                    break
        except (ConnectionLost, StreamFailure, BadResponse) as error:
            # After [DONE] in one read with it: in a read after that, nothing would have looked at it.
            if not (events.complete if isinstance(error, ConnectionLost) else events.done):
                raise
        if not self._end_clock_ns:
            self._end_stamp_ns, self._end_clock_ns = stamp_ns, clock_ns
        self._take_rest(response, self._end_stamp_ns, self._end_clock_ns)
        self.finished = True
        if seen:
            self._tell(events.chunks)
        if not events.complete:  # what came may have been meant for another request
            exchange.discard()
        exchange.drain()

    def _read_tail(
        self, response: ResponseStream, arrivals: Iterator[Arrival], bounds: Bounds, stamp_ns: int, clock_ns: int
    ) -> bool:
        """Read what follows a finish reason, whose stamps these are. False when output follows: the answer goes on.

        The answer ends with [DONE] or the stream. When the server leaves the connection open and silent, it ends with
        its last event, as it does when the deadline comes or the user is stopped: nothing of it is missing but usage.
        """
        events = response.events
        last_event = self._end_stamp_ns, self._end_clock_ns = stamp_ns, clock_ns
        limit_ns = clock.now_ns() + _grace_ns(response)
        while response.output_complete():
            left_s = max(0.0, (limit_ns - clock.now_ns()) / _NS)
            grace = gevent.Timeout.start_new(left_s)
            try:
                arrival = next(arrivals, None)
            except (DeadlineExceeded, gevent.Timeout, gevent.GreenletExit) as raised:
                self._end_stamp_ns, self._end_clock_ns = last_event
                if raised is not grace and not isinstance(raised, DeadlineExceeded):
                    self.finished = True
                    raise
                self._note_silence(response)
                return True
            finally:
                grace.close()
            if arrival is None:
                return True
            self._end_stamp_ns, self._end_clock_ns = arrival.stamp_ns, arrival.clock_ns
            found = [data for piece in arrival.pieces for data in response.decoder.feed(piece)]
            for data in found:
                response.take(data, arrival.stamp_ns, arrival.clock_ns)
            if self._exchange.received >= bounds.look_at:
                bounds.look(self._exchange.received)
            if events.chunks.stamps_ns:
                self._tell(events.chunks)
            if events.done:
                return True
            if not all(map(is_heartbeat, found)):
                last_event = self._end_stamp_ns, self._end_clock_ns
                limit_ns = clock.now_ns() + _grace_ns(response)
        self._end_stamp_ns = self._end_clock_ns = 0
        return False

    def _note_silence(self, response: ResponseStream) -> None:
        """Say that requests wait for nothing: these seconds are in no latency, but the user spends them."""
        awaited = response.awaits_usage()
        self._user.run_context.note(
            SILENT_NOTE.format(
                model=self._record.model,
                seconds=USAGE_GRACE_S if awaited else FINISH_GRACE_S,
                why=", in case usage comes late" if awaited else "",
            )
        )

    def _take_rest(self, response: ResponseStream, stamp_ns: int, clock_ns: int) -> None:
        """What the stream ended in the middle of: a whole event without its blank line, or a part of one."""
        for data in response.decoder.finish():
            try:
                response.take(data, stamp_ns, clock_ns)
            except BadResponse:
                if not response.events.complete:
                    raise ResponseCut("the stream ended in the middle of an event") from None

    def _tell(self, chunks: Chunks) -> None:
        """Fire the public events for what is new."""
        hooks = self._user.environment.events
        request_id = self._record.request_id
        if not self._first_told:
            self._first_told = True
            first_ns = chunks.stamps_ns[0] or chunks.clocks_ns[0]
            ttft_s = (first_ns - self._exchange.sent_ns) / _NS
            hooks.llm_first_token.fire(user=self._user, request_id=request_id, ttft_s=ttft_s)
        if not hooks.llm_token._handlers:
            return
        for index in range(self._told, len(chunks.stamps_ns)):
            hooks.llm_token.fire(
                user=self._user,
                request_id=request_id,
                index=index,
                stamp_ns=chunks.stamps_ns[index] or chunks.clocks_ns[index],
                piece=chunks.piece(index),
            )
        self._told = len(chunks.stamps_ns)

    def failed(self) -> None:
        """The request ended here and now, with an error."""
        if not self.finished and self._exchange.sent_ns:
            self._end_clock_ns = clock.now_ns()

    @property
    def sent_ns(self) -> int:
        """t0, or 0 when the request was never sent."""
        return self._exchange.sent_ns

    @property
    def start_ns(self) -> int:
        """The end of the queue: t0, or the start of connecting when that failed; 0 when it never came to that."""
        return self._exchange.sent_ns or self._exchange.connect_started_ns

    @property
    def end_ns(self) -> int:
        """The end of the answer, after ``fill_timing``, or of a failed attempt to connect; 0: there was neither."""
        exchange, latency_s = self._exchange, self._record.end_to_end_latency_s
        if exchange.sent_ns:
            return exchange.sent_ns + round(latency_s * _NS) if latency_s is not None else 0
        return exchange.connect_started_ns + exchange.connect_ns if exchange.connect_started_ns else 0

    @property
    def body_reads(self) -> int:
        """Reads of the socket that brought a part of the body."""
        return self._exchange.body_reads

    def fill_timing(self, chunks: Chunks, *, with_gaps: bool = True) -> tuple[list[float], list[int]]:
        """Fill the timing columns; returns the chunk gaps in seconds and the stamps they come from."""
        exchange, record = self._exchange, self._record
        record.reads, record.reconnects = exchange.reads, exchange.reconnects
        record.retries = exchange.retries
        if exchange.sent_wall_ns:
            record.started_at = exchange.sent_wall_ns / _NS
            record.connect_s = exchange.connect_ns / _NS
        stamps_ns, source = chunks.trusted_stamps_ns(clock_moved=bool(chunks.stamps_ns) and exchange.clock_moved())
        gaps_s = time_chunks(record, chunks, stamps_ns, exchange.sent_ns, with_gaps=with_gaps)
        if stamps_ns:
            record.stamp_source = source
        end_ns = self._end_clock_ns
        if source == "kernel" and self._end_stamp_ns:
            end_ns = max(self._end_stamp_ns, stamps_ns[-1])
        if exchange.sent_ns and end_ns:
            record.end_to_end_latency_s = (end_ns - exchange.sent_ns) / _NS
        return gaps_s, stamps_ns


def _grace_ns(response: ResponseStream) -> int:
    """How long a silence may be before it ends an answer whose output is complete."""
    return int((USAGE_GRACE_S if response.awaits_usage() else FINISH_GRACE_S) * _NS)
