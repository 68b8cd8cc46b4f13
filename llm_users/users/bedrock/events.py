"""The common part of Bedrock's answers: frames, exceptions inside the stream, usage, and the end of the stream.

The module does not depend on connections or on Locust. The module of each API interprets its events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from llm_users.record import RequestRecord
from llm_users.transport.errors import BadResponse, ResponseCut
from llm_users.transport.eventstream import BadEventStream, EventStreamDecoder, Message
from llm_users.users.bad_events import StreamFailure, error_in, json_or_text, words_of_page
from llm_users.users.bedrock.reasoning_tags import ReasoningTags
from llm_users.users.failures import excerpt
from llm_users.users.response_stream import Events, ResponseStream
from llm_users.users.token_counts import MOST_TOKENS, count
from llm_users.users.whole_body import WholeBody

_MS = 0.001

INTERVENED = "guardrail_intervened"
"""The finish reason of an answer that a guardrail blocked: Converse's value, used for InvokeModel too."""


@dataclass(slots=True)
class Usage:
    """Token counts and latencies from the service. AWS counts cached input separately from ``input_tokens``."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    latency_ms: float | None = None
    first_byte_ms: float | None = None
    latency_mode: str | None = None
    service_tier: str | None = None

    def keep(self, name: str, value: float | None) -> None:
        """Store a value from an event.

        Zero does not replace another value, because some events send 0 for "unknown".
        """
        if value or (value is not None and not getattr(self, name)):
            setattr(self, name, value)

    def keep_counts(self, names: Mapping[str, str], fields: Mapping[str, Any]) -> None:
        """Store token counts. ``names``: our name -> the name in ``fields``."""
        for name, field in names.items():
            self.keep(name, count(fields.get(field)))

    def fill(self, record: RequestRecord) -> None:
        """Fill the columns of the row."""
        if self.output_tokens is not None and (self.output_tokens or not record.chunks):
            record.output_tokens, record.output_tokens_source = self.output_tokens, "usage"
        if self.input_tokens is not None:
            cached = (self.cache_read_tokens or 0) + (self.cache_write_tokens or 0)
            record.input_tokens, record.input_tokens_source = self.input_tokens + cached, "usage"
        record.cached_tokens = self.cache_read_tokens
        record.cache_write_tokens = self.cache_write_tokens
        if self.latency_ms is not None:
            record.server_latency_s = self.latency_ms * _MS
        if self.first_byte_ms is not None:
            record.server_ttft_s = self.first_byte_ms * _MS
        record.latency_mode = self.latency_mode or record.latency_mode
        record.service_tier = self.service_tier or record.service_tier


class BedrockEvents(Events):
    """Accumulates all messages: chunks, tool calls, usage, finish reason and response id."""

    terminator = "messageStop"

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False  # the terminator has arrived
        self.usage = Usage()
        self.tags = ReasoningTags()

    @property
    def complete(self) -> bool:
        return self.stopped

    def take_headers(self, headers: Mapping[str, str]) -> None:
        """Store what the headers of a whole answer say about it."""

    @property
    def empty(self) -> bool:
        """True without any output: text, reasoning or tool calls. An answer blocked by a guardrail is not empty."""
        return not (self.chunks.texts or self.calls or self.finish_reason == INTERVENED)

    def begin_tool(self, identifier: Any, name: Any) -> None:
        """Begin a tool call, whose arguments follow in fragments."""
        self.calls.begin(identifier, str(name or ""))

    def add_arguments(self, piece: str) -> None:
        if not self.calls:
            self.begin_tool(None, "")
        self.calls.add(len(self.calls) - 1, piece)

    def add_chunk(self, output: tuple[str, ...], stamp_ns: int, clock_ns: int) -> None:
        """Add a chunk: answer, reasoning and, if present, a fragment of a tool call."""
        if len(output) == 2:
            self.chunks.add(stamp_ns, clock_ns, output[0], output[1])
        else:
            self.chunks.add_other(stamp_ns, clock_ns, output[0], output[2], output[1])


def raise_exception(message: Message) -> None:
    """Raise the error in a frame that is not an event. Do nothing for an event without a type."""
    headers = message.headers
    kind = headers.get(":message-type")
    if kind == "error":  # unmodelled: code and text are headers
        raise StreamFailure(str(headers.get(":error-code", "error")), str(headers.get(":error-message", "")))
    if kind != "exception":
        return
    name = str(headers.get(":exception-type", "exception"))
    fields = json_object(message.payload) or {}
    text = str(fields.get("message") or fields.get("Message") or "no message")
    if fields.get("originalStatusCode"):
        text += f" (the model's own status: {fields['originalStatusCode']}"
        text += f", {fields['originalMessage']})" if fields.get("originalMessage") else ")"
    # Outside a stream the same exceptions begin with a capital letter: use one name for both.
    raise StreamFailure(name[:1].upper() + name[1:], text)


def json_object(data: bytes) -> dict[str, Any] | None:
    """Parse a JSON object. Return None for other data."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MOST_TOKENS
    return float(value) if is_number else None


