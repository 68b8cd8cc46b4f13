"""Decode and encode AWS's binary event stream (`application/vnd.amazon.eventstream`).

A message has a prelude (total length, header length, CRC of both), headers, a payload, and a CRC of the whole message.
Numbers are big-endian. The decoder uses a length only after its CRC is verified. The module does not depend on an API
or an SDK.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar
from zlib import crc32

import msgspec

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Limit on the size of one message, because a faulty server must not be able to exhaust memory."""

_PRELUDE = struct.Struct(">III")
_LENGTHS = struct.Struct(">II")
_CRC = struct.Struct(">I")
_TYPE_AND_LENGTH = struct.Struct(">BH")
_LEAST_BYTES = _PRELUDE.size + _CRC.size
_MAX_NAME_BYTES = 255  # the length field has one byte
_MAX_VALUE_BYTES = 65535  # the length field has two bytes

# All events of one type have the same header bytes, so a stream of thousands of events needs few parses. The limit
# prevents a server that varies the headers from filling the memory.
_MAX_CACHED_BLOCKS = 256
_MAX_CACHED_BLOCK_BYTES = 1024

_TRUE, _FALSE, _BYTE, _SHORT, _INT, _LONG, _BYTES, _STRING, _TIMESTAMP, _UUID = range(10)


class Sized(int):
    """An integer in a header, with its size on the wire. It compares like any other int."""

    code: ClassVar[int]
    layout: ClassVar[struct.Struct]


class Byte(Sized):
    code, layout = _BYTE, struct.Struct(">b")


class Short(Sized):
    code, layout = _SHORT, struct.Struct(">h")


class Int(Sized):
    code, layout = _INT, struct.Struct(">i")


class Long(Sized):
    code, layout = _LONG, struct.Struct(">q")


class Timestamp(Sized):
    """Milliseconds since 1970."""

    code, layout = _TIMESTAMP, struct.Struct(">q")


_NUMBERS: dict[int, type[Sized]] = {kind.code: kind for kind in (Byte, Short, Int, Long, Timestamp)}

HeaderValue = bool | int | bytes | str | uuid.UUID
"""Types of header values. Decoded numbers are one of `Byte`, `Short`, `Int`, `Long`, `Timestamp`."""


class BadEventStream(ValueError):
    """The bytes are not an event stream. `incomplete` is True if they are a valid stream that ended too early."""

    def __init__(self, message: str, *, incomplete: bool = False) -> None:
        super().__init__(message)
        self.incomplete = incomplete


class Message(msgspec.Struct, gc=False):
    """One message. All messages with the same header bytes share `headers`, which is read-only."""

    headers: Mapping[str, HeaderValue]
    payload: bytes


class EventStreamDecoder:
    """Decode messages from bytes that are split at any position: ``feed`` bytes, get the messages they complete.

    Decoding stops at the first fault: ``feed`` returns the messages before it, and every later call raises.
    """

    __slots__ = ("_buffer", "_error", "_need")

    def __init__(self) -> None:
        self._buffer = bytearray()  # the message that is not complete yet
        self._need = _PRELUDE.size  # the length of the buffer from which on decoding can continue
        self._error: BadEventStream | None = None

    def feed(self, piece: bytes | bytearray) -> list[Message]:
        """Return the messages that end in ``piece``, in order. Raises ``BadEventStream`` if the bytes are invalid."""
        if self._error is not None:
            raise self._error
        if self._buffer:
            self._buffer += piece
            if len(self._buffer) < self._need:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        else:
            data = bytes(piece)
        messages: list[Message] = []
        start, end = 0, len(data)
        self._need = _PRELUDE.size
        try:
            while end - start >= _PRELUDE.size:
                total, header_bytes, prelude_crc = _PRELUDE.unpack_from(data, start)
                if crc32(data[start : start + 8]) != prelude_crc:
                    raise self._bad_prelude(data[start:])
                if header_bytes > total - _LEAST_BYTES or total > MAX_MESSAGE_BYTES:
                    raise _bad_lengths(total, header_bytes)
                stop = start + total
                if stop > end:
                    self._need = total
                    break
                # The prelude's CRC covers the first 8 bytes, so the message's CRC continues from it.
                if crc32(data[start + 8 : stop - 4], prelude_crc) != _CRC.unpack_from(data, stop - 4)[0]:
                    raise BadEventStream("a message does not match its checksum")
                border = start + _PRELUDE.size + header_bytes
                block = data[start + _PRELUDE.size : border]
                messages.append(Message(_blocks.get(block) or _headers(block), data[border : stop - 4]))
                start = stop
        except BadEventStream as error:
            self._error = error
            if not messages:
                raise
            return messages
        if start < end:
            self._buffer += data[start:]
        return messages

    def _bad_prelude(self, _data: bytes) -> BadEventStream:
        """Return the error for bytes that do not begin a message."""
        return BadEventStream("a message's prelude does not match its checksum")

    def finish(self) -> list[Message]:
        """Finish decoding: return no messages. Raises ``BadEventStream`` if the bytes end inside a message."""
        if self._error is not None:
            raise self._error
        if self._buffer:
            received = len(self._buffer)
            total = f"of {self._need} " if self._need > _PRELUDE.size else ""
            raise BadEventStream(f"the stream ended inside a message, after {received} {total}bytes", incomplete=True)
        return []


