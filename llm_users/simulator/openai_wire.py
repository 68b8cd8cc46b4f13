"""OpenAI's JSON: request bodies, answers as server-sent events or as one object, error bodies.

A token is one word of text, so a client can count the tokens that it received; the tokens of a prompt are its words
according to `str.split`. It does not depend on sockets or the schedule.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from llm_users.simulator import numerals
from llm_users.simulator.answer import WireAnswer
from llm_users.simulator.bedrock.errors import STREAM_ERRORS
from llm_users.simulator.http_wire import Request
from llm_users.simulator.spec import Spec

# Shakespeare's first sonnet in plain ASCII. The event templates rely on text without characters that JSON escapes.
_SONNET = (
    "from fairest creatures we desire increase that thereby beautys rose might never die but as the riper should by "
    "time decease his tender heir might bear his memory but thou contracted to thine own bright eyes feedst thy "
    "lights flame with self-substantial fuel making a famine where abundance lies"
)
_SPACED = [b" " + word.encode() for word in _SONNET.split()]
EVENT_START = b'data: {"x": "'
MOST_CHOICES = 8
json_bytes = msgspec.json.encode
SUMMARY_STEP = 10
"""A summary of the reasoning has one word for this number of reasoning tokens."""
STREAM_TYPE = "text/event-stream; charset=utf-8"


class Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        content = self.content or ""
        return content if isinstance(content, str) else " ".join(part.text or "" for part in content)


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Body(msgspec.Struct, kw_only=True):
    model: str = ""
    stream: bool | None = False
    stream_options: StreamOptions | UnsetType | None = UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None


class ChatBody(_Body, kw_only=True):
    """The fields of POST /chat/completions that the simulator uses; it ignores all others."""

    messages: list[Message]

    def question(self) -> str:
        """Return the text of the last message."""
        return self.messages[-1].text if self.messages else ""

    def prompt_tokens(self) -> int:
        return sum(len(message.text.split()) for message in self.messages)


class TextBody(_Body, kw_only=True):
    """The fields of POST /completions that the simulator uses. A prompt of token ids has one token per id."""

    prompt: str | list[str | int | list[int]] = ""

    def question(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else ""

    def prompt_tokens(self) -> int:
        if isinstance(self.prompt, str):
            return len(self.prompt.split())
        items = (item.split() if isinstance(item, str) else item for item in self.prompt)
        return sum(len(item) if isinstance(item, list) else 1 for item in items)


Body = ChatBody | TextBody
_CHAT_DECODER = msgspec.json.Decoder(ChatBody)
_TEXT_DECODER = msgspec.json.Decoder(TextBody)


def read_body(data: bytes, *, chat: bool) -> Body:
    """Parse a request body. Raises ValueError with a message for the client."""
    try:
        body: Body = _CHAT_DECODER.decode(data) if chat else _TEXT_DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"We could not parse the JSON body of your request: {error}") from None
    if body.n is not None and not 1 <= body.n <= MOST_CHOICES:
        raise ValueError(f"n must be from 1 to {MOST_CHOICES}, got {body.n}")
    prompts = body.prompt if isinstance(body, TextBody) and isinstance(body.prompt, list) else []
    if len(prompts) > 1 and not all(isinstance(item, int) for item in prompts):
        raise ValueError("prompt must be one prompt: this endpoint gives one choice")
    return body


def cap(body: Body, spec: Spec) -> int:
    """Return the number of tokens of the answer. Raises ValueError for a cap out of range."""
    name, wanted = "max_completion_tokens", body.max_completion_tokens
    if wanted is None:
        name, wanted = "max_tokens", body.max_tokens
    if wanted is None:
        return spec.tokens
    if not 1 <= wanted <= 1_000_000:
        raise ValueError(f"{name} must be from 1 to 1000000, got {wanted}")
    return wanted


def error_body(shape: str, status: int, message: str, code: str | None = None, kind: str = "") -> tuple[bytes, str]:
    """Return the body and the content type of an error, in one of the shapes that servers use.

    ``kind`` is the type of the error; empty: the one for the status.
    """
    if shape == "empty":
        return b"", ""
    if shape == "text":
        return message.encode(), "text/plain; charset=utf-8"
    if shape == "string":
        return json_bytes({"error": message}), "application/json"
    if shape == "detail":
        return json_bytes({"detail": message}), "application/json"
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kind or kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return json_bytes({"error": {"message": message, "type": kind, "param": None, "code": code}}), "application/json"


def extra_field_body(options: StreamOptions | None) -> bytes:
    """Return the error body of a FastAPI server with strict models for the unknown field ``stream_options``."""
    value = None if options is None else {"include_usage": options.include_usage}
    location = ["body", "stream_options"]
    detail = {"type": "extra_forbidden", "loc": location, "msg": "Extra inputs are not permitted", "input": value}
    return json_bytes({"detail": [detail]})


def words(number: int, start: int, count: int) -> bytes:
    """Return the text of the tokens from start to start + count (exclusive), with a space before each word."""
    if count == 1:
        return _SPACED[(number * 7 + start) % len(_SPACED)]
    return b"".join(_SPACED[(number * 7 + i) % len(_SPACED)] for i in range(start, start + count))


class OpenAIAnswer(WireAnswer):
    """One answer to a chat or text completion, as a stream of events or as one JSON object."""

    def __init__(self, spec: Spec, number: int, body: Body, request: Request, *, active: int = 0) -> None:
        tokens = cap(body, spec)
        super().__init__(spec, number, request, tokens=tokens, streamed=bool(body.stream))
        self._chat = isinstance(body, ChatBody)
        self.response_id = response_id(number, chat=self._chat)
        self.prompt_tokens = body.prompt_tokens()
        # With several choices, every choice is shorter than the previous one, and the first one ends the answer.
        self._choices = body.n or 1
        shorter = self.tokens // (2 * self._choices)
        self._lengths = [self.tokens - choice * shorter for choice in range(self._choices)]
        self._stop_tokens = spec.stop_tokens(self._lengths[-1]) if self.broken is None else 0
        self._reasoning = min(spec.reasoning, tokens) if self._chat else 0
        self._is_plain = not (
            self._choices > 1
            or self._stop_tokens
            or spec.usage == "every"
            or spec.buffered
            or (self._reasoning and spec.reasoning_shown != "full")
        )
        self.answered, self._digits = numerals.answer(spec, number, body.question(), active)
        self._begun_ns = self._first_ns = time.monotonic_ns()
        self._model = body.model or spec.model
        self._created = int(time.time())
        options = body.stream_options
        asked = isinstance(options, StreamOptions) and options.include_usage
        self._usage_event = spec.usage == "always" or (spec.usage in ("on", "every") and asked)
        # The parts of an event that are the same for every token are built once per answer.
        name = "chat.completion.chunk" if self._chat else "text_completion"
        base = {"id": self.response_id, "object": name, "created": self._created, "model": self._model}
        self._base = json_bytes(base)[:-1]
        start = b"data: " + self._base + b',"choices":[{"index":0,'
        self._role_late = self._chat and self.streamed and spec.role in ("late", "with-first")
        self._start = start
        self._text_start = start + (b'"delta":{"content":"' if self._chat else b'"text":"')
        self._thought_start = start + b'"delta":{"reasoning_content":"'
        self._text_end = b'"%b,"logprobs":null,"finish_reason":null}]}\n\n' % (b"}" if self._chat else b"")

    def opening(self) -> bytes:
        if not self.streamed:
            return b""
        head = self.stream_head(STREAM_TYPE, {"x-request-id": self.response_id})
        role = self._role_event() if self._chat and self.spec.role == "early" else b""
        if self.spec.buffered:
            self.held, role = role, b""
        return head + role

    def piece(self, start: int) -> tuple[bytes, int]:
        if start >= self.tokens:  # an error before the first token
            return b"", 0
        if not start:
            self._first_ns = time.monotonic_ns()
        if not self._is_plain:
            return self._general_piece(start)
        end = min(self._reasoning, self.tokens) if start < self._reasoning else self.tokens
        count = min(self.spec.tokens_per_chunk, end - start)
        if not self.streamed:
            return b"", count
        text = self._words(start, count)
        if start in (0, self._reasoning):
            text = text[1:]
        event = (self._thought_start if start < self._reasoning else self._text_start) + text + self._text_end
        data = b"%x\r\n%b\r\n" % (len(event), event) if self.chunked else event
        return (self._role_event() + data if start == 0 and self._role_late else data), count

    def _general_piece(self, start: int) -> tuple[bytes, int]:
        """Return a piece with several choices, tokens without a chunk, usage in every event, or a buffering proxy."""
        ends = (min(self._reasoning, self.tokens), self.tokens - self._stop_tokens, self.tokens)
        count = min(self.spec.tokens_per_chunk, next(end for end in ends if start < end) - start)
        if not self.streamed:
            return b"", count
        data = b"".join(self._choice_piece(choice, start, count) for choice in range(self._choices))
        if start == 0 and self._role_late:
            data = self._role_event() + data
        if self.spec.buffered:
            self.held += data
            data = b""
        return data, count

    def _choice_piece(self, choice: int, start: int, count: int) -> bytes:
        """Return the events of one choice for ``count`` tokens from ``start``; empty when the choice has ended."""
        spec, length = self.spec, self._lengths[choice]
        count = min(count, length - start)
        if count <= 0:
            return b""
        shown, is_thought = min(count, length - self._stop_tokens - start), start < self._reasoning
        if is_thought and spec.reasoning_shown != "full":
            shown = int(spec.reasoning_shown == "summary" and start % SUMMARY_STEP == 0)
        data = b""
        if shown > 0:
            text = self._words(start, shown)
            text = text[1:] if start in (0, self._reasoning) else text
            name = b"reasoning_content" if is_thought else b"content"
            delta = b'"delta":{"%b":"%b"}' % (name, text) if self._chat else b'"text":"%b"' % text
            data = self._choice_event(choice, delta, b"null", start + count)
        if choice and start + count == length:  # the first choice ends with the answer
            data += self._choice_event(choice, b'"delta":{}' if self._chat else b'"text":""', b'"%b"', length)
        return data

    def _choice_event(self, choice: int, delta: bytes, reason: bytes, tokens: int) -> bytes:
        """Return an event of one choice; ``tokens`` is the number of its tokens so far."""
        if reason != b"null":
            reason = reason % self.spec.finish.encode()
        usage = b',"usage":' + json_bytes(self._counts(tokens)) if self.spec.usage == "every" else b""
        fields = b'"choices":[{"index":%d,%b,"logprobs":null,"finish_reason":%b}]' % (choice, delta, reason)
        return self.framed(b"data: " + self._base + b"," + fields + usage + b"}\n\n")

    def _words(self, start: int, count: int) -> bytes:
        """Return the text of tokens; the first word of the answer is the requested number, if there is one."""
        if not self._digits or start != self._reasoning or not count:
            return words(self.number, start, count)
        return b" " + self._digits + (words(self.number, start + 1, count - 1) if count > 1 else b"")

    def closing(self) -> bytes:
        if not self.streamed:
            return self._whole()
        if self.broken is not None:
            error = self.broken.error
            if not error:
                return b""
            fields = {"message": STREAM_ERRORS[error], "type": error, "param": None, "code": None}
            return self.ended(self.framed(b"data: " + json_bytes({"error": fields}) + b"\n\n"))
        usage = b',"usage":' + json_bytes(self._usage())
        times = b"".join(b',"%b":%b' % (name.encode(), json_bytes(value)) for name, value in self._times().items())
        delta = b'"delta":{},' if self._chat else b'"text":"",'
        finish = delta + b'"logprobs":null,"finish_reason":"%b"}]' % self.spec.finish.encode()
        in_finish = usage if self.spec.usage == "finish" else b""
        if self.spec.usage == "every":
            in_finish = b',"usage":' + json_bytes(self._counts(self.tokens))
        in_finish += b"" if self._usage_event else times
        data = self.held + self.framed(self._start + finish + in_finish + b"}\n\n")
        if self._usage_event:
            data += self.framed(b"data: " + self._base + b',"choices":[]' + usage + times + b"}\n\n")
        if self.spec.done:
            data += self.framed(b"data: [DONE]\n\n")
        return self.ended(data)

    def _role_event(self) -> bytes:
        content = b"null" if self.spec.role_content == "null" else b'""'
        delta = b'"delta":{"role":"assistant","content":%b},' % content
        return self.framed(self._start + delta + b'"logprobs":null,"finish_reason":null}]}\n\n')

    def _usage(self) -> dict[str, Any]:
        usage: dict[str, Any] = self._counts(sum(self._lengths))
        if self.spec.cached:
            usage["prompt_tokens_details"] = {"cached_tokens": min(self.spec.cached, self.prompt_tokens)}
        if self._reasoning and self.spec.reasoning_counted:
            thoughts = sum(min(self._reasoning, length) for length in self._lengths)
            usage["completion_tokens_details"] = {"reasoning_tokens": thoughts}
        if self.spec.server_times == "groq":
            usage |= self._phases()
        return usage

    def _times(self) -> dict[str, Any]:
        """Return the fields beside usage with the times of this answer until now, if the spec asks for them."""
        if self.spec.server_times == "cerebras":
            return {"time_info": {**self._phases(), "created": self._created}}
        if self.spec.server_times != "llamacpp":
            return {}
        phases, cached = self._phases(), min(self.spec.cached, self.prompt_tokens)
        timings = {
            "cache_n": cached,
            "prompt_n": self.prompt_tokens - cached,
            "prompt_ms": phases["prompt_time"] * 1e3,
            "predicted_n": sum(self._lengths),
            "predicted_ms": phases["completion_time"] * 1e3,
        }
        return {"timings": timings}

    def _phases(self) -> dict[str, float]:
        """Return the times in seconds from the request to the first token, and from there until now."""
        prompt_s, total_s = ((ns - self._begun_ns) / 1e9 for ns in (self._first_ns, time.monotonic_ns()))
        return {
            "queue_time": 0.0, "prompt_time": prompt_s, "completion_time": total_s - prompt_s, "total_time": total_s,
        }  # fmt: skip

    def _counts(self, tokens: int) -> dict[str, Any]:
        tokens = self.spec.usage_tokens(tokens)
        total = self.prompt_tokens + tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": tokens, "total_tokens": total}

    def _whole(self) -> bytes:
        body: dict[str, Any] = {
            "id": self.response_id,
            "object": "chat.completion" if self._chat else "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [self._whole_choice(choice, length) for choice, length in enumerate(self._lengths)],
        }
        if self.spec.usage != "off":
            body["usage"] = self._usage()
        body |= self._times()
        return self.whole_response(json_bytes(body), {"x-request-id": self.response_id})

    def _whole_choice(self, index: int, length: int) -> dict[str, Any]:
        text = self._words(self._reasoning, length - self._stop_tokens - self._reasoning).decode().strip()
        choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": self.spec.finish}
        if not self._chat:
            return {**choice, "text": text}
        choice["message"] = {"role": "assistant", "content": text}
        if self._reasoning and self.spec.reasoning_shown == "full":
            choice["message"]["reasoning_content"] = words(self.number, 0, self._reasoning).decode().strip()
        return choice


def response_id(number: int, *, chat: bool) -> str:
    return f"{'chatcmpl' if chat else 'cmpl'}-{number:08d}"
