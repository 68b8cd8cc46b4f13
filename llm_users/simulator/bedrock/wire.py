"""Requests and answers of Bedrock as bytes: parsed bodies, and documents of a family in event-stream frames or as JSON.

The tokens of a prompt are its words, as everywhere in the simulator. The module does not depend on sockets or the
schedule; it uses the clock only for the latency that it reports.
"""

from __future__ import annotations

import re
import struct
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from zlib import crc32

import msgspec

from llm_users.simulator import http_wire
from llm_users.simulator.answer import WireAnswer
from llm_users.simulator.bedrock.errors import STREAM_ERRORS, BedrockError
from llm_users.simulator.bedrock.families import RUNNING_COUNT, Document, Shape, Turn
from llm_users.simulator.http_wire import Request
from llm_users.simulator.openai_wire import SUMMARY_STEP, json_bytes, words
from llm_users.simulator.spec import Spec
from llm_users.transport.eventstream import encode, encode_headers, frame

# Also accepts a base URL that ends in /v1, as the OpenAI API uses it.
_PATH = re.compile(r"(?:/v1)?/model/(.+)/(converse|converse-stream|invoke|invoke-with-response-stream)")
_PROMPT_FIELDS = ("prompt", "messages", "system", "input", "instructions")


class BadBody(ValueError):
    """An invalid body; the text is the message of the ValidationException."""


@dataclass(frozen=True, slots=True)
class Target:
    """The operation and the model of a path. `model` is a decoded ARN or id."""

    model: str
    converse: bool
    streamed: bool


