"""Decode server-sent events from bytes that are split at any position.

The grammar is the WHATWG's (HTML standard, "Interpreting an event stream"). The module does not depend on JSON or on
an API.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Limit on an event or an unfinished line, because a faulty server must not be able to exhaust memory."""

_LINE_BYTES = 48
"""Memory of a line in addition to its text: a bytes object and its list entry."""

_FILLING, _FILLER = b"\r\n:", re.compile(rb"(?:[\r\n]|:[^\r\n]*+[\r\n])*+")
"""Skips any number of blank lines and comments between events in one step."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """An event is longer than ``MAX_EVENT_BYTES``."""


_DOCUMENT_STARTS = (b"{", b"[", b'"', b"<")
"""No field of a stream begins with one of these; a body that does is JSON or an HTML page."""

_WHITE = b" \t\r\n"


class NamedEvent(bytes):
    """Data of an event with an ``event:`` field. An ``error:`` field has the name "error"."""

    name: str


class BareLine(bytes):
    """JSON, ``[DONE]`` or HTML without a field name. The grammar ignores such lines, but one may be an error."""


class SseDecoder:
    """Decode events: ``feed`` bytes, get the data of the events they complete. Comments and other fields are ignored.

    A body that begins with JSON or HTML becomes the ``document`` and yields no events.
    """

    __slots__ = ("_bare", "_data", "_held_bytes", "_name", "_skip_newline", "_started", "buffer", "is_document")

    def __init__(self) -> None:
        self.buffer = bytearray()  # the unfinished line, or the document
        self._data: list[bytes] = []
        self._bare: list[bytes] = []  # lines of JSON without a field name, until the JSON ends
        self.is_document = False
        self._held_bytes = 0  # in the lines of the unfinished event
        self._name = ""
        self._started = False
        self._skip_newline = False

    def feed(self, piece: bytes | bytearray) -> list[bytes]:
        """Return the data of the events that end in ``piece``, in order."""
        # Almost every piece is exactly one event of one line; other pieces take the slower path.
        if (
            self._started
            and not self.buffer
            and not self._data
            and not self._name
            and not self._skip_newline
            and piece.startswith(b"data: ")
            and piece.endswith(b"\n\n")
            and piece.find(b"\n") == len(piece) - 2
            and piece.find(b"\r") < 0
        ):
            return [bytes(piece[6:-2])]
        return self._feed_lines(bytes(piece))

    def whole_events(self, pieces: Sequence[bytes | bytearray]) -> list[bytes]:
        """Return the data of the first pieces, as long as each one is exactly one event of one line.

        You must feed only the pieces after them. This takes a fifth of the time of ``feed``.
        """
        if not self._started or self.buffer or self._data or self._name or self._bare or self._skip_newline:
            return []
        text = b"".join(pieces)
        if not text.startswith(b"data: ") or b"\r" in text:
            return []
        events = text[6:].split(b"\n\ndata: ")
        events[-1] = events[-1].removesuffix(b"\n\n")
        differences = (
            number
            for number, (data, piece) in enumerate(zip(events, pieces, strict=False))
            if len(piece) != len(data) + 8  # the field, its colon and space, and two newlines
        )
        events = events[: next(differences, len(pieces))]
        return events if b"\n" not in b"".join(events) else []

    def finish(self) -> list[bytes]:
        """Return the last event at the end of the stream even if its closing blank line is missing."""
        if self.is_document or not (self.buffer or self._data or self._bare):
            return []
        self._started, self._skip_newline = True, False
        return self._feed_lines(b"\n\n")

    @property
    def document(self) -> bytes:
        """The bytes received so far of a body that is not a stream."""
        return bytes(self.buffer)

    def _feed_lines(self, piece: bytes) -> list[bytes]:
        events: list[bytes] = []
        if self._skip_newline and piece:
            piece = piece.removeprefix(b"\n")
            self._skip_newline = False
        self.buffer += piece
        # A long line in many pieces is scanned only once.
        if self._started and (self.is_document or _line_end(piece, 0) < 0):
            self._refuse_if_too_long()
            return events
        text = bytes(self.buffer)
        if not self._started:
            if len(text) < 3 and _BYTE_ORDER_MARK.startswith(text):
                return events
            text = text.removeprefix(_BYTE_ORDER_MARK).lstrip(_WHITE)
            self._started = bool(text)
            self.is_document = text[:1] in _DOCUMENT_STARTS
            if self.is_document or not text:
                self.buffer = bytearray(text or b"\n")  # not empty, so that only the first byte order mark is removed
                return events
        start = 0
        while (end := _line_end(text, start)) >= 0:
            if text[start] in _FILLING and not self._data and not self._name and not self._bare:
                start = _FILLER.match(text, start).end()  # type: ignore[union-attr]
                self._skip_newline = start == len(text) and text[-1] == 13
                continue
            self._line(text[start:end], events)
            start = end + 1
            if text[end] == 13:  # a carriage return ends the line immediately; a newline after it belongs to it
                if start == len(text):
                    self._skip_newline = True
                elif text[start] == 10:
                    start += 1
        self.buffer = bytearray(text[start:])
        self._refuse_if_too_long()
        return events

    def _refuse_if_too_long(self) -> None:
        if len(self.buffer) + self._held_bytes > MAX_EVENT_BYTES:
            what = "a response that is not a stream" if self.is_document else "an event of the stream"
            raise EventTooLong(f"{what} is longer than {MAX_EVENT_BYTES >> 20} MiB")

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._bare:
                self._end_bare(events)
            if self._data:
                data = b"\n".join(self._data)
                if self._name:
                    event = NamedEvent(data)
                    event.name = self._name
                    data = event
                events.append(data)
            self._data = []
            self._held_bytes = 0
            self._name = ""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._held_bytes += len(value) + _LINE_BYTES
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"error":  # an extension of llama.cpp and other servers
            if self._data and self._name != "error":
                self._line(b"", events)
            self._name = "error"
            self._data.append(value)
            self._held_bytes += len(value) + _LINE_BYTES
        elif self._bare or line[:1] in _DOCUMENT_STARTS:
            self._bare_line(line, events)

    def _bare_line(self, line: bytes, events: list[bytes]) -> None:
        """Process a line without a field name: JSON on one or several lines, ``[DONE]``, or an HTML page."""
        if not self._bare:
            if self._data:  # no blank line ended the previous event
                self._line(b"", events)
            if not line.startswith(b"{") and line.strip() != b"[DONE]" and not is_html(line):
                return
        self._bare.append(line)
        self._held_bytes += len(line) + _LINE_BYTES
        if self._bare[0].startswith(b"{"):
            is_over = line == b"}" or (len(self._bare) == 1 and line.rstrip().endswith(b"}"))
        else:
            is_over = self._bare[0].startswith(b"[") or line.rstrip().lower().endswith(b"</html>")
        if is_over:
            self._end_bare(events)

    def _end_bare(self, events: list[bytes]) -> None:
        events.append(BareLine(b"\n".join(self._bare)))
        self._bare = []
        self._held_bytes = 0


def is_html(text: bytes) -> bool:
    """Return True if the text is the beginning of an HTML page."""
    return text[:16].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _line_end(text: bytes, start: int) -> int:
    """Return the end of the line that begins at ``start``; -1 if the line is unfinished."""
    newline = text.find(b"\n", start)
    carriage = text.find(b"\r", start, newline if newline >= 0 else len(text))
    return carriage if carriage >= 0 else newline