class _Frames(EventStreamDecoder):
    """The event stream decoder, with its errors converted to errors of the transport."""

    __slots__ = ("_events",)

    def __init__(self, events: BedrockEvents) -> None:
        super().__init__()
        self._events = events

    def finish(self) -> list[Message]:
        try:
            return super().finish()
        except BadEventStream as error:
            if self._events.complete:
                return []
            raise (ResponseCut if error.incomplete else BadResponse)(str(error)) from error

    def _bad_prelude(self, data: bytes) -> BadEventStream:
        if not data.lstrip().startswith(_TEXT_STARTS):
            return super()._bad_prelude(data)
        return BadEventStream(_text_message(data, "text"))


class _TextOrFrames:
    """Decoder of a body that its headers declare as JSON or text.

    The first byte determines what the body is, because no message begins like text.
    """

    def __init__(self, content_type: str, frames: _Frames) -> None:
        self._content_type = content_type
        self._frames = frames
        self._text = bytearray()
        self._is_text = False

    def feed(self, piece: bytes | bytearray) -> list[Message]:
        self._is_text = self._is_text or bytes(piece[:64]).lstrip().startswith(_TEXT_STARTS)
        if not self._is_text:
            return self._frames.feed(piece)
        self._text += piece[: _MOST_TEXT_BYTES - len(self._text)]
        return []

    def finish(self) -> list[Message]:
        if self._is_text:
            raise BadResponse(_text_message(bytes(self._text), self._content_type))
        return self._frames.finish()


_TEXT_STARTS = (b"{", b"[", b'"', b"<")
_MOST_TEXT_BYTES = 65_536
_MISPLACED = "the endpoint sent {} instead of an event stream; check that --host names Bedrock's runtime."


def _text_message(text: bytes, kind: str) -> str:
    """Return the message for text instead of an event stream. Raises ``StreamFailure`` if the text is an error."""
    value = json_or_text(text)
    failure = error_in(value, whole=True) if isinstance(value, dict) else None
    if failure is not None:
        raise failure
    content = value if isinstance(value, str) else json.dumps(value)
    content = words_of_page(content) if content.lstrip().startswith("<") else content
    return f"{_MISPLACED.format(kind)} Its text: {excerpt(' '.join(content.split()))}"


class _Parsed:
    """Pass-through decoder for boto3's own path, on which boto3 has already decoded the events."""

    def feed(self, piece: Any) -> tuple[Any, ...]:
        return (piece,)

    def finish(self) -> tuple[Any, ...]:
        return ()


class BedrockResponseStream(ResponseStream):
    """A response in an event stream. ``metadata`` is botocore's ResponseMetadata."""

    events: BedrockEvents

    decoder: _Frames | _TextOrFrames | _Parsed | WholeBody

    def __init__(self, events: BedrockEvents, metadata: dict[str, Any], *, parsed: bool, streamed: bool = True) -> None:
        headers = metadata.get("HTTPHeaders", {})
        super().__init__(metadata["HTTPStatusCode"], metadata.get("RequestId"), headers, streamed=streamed)
        content_type = headers.get("content-type", "").lower().partition(";")[0].strip()
        is_text = content_type.startswith("text/") or content_type == "application/json"
        if is_text and parsed and streamed:
            raise BadResponse(_MISPLACED.format(content_type))
        self._parsed = parsed
        self.events, self.terminator = events, events.terminator
        events.usage.latency_mode = headers.get("x-amzn-bedrock-performanceconfig-latency")
        events.usage.service_tier = headers.get("x-amzn-bedrock-service-tier")
        if not streamed:
            events.take_headers(headers)
            self.decoder = WholeBody(events)
            return
        frames = _Frames(events)
        self.decoder = _Parsed() if parsed else _TextOrFrames(content_type, frames) if is_text else frames

    def buffered(self, record: RequestRecord, body_reads: int, client_delay_s: Callable[[], float]) -> bool:
        # On boto3's own path, the number of reads of the socket is unknown.
        return super().buffered(record, 2 if self._parsed else body_reads, client_delay_s)

    def awaits_usage(self) -> bool:
        return self.events.usage.output_tokens is None

    def count_usage(self, record: RequestRecord) -> None:
        self.events.usage.fill(record)