def _bad_lengths(total: int, header_bytes: int) -> BadEventStream:
    if total > MAX_MESSAGE_BYTES:
        return BadEventStream(f"a message of {total} bytes is longer than {MAX_MESSAGE_BYTES >> 20} MiB")
    if total < _LEAST_BYTES:
        return BadEventStream(f"a message of {total} bytes is shorter than its frame of {_LEAST_BYTES}")
    return BadEventStream(f"{header_bytes} bytes of headers do not fit into a message of {total} bytes")


_blocks: dict[bytes, Mapping[str, HeaderValue]] = {}


def _headers(block: bytes) -> Mapping[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at, end = 0, len(block)
    while at < end:
        name_end = at + 1 + block[at]
        if name_end >= end:  # the type follows
            raise BadEventStream("a header's name is cut off")
        name = _text(block[at + 1 : name_end], "name")
        if name in headers:
            raise BadEventStream(f"the header {name!r} appears twice")
        headers[name], at = _value(block, name_end, name)
    if len(block) <= _MAX_CACHED_BLOCK_BYTES:
        if len(_blocks) >= _MAX_CACHED_BLOCKS:
            _blocks.clear()
        _blocks[block] = MappingProxyType(headers)
    return MappingProxyType(headers)


def _value(block: bytes, at: int, name: str) -> tuple[HeaderValue, int]:
    """Return the value whose type is at ``at``, and the offset of the next header."""
    code = block[at]
    at += 1
    if code in (_TRUE, _FALSE):
        return code == _TRUE, at
    number = _NUMBERS.get(code)
    if number is not None:
        length = number.layout.size
    elif code == _UUID:
        length = 16
    elif code in (_BYTES, _STRING):
        if at + 2 > len(block):
            raise BadEventStream(f"the length of the header {name!r} is cut off")
        length = int.from_bytes(block[at : at + 2], "big")
        at += 2
    else:
        raise BadEventStream(f"the header {name!r} has the unknown type {code}")
    stop = at + length
    if stop > len(block):
        raise BadEventStream(f"the value of the header {name!r} is cut off")
    if number is not None:
        return number(number.layout.unpack_from(block, at)[0]), stop
    data = block[at:stop]
    if code == _UUID:
        return uuid.UUID(bytes=data), stop
    return (data if code == _BYTES else _text(data, f"value of {name!r}")), stop


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadEventStream(f"a header's {what} is not UTF-8") from None


def encode(headers: Mapping[str, HeaderValue], payload: bytes = b"") -> bytes:
    """Return one encoded message. A plain int becomes an `Int`, or a `Long` if `Int` is too small."""
    return frame(encode_headers(headers), payload)


def frame(block: bytes, payload: bytes) -> bytes:
    """Return one encoded message with headers from `encode_headers`, which you can reuse for many messages."""
    total = _LEAST_BYTES + len(block) + len(payload)
    if total > MAX_MESSAGE_BYTES:
        raise _bad_lengths(total, len(block))
    lengths = _LENGTHS.pack(total, len(block))
    prelude_crc = crc32(lengths)
    body = _CRC.pack(prelude_crc) + block + payload
    return lengths + body + _CRC.pack(crc32(body, prelude_crc))


def encode_headers(headers: Mapping[str, HeaderValue]) -> bytes:
    """Return the encoded headers. Raises ValueError for a name or a value that does not fit into a header."""
    parts: list[bytes] = []
    for name, value in headers.items():
        label = name.encode()
        if len(label) > _MAX_NAME_BYTES:
            raise ValueError(f"the name of the header {name[:20]!r}... is longer than {_MAX_NAME_BYTES} bytes")
        parts += (bytes((len(label),)), label, _encode_value(name, value))
    return b"".join(parts)


def _encode_value(name: str, value: HeaderValue) -> bytes:
    if isinstance(value, bool):
        return bytes((_TRUE if value else _FALSE,))
    if isinstance(value, int):
        kind = type(value) if isinstance(value, Sized) else Int if -(2**31) <= value < 2**31 else Long
        try:
            return bytes((kind.code,)) + kind.layout.pack(value)
        except struct.error:
            raise ValueError(f"the value {int(value)} is too large for the header {name!r}") from None
    if isinstance(value, uuid.UUID):
        return bytes((_UUID,)) + value.bytes
    code, data = (_STRING, value.encode()) if isinstance(value, str) else (_BYTES, bytes(value))
    if len(data) > _MAX_VALUE_BYTES:
        raise ValueError(f"the value of the header {name!r} is longer than {_MAX_VALUE_BYTES} bytes")
    return _TYPE_AND_LENGTH.pack(code, len(data)) + data
