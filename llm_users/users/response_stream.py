"""Response streams: the state of an answer while it arrives, and what its end means. ``users.request`` reads them.

``ResponseStream`` is the base class for all wire formats, also for answers that are not streamed, whose body
``users.whole_body`` decodes. The rest of the module is for APIs with server-sent events: it interprets the HTTP
headers, and detects a JSON body or an HTML page instead of a stream. The module of the API interprets the events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from llm_users.record import RequestRecord
from llm_users.transport.client_rules import NOT_COMPRESSED
from llm_users.transport.endpoint import UsageSupport
from llm_users.transport.errors import BadResponse, ResponseCut
from llm_users.transport.exchange import Arrivals
from llm_users.transport.httpx import Head
from llm_users.transport.sse import SseDecoder
from llm_users.users.bad_events import DONE, AnswerFailure, MalformedEvent, error_in, finish_failure, json_or_text
from llm_users.users.buffering import body_came_at_once, chunks_came_at_once
from llm_users.users.chunks import Chunks
from llm_users.users.failures import EXCERPT_CHARACTERS, excerpt
from llm_users.users.tool_calls import ToolCalls
from llm_users.users.whole_body import PAGE_BYTES, EmptyAnswer, WholeBody, shown, web_page

_FIELDS = (b"data", b"event", b"id", b"retry", b"error", b":", b"\xef\xbb\xbf")

_WHICH_URL = "check that the base URL is the URL of the API (for OpenAI's it usually ends with /v1)."


class Events:
    """The accumulated state of a stream's events. One subclass for each wire format."""

    def __init__(self) -> None:
        self.chunks = Chunks()
        self.calls = ToolCalls()  # of the first choice
        self.response_id: str | None = None
        self.finish_reason: str | None = None
        self.done = False  # nothing more will come, so reading stops

    def take(self, data: Any, stamp_ns: int, clock_ns: int) -> None:
        """Process the data of one event, with the two stamps of the read that completed it.

        Raises ``StreamFailure``, or ``BadResponse`` for an invalid event.
        """
        raise NotImplementedError

    def take_texts(self, events: list[bytes], stamps_ns: Sequence[int], clocks_ns: Sequence[int]) -> int:  # noqa: ARG002
        """Process the first events, as long as each one is only a piece of text. Return their number.

        The result is that of ``take``, in less time. ``events`` is changed.
        """
        return 0

    def take_whole(self, body: bytes) -> None:
        """Process a complete JSON answer, also to a request that asked for a stream. Its chunks have no stamps.

        Raises ``StreamFailure`` for an error in it, or ``MalformedEvent`` if it is not a JSON object.
        """
        raise NotImplementedError

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls of the first choice."""
        return self.calls.assembled()

    @property
    def complete(self) -> bool:
        """True if the answer ended with a terminator."""
        return self.done

    @property
    def output_complete(self) -> bool:
        """True if the output is complete, so that only information about it, such as usage, can follow."""
        return self.complete

    @property
    def empty(self) -> bool:
        """True without any output: text, reasoning or tool calls."""
        chunks = self.chunks
        return not (any(chunks.texts) or chunks.reasoning_at or chunks.text_at or self.calls)


class Decoder(Protocol):
    """Converts pieces of a body to the data of events: bytes, or messages with headers."""

    def feed(self, piece: bytes | bytearray) -> Sequence[Any]:
        """Return the events that end in this piece."""

    def finish(self) -> Sequence[Any]:
        """Return the rest at the end of the body."""


class ResponseStream:
    """A response that has begun: how to read it, and what its end means. One subclass for each wire format."""

    events: Events
    decoder: Decoder
    terminator: str
    """A description of the terminator of the stream, for messages."""
    last_event: bytes | None = None
    """Bytes of the last event that do not occur in other events; None if there are none."""
    streamed = True
    """False: the request asked for the whole answer at once, so no token has a time."""
    headers: Mapping[str, str] = MappingProxyType({})
    """The headers of a whole answer, with names in lower case. A stream does not keep its headers."""

    def __init__(
        self, status: int, request_id: str | None, headers: Mapping[str, str], *, streamed: bool = True
    ) -> None:
        """Create a stream. ``headers`` are those of the response, with names in lower case."""
        if not streamed:
            self.streamed, self.last_event, self.headers = False, None, headers
        self.status = status
        self.request_id = request_id
        self._framed = "content-length" in headers
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()

    def take_texts(self, arrivals: Arrivals) -> int:  # noqa: ARG002 - for subclasses
        """Process the first pieces, as long as each one is an event with only a piece of text. Return their number."""
        return 0

    def awaits_usage(self) -> bool:
        """Return True if the request asked for token counts that have not arrived."""
        return False

    def buffered(self, record: RequestRecord, body_reads: int, client_delay_s: Callable[[], float]) -> bool:
        """Return True if the answer arrived all at once although the request asked for a stream.

        ``client_delay_s()`` is the maximum delay of the event loop since one second before the first chunk.
        """
        if not self.streamed:
            return False
        if self._chunked:
            return chunks_came_at_once(record, self.events.chunks, client_delay_s)
        return body_came_at_once(record, announced=self._framed, one_read=body_reads <= 1)

    def verdict(self) -> Exception | None:
        """Return what is wrong with an answer that ended without an error, or None."""
        events = self.events
        if not events.complete:
            if self.streamed:
                return ResponseCut(self.why_unfinished())
            # The end of the document is the end of the answer; some servers send no finish reason.
            if events.empty:
                beginning = self.decoder.beginning if isinstance(self.decoder, WholeBody) else ""
                return MalformedEvent(
                    "the server sent JSON without an answer of this API; check that the base URL is the URL of the "
                    f"API. It begins: {beginning}"
                )
        failure = finish_failure([events.finish_reason, *(end.reason for end in events.chunks.endings.values())])
        if failure is not None:
            return failure if self.streamed else AnswerFailure(failure.code, failure.message)
        return EmptyAnswer("the answer ended properly without any output") if events.empty else None

    def why_unfinished(self) -> str:
        """Return the reason why an answer that was read to its end is incomplete."""
        return f"the stream ended without its terminator ({self.terminator})"

    def count_usage(self, record: RequestRecord) -> None:
        """Fill the token counts that the server sent."""
        raise NotImplementedError


class SseResponseStream(ResponseStream):
    """A response stream of server-sent events. Subclasses count its tokens."""

    decoder: _AnswerDecoder | WholeBody
    last_event = DONE

    def __init__(
        self,
        head: Head,
        make_events: Callable[[], Events],
        usage: UsageSupport,
        note: Callable[[str], None],
        *,
        usage_asked: bool = False,
        streamed: bool = True,
    ) -> None:
        """Create a stream.

        ``make_events`` creates its ``events``. ``usage_asked``: the request asked for token counts after the finish
        reason.
        """
        headers = head.headers
        request_id = headers.get("x-request-id") or headers.get("request-id")
        super().__init__(head.status_code, request_id, headers, streamed=streamed)
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in NOT_COMPRESSED:
            raise BadResponse(
                f"the answer is compressed ({encoding}) although the request refused it; disable compression"
            )
        self.usage_asked = usage_asked
        self._usage = usage
        self._note = note
        self._make_events = make_events

    def __getattr__(self, name: str) -> Any:
        # These two take 2 kB, and a process can have 10,000 requests that wait for their first token.
        if name == "events":
            self.events = self._make_events()
            return self.events
        if name == "decoder":
            self.decoder = _AnswerDecoder(self.events) if self.streamed else WholeBody(self.events)
            return self.decoder
        raise AttributeError(name)

    def take_texts(self, arrivals: Arrivals) -> int:
        if isinstance(self.decoder, WholeBody):
            return 0
        events = self.decoder.whole_events(arrivals.pieces)
        return self.events.take_texts(events, *arrivals.stamps_of_pieces()) if events else 0

    def why_unfinished(self) -> str:
        reason = super().why_unfinished()
        if isinstance(self.decoder, WholeBody):
            return reason
        if self.decoder.is_document:
            document = excerpt(shown(self.decoder.document))
            return f"the server sent JSON that is not an answer of this API; {_WHICH_URL} It begins: {document}"
        beginning = self.decoder.beginning
        if self.events.chunks.texts or not beginning.strip() or beginning.lstrip().startswith(_FIELDS):
            return reason
        return f"{reason}; it is not a stream and begins: {excerpt(shown(beginning))}"

    def buffered(self, record: RequestRecord, body_reads: int, client_delay_s: Callable[[], float]) -> bool:
        came_as_document = isinstance(self.decoder, _AnswerDecoder) and self.decoder.is_document
        return came_as_document or super().buffered(record, body_reads, client_delay_s)

    def note_missing_usage(self, record: RequestRecord) -> None:
        """Add a note, once per endpoint, if a complete answer has no token counts."""
        if self.events.complete and self._usage.missing():
            self._note(f"{record.model}: the server sends no usage; the client counts the output tokens")


class _AnswerDecoder(SseDecoder):
    """Decode events, or a JSON document as a whole. The first bytes of the body determine which of the two it is.

    The content type is not reliable: servers send streams as JSON or HTML, and JSON as a stream.
    """

    def __init__(self, events: Events) -> None:
        super().__init__()
        self.beginning = b""
        self._events = events
        self._is_checked = False

    def finish(self) -> list[bytes]:
        if self.is_document:
            self._check(at_end=True)
            self._take_document(self.document)
        return super().finish()

    def _take_document(self, body: bytes) -> None:
        """Process a JSON body that was sent instead of a stream, regardless of its headers."""
        try:
            self._events.take_whole(body)
        except MalformedEvent:
            raise ResponseCut(f"the answer is truncated or invalid JSON: {excerpt(shown(body))}") from None

    def _feed_lines(self, piece: bytes) -> list[bytes]:
        self.beginning = self.beginning or piece[:EXCERPT_CHARACTERS]
        events = super()._feed_lines(piece)
        if self.is_document and not self._is_checked:
            self._check()
        return events

    def _check(self, *, at_end: bool = False) -> None:
        """Raise an error as soon as the body is certain to be neither a stream nor one JSON document."""
        body = self.buffer
        if body.startswith(b"<"):
            if at_end or len(body) > PAGE_BYTES:
                raise web_page(self.document)
            return
        end = body.find(b"\n")
        rest = body[end:][:PAGE_BYTES].lstrip() if end >= 0 else b""
        if not rest:
            return
        self._is_checked = True
        first = bytes(body[:end]).rstrip()
        if first.startswith(b"{") and first.endswith(b"}") and rest.startswith(b"{"):
            value = json_or_text(first)
            raise (error_in(value, whole=True) if isinstance(value, dict) else None) or MalformedEvent(
                "the server sends JSON lines instead of server-sent events, as other APIs such as Ollama's do; "
                f"{_WHICH_URL} It begins: {excerpt(shown(first))}"
            )