def read_path(path: str) -> Target | None:
    """Return the target of the path, or None when the path is not one of the four operations."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    return Target(unquote(match[1]), match[2].startswith("converse"), "stream" in match[2])


def read_json(data: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBody(f"Malformed input request, please reformat your input and try again: {error}") from None
    if not isinstance(body, dict):
        raise BadBody("Malformed input request: #: expected type: JSONObject")
    return body


def require(body: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if body.get(name) in (None, "", []):
            raise BadBody(f"Malformed input request: #: required key [{name}] not found")


def cap(body: Mapping[str, Any], paths: Sequence[str], default: int) -> int:
    """Return the number of tokens of the answer, from paths such as `a.b`. Raises BadBody for a cap out of range."""
    for path in paths:
        wanted: Any = body
        for name in path.split("."):
            wanted = wanted.get(name) if isinstance(wanted, Mapping) else None
        if wanted is None:
            continue
        if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= 1_000_000:
            raise BadBody(f"Malformed input request: #/{path.replace('.', '/')}: {wanted!r} is not from 1 to 1000000")
        return wanted
    return default


def prompt_tokens(body: Mapping[str, Any]) -> int:
    return sum(_words(body.get(name)) for name in _PROMPT_FIELDS)


def _words(value: Any) -> int:
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(map(_words, value))
    if isinstance(value, dict):
        return sum(_words(value.get(name)) for name in ("content", "text"))
    return 0


STREAM_TYPE = "application/vnd.amazon.eventstream"
EVENT_START = (_GIANT := struct.pack(">II", 64 << 20, 64)) + struct.pack(">I", crc32(_GIANT))
"""The prelude of a message of 64 MiB: its lengths and their checksum."""
_JSON = "application/json"
_LATENCY_HEADER, _TIER_HEADER = "x-amzn-bedrock-performanceconfig-latency", "x-amzn-bedrock-service-tier"
_TEXT_MARK = "@text@"
_COUNT_MARK = b"%d" % RUNNING_COUNT
# Bedrock pads its events to hide the length of a token; the content of the padding does not matter.
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_PADDING = tuple(b',"p":"%b"}' % _ALPHABET[: 4 + (i * 23) % 58].encode() for i in range(64))
# The arguments of a tool call are JSON inside JSON.
_CALL_START, _CALL_END = b'{\\"text\\": \\"', b'\\"}'


_BLOCKS = {
    name: encode_headers({":event-type": name, ":content-type": _JSON, ":message-type": "event"})
    for name in ("chunk", "messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop",
                 "metadata")
}  # fmt: skip


def response_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def refusal(error: BedrockError, number: int, *, message: str, headers: dict[str, str], keep_alive: bool) -> bytes:
    """Return the complete error response."""
    names = {"x-amzn-RequestId": response_id(number), "x-amzn-ErrorType": error.code}
    fields: Document = {"message": message or error.message}
    if error.code == "ModelErrorException":
        fields |= {"originalStatusCode": 500, "resourceName": "simulated"}
    return http_wire.response(error.status, json_bytes(fields), headers={**names, **headers}, keep_alive=keep_alive)


@dataclass(slots=True)
class _Block:
    """Tokens from `start` to `end` (exclusive) with one kind of output."""

    index: int
    kind: str
    start: int
    end: int


class BedrockAnswer(WireAnswer):
    """One answer to any of the four operations; `shape` determines its documents."""

    comment_line = b""  # the event-stream protocol has no comments

    def __init__(
        self, spec: Spec, number: int, target: Target, shape: Shape, body: Mapping[str, Any], request: Request
    ) -> None:
        self._begun_ns = time.monotonic_ns()
        self._first_ns = 0
        self._shape = shape
        self._converse = target.converse
        tokens = cap(body, shape.caps, spec.tokens)
        super().__init__(spec, number, request, tokens=tokens, streamed=target.streamed)
        self.response_id = self._identify(number)
        self.prompt_tokens = prompt_tokens(body)
        # The stop token is not part of a block: it is not streamed.
        shown = self._shown = tokens - (spec.stop_tokens(tokens) if self.broken is None else 0)
        thoughts = min(spec.reasoning, shown) if shape.thinks else 0
        calls = min(spec.tool, shown - thoughts) if shape.calls else 0
        self._blocks: list[_Block] = []
        start = 0
        for kind, count in (("thought", thoughts), ("text", shown - thoughts - calls), ("tool", calls)):
            if count:
                self._blocks.append(_Block(len(self._blocks), kind, start, start + count))
                start += count
        # The requested latency mode and service tier: in the body for Converse, in headers for Invoke.
        self._used: Document
        if target.converse:
            settings = {name: body.get(name) for name in ("performanceConfig", "serviceTier")}
            self._used = {name: value for name, value in settings.items() if isinstance(value, dict)}
        else:
            names = (_LATENCY_HEADER, _TIER_HEADER)
            self._used = {name: request.headers[name] for name in names if name in request.headers}
        self.turn = Turn(
            response_id=self.response_id,
            number=number,
            model=target.model.rpartition("/")[2],
            created=int(time.time()),
            prompt_tokens=self.prompt_tokens,
            cached_tokens=min(spec.cached, self.prompt_tokens),
            tokens=tokens,
            thought_tokens=thoughts if spec.reasoning_counted else 0,
            finish="tool" if calls else spec.finish,
            used=self._used if target.converse else {},
        )
        self._block: _Block | None = None
        self._parts: list[bytes] = []
        self._counted = False

    def opening(self) -> bytes:
        if not self.streamed:
            return b""
        headers = {"x-amzn-RequestId": self.response_id}
        if not self._converse:
            headers |= {"x-amzn-bedrock-content-type": _JSON, **self._used}
        head = self.stream_head(STREAM_TYPE, headers)
        return head + self.head() if self.spec.role == "early" else head

    def piece(self, start: int) -> tuple[bytes, int]:
        if start >= self.tokens:  # an exception before the first token
            return self._late_head(), 0
        if start >= self._shown:
            return b"", self.tokens - start
        block = self._block
        before = b""
        if block is None or start >= block.end:
            if start == 0:
                before = self._late_head()
            before += self._turn_to(next(block for block in self._blocks if start < block.end))
            block = self._block
            assert block is not None
        count = min(self.spec.tokens_per_chunk, min(block.end, self.tokens) - start)
        if not self.streamed:
            return b"", count
        if start == 0:
            self._first_ns = time.monotonic_ns()
        shown = count
        if block.kind == "thought" and self.spec.reasoning_shown != "full":
            shown = int(self.spec.reasoning_shown == "summary" and start % SUMMARY_STEP == 0)
        if not shown:
            self.held += before
            return b"", count
        text = words(self.number, start, shown)
        if start == block.start:
            text = text[1:]
        if block.kind == "tool":
            text = (_CALL_START if start == block.start else b"") + text
            text += _CALL_END if start + count == block.end else b""
        parts = self._parts
        document = parts[0] + text + parts[1]
        if self._counted:
            document += b"%d" % (start + count) + parts[2]
        data = self._event("contentBlockDelta", document, start)
        data = before + (b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)
        data, self.held = self.held + data, b""
        if self.spec.buffered:  # the spec simulates a proxy that holds the answer
            data, self.held = b"", data
        return data, count

    def closing(self) -> bytes:
        turn = self.turn
        turn.latency_ms = self._since_ms(time.monotonic_ns())
        texts = {
            block.kind: words(self.number, block.start, block.end - block.start).decode().strip()
            for block in self._blocks
        }
        turn.thought, turn.text, turn.call = (texts.get(kind, "") for kind in ("thought", "text", "tool"))
        if not self.streamed:
            return self._whole()
        if self.outcome == "cut":
            return b""
        data = b""
        if self.broken is not None:
            data = self._failure(self.broken.error)
        elif self.spec.done:
            closes = [] if self._block is None else self._shape.closes(self._block.kind, self._block.index)
            data = self.held + self._documents([*closes, *self._with_metrics(self._shape.tail(turn))])
        return self.ended(data)

    def _identify(self, number: int) -> str:
        return response_id(number)

    def _failure(self, error: str) -> bytes:
        """Return the frame that ends the stream with an error."""
        fields: Document = {"message": STREAM_ERRORS[error]}
        if error == "modelStreamErrorException":
            fields |= {"originalStatusCode": 500, "originalMessage": "the model's process ended"}
        headers = {":exception-type": error, ":content-type": _JSON, ":message-type": "exception"}
        return self.framed(encode(headers, json_bytes(fields)))

    def _with_metrics(self, tail: list[Document]) -> list[Document]:
        """Return the last documents with the metrics of the service."""
        if self.spec.usage == "off":
            return [document for document in tail if "metadata" not in document]
        if not self._converse:
            turn = self.turn
            metrics = {"inputTokenCount": turn.fresh_tokens, "outputTokenCount": turn.tokens}
            if turn.cached_tokens:
                metrics |= {"cacheReadInputTokenCount": turn.cached_tokens, "cacheWriteInputTokenCount": 0}
            metrics |= {"invocationLatency": turn.latency_ms, "firstByteLatency": self._since_ms(self._first_ns)}
            tail[-1]["amazon-bedrock-invocationMetrics"] = metrics
        return tail

    def _since_ms(self, stamp_ns: int) -> int:
        return (stamp_ns - self._begun_ns) // 1_000_000

    def head(self) -> bytes:
        return self._documents(self._shape.head(self.turn))

    def _late_head(self) -> bytes:
        return self.head() if self.streamed and self.spec.role in ("late", "with-first") else b""

    def _turn_to(self, block: _Block) -> bytes:
        """Begin a block and build the parts of its events that are the same for every token."""
        shape, old = self._shape, self._block
        self._block = block
        if not self.streamed:
            return b""
        closes = [] if old is None else shape.closes(old.kind, old.index)
        document = shape.delta(self.delta_kind(block), block.index, _TEXT_MARK, self.turn)
        text = json_bytes(document["contentBlockDelta"] if self._converse else document)
        start, _, end = text.rpartition(_TEXT_MARK.encode())  # the model name comes before the text
        # The padding replaces the last brace.
        self._parts = [start, *(end[:-1] if self._converse else end).split(_COUNT_MARK)]
        self._counted = len(self._parts) == 3
        return self._documents([*closes, *shape.opens(block.kind, block.index)])

    def delta_kind(self, block: _Block) -> str:
        """Return the kind of output that the deltas of a block declare."""
        is_summary = block.kind == "thought" and self.spec.reasoning_shown == "summary"
        return self._shape.summary if is_summary else block.kind

    def _documents(self, documents: list[Document]) -> bytes:
        """Return the documents, every one in a separate frame, all in one HTTP chunk."""
        frames = []
        for index, document in enumerate(documents):
            if self._converse:
                ((name, value),) = document.items()
                frames.append(self._event(name, json_bytes(value)[:-1], index))
            else:
                frames.append(self._event("", json_bytes(document), index))
        return self.framed(b"".join(frames)) if frames else b""

    def _event(self, name: str, document: bytes, salt: int) -> bytes:
        """Return the frame of one document. For Converse, pass the document without its last brace."""
        padding = _PADDING[(self.number * 31 + salt * 17) & 63]
        if self._converse:
            return frame(_BLOCKS[name], document + padding)
        return frame(_BLOCKS["chunk"], b'{"bytes":"' + b64encode(document) + b'"' + padding)

    def _whole(self) -> bytes:
        turn = self.turn
        headers = {"x-amzn-RequestId": self.response_id}
        if not self._converse:
            headers |= self._used
            if self.spec.usage != "off":
                headers |= {
                    "x-amzn-bedrock-input-token-count": str(turn.fresh_tokens),
                    "x-amzn-bedrock-output-token-count": str(turn.tokens),
                    "x-amzn-bedrock-invocation-latency": str(turn.latency_ms),
                }
                if turn.cached_tokens:
                    headers["x-amzn-bedrock-cache-read-input-token-count"] = str(turn.cached_tokens)
                    headers["x-amzn-bedrock-cache-write-input-token-count"] = "0"
        return self.whole_response(json_bytes(self._shape.whole(turn)), headers)
