"""Server-sent events: bytes in, the data of events out, whatever the split of the bytes.

The grammar is the WHATWG's (HTML standard, "Interpreting an event stream"). Knows no JSON and no API.
"""

from __future__ import annotations

import re

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""An event, or a line without an end, beyond this is refused: memory must not depend on the server's goodwill."""

_LINE_BYTES = 48
"""What a line takes beside its text: a bytes object and its place in a list."""

_FILLING, _FILLER = b"\r\n:", re.compile(rb"(?:[\r\n]|:[^\r\n]*+[\r\n])*+")
"""Blank lines and comments between events are passed over in one step, however many they are."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """An event grew beyond ``MAX_EVENT_BYTES``."""


class NamedEvent(bytes):
    """Data of an event that came with an ``event:`` field."""

    name: str


class SseDecoder:
    """``feed`` bytes, get the data of every event that they completed. Comments and other fields are dropped."""

    __slots__ = ("_buffer", "_data", "_held_bytes", "_name", "_skip_newline", "_started")

    def __init__(self) -> None:
        self._buffer = bytearray()  # the line that has not ended yet
        self._data: list[bytes] = []
        self._held_bytes = 0  # in the lines of the event that has not ended yet
        self._name = ""
        self._started = False
        self._skip_newline = False

    def feed(self, piece: bytes | bytearray) -> list[bytes]:
        """The data of the events that ended in ``piece``, in order."""
        # Almost every piece is exactly one event of one line; anything else takes the long way.
        if (
            self._started
            and not self._buffer
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

    def finish(self) -> list[bytes]:
        """At the end of the stream: an event whose closing blank line never came is still given out."""
        if not self._buffer and not self._data:
            return []
        self._started, self._skip_newline = True, False
        return self._feed_lines(b"\n\n")

    def _feed_lines(self, piece: bytes) -> list[bytes]:
        events: list[bytes] = []
        if self._skip_newline and piece:
            piece = piece.removeprefix(b"\n")
            self._skip_newline = False
        self._buffer += piece
        if self._started and _line_end(piece, 0) < 0:  # a long line in many pieces is looked at once, not each time
            self._refuse_if_too_long()
            return events
        text = bytes(self._buffer)
        if not self._started:
            if len(text) < 3 and _BYTE_ORDER_MARK.startswith(text):
                return events
            text = text.removeprefix(_BYTE_ORDER_MARK)
            self._started = True
        start = 0
        while (end := _line_end(text, start)) >= 0:
            if text[start] in _FILLING and not self._data and not self._name:
                start = _FILLER.match(text, start).end()  # type: ignore[union-attr]
                self._skip_newline = start == len(text) and text[-1] == 13
                continue
            self._line(text[start:end], events)
            start = end + 1
            if text[end] == 13:  # a carriage return ends the line at once; the newline that may follow belongs to it
                if start == len(text):
                    self._skip_newline = True
                elif text[start] == 10:
                    start += 1
        self._buffer = bytearray(text[start:])
        self._refuse_if_too_long()
        return events

    def _refuse_if_too_long(self) -> None:
        if len(self._buffer) + self._held_bytes > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event of the stream is longer than {MAX_EVENT_BYTES >> 20} MiB")

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
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


def _line_end(text: bytes, start: int) -> int:
    """Where the line that begins at ``start`` ends; -1 when it has not ended yet."""
    newline = text.find(b"\n", start)
    carriage = text.find(b"\r", start, newline if newline >= 0 else len(text))
    return carriage if carriage >= 0 else newline
