"""Answers that are not streamed: decode a body that is one JSON document, and say what is wrong with another body.

The module does not depend on an API: ``Events.take_whole`` of the API reads the document.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from llm_users.transport.errors import BadResponse, ResponseCut
from llm_users.transport.sse import SseDecoder, is_html
from llm_users.users.bad_events import (
    AnswerFailure,
    MalformedEvent,
    StreamFailure,
    WebPage,
    error_in,
    json_or_text,
    words_of_page,
)
from llm_users.users.failures import excerpt

PAGE_BYTES = 4096
"""Enough of an HTML page for its title, and more of a text than a message shows."""

_STREAM_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")


class EmptyAnswer(BadResponse):
    """A complete answer without output."""

    code = "empty"


class WholeReader(Protocol):
    """Reads the document of an API: ``users.response_stream.Events``."""

    def take_whole(self, body: bytes) -> None:
        """Process a complete JSON answer. Raises ``StreamFailure`` for an error in it, or ``MalformedEvent``."""


class WholeBody:
    """The decoder of a body that is one JSON document. It has no events; ``finish`` gives the document to its reader.

    Raises ``EmptyAnswer``, ``WebPage``, ``AnswerFailure`` for an error in the document,
    ``ResponseCut`` for a document that ends too early, or ``MalformedEvent`` for other data.
    """

    def __init__(self, reader: WholeReader) -> None:
        self._reader = reader
        self._body = bytearray()  # ``chunks.Bounds`` limits its length
        self.beginning = ""
        """The beginning of the document as text without secrets, after ``finish``."""

    def feed(self, piece: bytes | bytearray) -> tuple[Any, ...]:
        """Keep a piece of the body. Return no events."""
        self._body += piece
        return ()

    def finish(self) -> tuple[Any, ...]:
        """Give the document to the reader. Return no events."""
        body = bytes(self._body)
        self._body.clear()
        document = body.removeprefix(b"\xef\xbb\xbf").strip()
        self.beginning = excerpt(shown(document[:PAGE_BYTES]))
        if not document:
            raise EmptyAnswer("the server answered with an empty body")
        if document.startswith(b"<"):
            raise web_page(document)
        if document.startswith(_STREAM_STARTS):
            raise _stream_problem(document)
        try:
            self._reader.take_whole(document)
        except StreamFailure as failure:
            raise AnswerFailure(failure.code, failure.message) from None
        except MalformedEvent as error:
            raise _problem_of(document) or error from None
        return ()


def shown(data: bytes) -> str:
    """Return the beginning of a body as text, for a message."""
    return data[:PAGE_BYTES].decode("utf-8", "replace")


def web_page(document: bytes) -> WebPage:
    """Return the error for a page of HTML instead of an answer."""
    kind = "HTML" if is_html(document) or b"<body" in document.lower() else "XML or HTML"
    words = " ".join(words_of_page(shown(document)).split())
    return WebPage(
        f"the server answered with a page of {kind}; check that the base URL is the URL of the API. Its text: "
        f"{excerpt(words)}"
    )


def _problem_of(document: bytes) -> Exception | None:
    """Return what is wrong with a document; None if it is a JSON object."""
    try:
        value = msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if "truncated" in str(error):
            return ResponseCut(f"the answer ends in the middle of its JSON document: {excerpt(shown(document))}")
        return MalformedEvent(f"the answer is not valid JSON ({error}): {excerpt(shown(document))}")
    if isinstance(value, dict):
        return None
    return MalformedEvent(f"the answer is JSON, but not an object: {excerpt(shown(document))}")


def _stream_problem(body: bytes) -> Exception:
    """Return the error for server-sent events: the error that they contain, or that they were not requested."""
    decoder = SseDecoder()
    for data in [*decoder.feed(body), *decoder.finish()]:
        value = json_or_text(data)
        failure = error_in(value, whole=True) if isinstance(value, dict) else None
        if failure is not None:
            return AnswerFailure(failure.code, failure.message)
    return MalformedEvent(
        "the server sent a stream of events although the request asked for the whole answer; a gateway may ignore "
        f"the field stream. It begins: {excerpt(shown(body))}"
    )
