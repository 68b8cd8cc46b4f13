"""An answer in server-sent events, or in one JSON body from a server that does not stream: what all such APIs share.

Knows HTTP's headers; what the events mean is in each API's own module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from llm_users.record import RequestRecord
from llm_users.transport.bodies import NOT_COMPRESSED
from llm_users.transport.cached_request import Head
from llm_users.transport.endpoint import UsageSupport
from llm_users.transport.errors import BadResponse, ResponseCut
from llm_users.transport.sse import SseDecoder, is_html
from llm_users.users.bad_events import MalformedEvent, error_in, json_or_text, words_of_page
from llm_users.users.buffering import body_came_at_once, chunks_came_at_once
from llm_users.users.failures import EXCERPT_CHARACTERS, excerpt
from llm_users.users.response_reader import Events, ResponseStream

_PAGE_BYTES = 4096
"""Of a page of HTML, enough for its title; of a text, more than is shown."""

_FIELDS = (b"data", b"event", b"id", b"retry", b"error", b":", b"\xef\xbb\xbf")

_WHICH_URL = "is the base URL that of the API (OpenAI's mostly ends in /v1)?"


class SseEvents(Events, Protocol):
    """What the events of an API add up to."""

    @property
    def output_complete(self) -> bool:
        """True when nothing more is to be said; usage may still come."""

    def take(self, data: bytes, stamp_ns: int, clock_ns: int) -> None:
        """One event."""

    def take_whole(self, body: bytes) -> None:
        """A complete, unstreamed answer (JSON) to a request that asked for a stream. Its chunks have no stamps."""


class SseResponseStream(ResponseStream):
    """An answer that has begun; subclasses count its tokens."""

    events: SseEvents
    decoder: _AnswerDecoder
    terminator: ClassVar[str]
    """What ends a stream, in words."""

    def __init__(self, head: Head, events: SseEvents, usage: UsageSupport, note: Callable[[str], None]) -> None:
        headers = head.headers
        super().__init__(head.status_code, headers.get("x-request-id") or headers.get("request-id"))
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in NOT_COMPRESSED:
            raise BadResponse(f"the stream came compressed ({encoding}) although that was refused; switch it off there")
        self._usage = usage
        self._note = note
        self._framed = "content-length" in headers
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self.events = events
        self.decoder = _AnswerDecoder(self._take_document)
        # Bound here: one call less per event.
        self.take = events.take  # type: ignore[method-assign]

    def output_complete(self) -> bool:
        return self.events.output_complete

    def _take_document(self, body: bytes) -> None:
        """A JSON body in place of a stream, whatever its headers say."""
        try:
            self.events.take_whole(body)
        except MalformedEvent:
            raise ResponseCut(f"the answer is JSON that is cut or wrong: {excerpt(_text(body))}") from None

    def verdict(self) -> Exception | None:
        return super().verdict() if self.events.complete else ResponseCut(self._unfinished())

    def _unfinished(self) -> str:
        """Why an answer that was read to its end is not complete."""
        if self.decoder.is_document:
            shown = excerpt(_text(self.decoder.document))
            return f"the server sent JSON that is not an answer of this API; {_WHICH_URL} It begins: {shown}"
        words = f"the stream ended without its terminator ({self.terminator})"
        beginning = self.decoder.beginning
        if self.events.chunks.texts or not beginning.strip() or beginning.lstrip().startswith(_FIELDS):
            return words
        return f"{words}; it is not a stream and begins: {excerpt(_text(beginning))}"

    def buffered(self, record: RequestRecord, body_reads: int, client_delay_s: Callable[[], float]) -> bool:
        if self.decoder.is_document:
            return True
        if self._chunked:
            return chunks_came_at_once(record, self.events.chunks, client_delay_s)
        return body_came_at_once(record, announced=self._framed, one_read=body_reads <= 1)

    def note_missing_usage(self, record: RequestRecord) -> None:
        """Say once per endpoint that a complete answer came without token counts."""
        if self.events.complete and self._usage.missing():
            self._note(f"{record.model}: the server sends no usage; output tokens are counted here")


class _AnswerDecoder(SseDecoder):
    """Events. The first bytes of the body say whether it is a stream: JSON in its place is taken as a whole.

    The content type says nothing: streams come as JSON or HTML, and JSON comes as a stream.
    """

    def __init__(self, take_document: Callable[[bytes], None]) -> None:
        super().__init__()
        self.beginning = b""
        self._take_document = take_document
        self._is_known = False

    def finish(self) -> list[bytes]:
        if self.is_document:
            self._look(at_end=True)
            self._take_document(self.document)
        return super().finish()

    def _feed_lines(self, piece: bytes) -> list[bytes]:
        self.beginning = self.beginning or piece[:EXCERPT_CHARACTERS]
        events = super()._feed_lines(piece)
        if self.is_document and not self._is_known:
            self._look()
        return events

    def _look(self, *, at_end: bool = False) -> None:
        """Refuse what is neither a stream nor one JSON document, as soon as that is certain."""
        body = self.buffer
        if body.startswith(b"<"):
            if at_end or len(body) > _PAGE_BYTES:
                raise BadResponse(_about_page(self.document))
            return
        end = body.find(b"\n")
        rest = body[end:][:_PAGE_BYTES].lstrip() if end >= 0 else b""
        if not rest:
            return
        self._is_known = True
        first = bytes(body[:end]).rstrip()
        if first.startswith(b"{") and first.endswith(b"}") and rest.startswith(b"{"):
            value = json_or_text(first)
            raise (error_in(value, whole=True) if isinstance(value, dict) else None) or MalformedEvent(
                "the server sends lines of JSON, not server-sent events: that is another API, such as Ollama's own; "
                f"{_WHICH_URL} It begins: {excerpt(_text(first))}"
            )


def _about_page(page: bytes) -> str:
    kind = "HTML" if is_html(page) or b"<body" in page.lower() else "XML or HTML"
    words = excerpt(" ".join(words_of_page(_text(page)).split()))
    return f"the server answered with a page of {kind}; is the base URL that of the API? It says: {words}"


def _text(data: bytes) -> str:
    return data[:_PAGE_BYTES].decode("utf-8", "replace")
