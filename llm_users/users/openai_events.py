"""The events of OpenAI's streams, chat and legacy completions, in the dialects that servers speak.

Bytes of one event in, chunks out. Knows no transport and no Locust.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_users.transport.sse import NamedEvent
from llm_users.users.bad_events import (
    DONE,
    MalformedEvent,
    failure_from,
    is_done,
    json_or_text,
    object_despite,
    object_from,
    refuse_error,
)
from llm_users.users.chunks import Chunks
from llm_users.users.tool_calls import ToolCalls

REASONING_NAMES = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
"""Where servers put reasoning: DeepSeek, SGLang, llama.cpp the first; vLLM, OpenRouter, Groq, Ollama the second."""

MOST_CHOICES = 1024
"""Of one answer, beyond the first: a choice without text would not be ended by the bounds on texts."""


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    thinking: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    index: int = 0
    message: Any = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class OpenAIEvents:
    """Takes the data of one event after the other; keeps the chunks and what the server said besides."""

    def __init__(self, choices: int = 1) -> None:
        """``choices``: how many were asked for (``n``)."""
        self.chunks = Chunks()
        self._expected = choices
        self._first = 0  # the index that the first choice has
        self._others: dict[int, bool] = {}  # of choices beyond the first: whether they have finished
        self._calls = ToolCalls()
        self._other_calls: dict[int, ToolCalls] = {}
        self.response_id: str | None = None
        self.finish_reason: str | None = None
        self.done = False  # [DONE] was seen
        self.usage: dict[str, Any] | None = None

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls of the first choice."""
        return self._calls.assembled()

    @property
    def complete(self) -> bool:
        """True when the answer ended with a terminator: a finish reason of each choice, or [DONE]."""
        return self.done or (self.finish_reason is not None and all(self._others.values()))

    @property
    def settled(self) -> bool:
        """True when no choice has anything more to say; usage may still come."""
        return self.complete and len(self._others) + 1 >= self._expected

    @property
    def empty(self) -> bool:
        """True when there was no output: no text, no reasoning, no tool call."""
        chunks = self.chunks
        return not (any(chunks.texts) or chunks.reasoning_at or chunks.text_at or self._calls)

    def take(self, data: bytes, stamp_ns: int, clock_ns: int) -> None:
        """One event. Raises ``StreamFailure`` or ``MalformedEvent``."""
        if data == DONE:
            self.done = True
            return
        if type(data) is NamedEvent and data.name == "error":
            raise failure_from(json_or_text(data))
        value = None
        try:
            event = _decode_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            value = object_despite(error, data)
            if value is None:
                self.done = self.done or is_done(data)
                return
            event = self._unusual(value)
        choices = event.choices
        if event.error or not choices:
            refuse_error(value or data)
        if not self.response_id:
            self.response_id = event.id
        if event.usage and type(event.usage) is dict:
            self.usage = event.usage
        if choices:
            for choice in choices:
                self._choice(choice, stamp_ns, clock_ns)
            if event.usage and len(choices) == 1:
                self._count_tokens(event, stamp_ns, clock_ns)

    def _choice(self, choice: _Choice, stamp_ns: int, clock_ns: int) -> None:
        index = choice.index
        if index:
            index = choice.index = self._place_of(index)
        if choice.finish_reason:
            if choice.error:
                raise failure_from(choice.error)
            self._end(choice.finish_reason, stamp_ns, clock_ns, index)
        elif index and index not in self._others:
            self._add_choice(index)
        delta = choice.delta
        if delta is None:
            if type(choice.message) is not dict:
                if choice.error:
                    raise failure_from(choice.error)
                if choice.text:
                    self.chunks.add(stamp_ns, clock_ns, choice.text, "", index)
                return
            delta = self._message_delta(choice, index)
        content = delta.content
        if type(content) is str:
            if content and delta.tool_calls is None and delta.reasoning_content is None and delta.reasoning is None:
                self.chunks.add(stamp_ns, clock_ns, content, "", index)
                return
            answer, reasoning = content, ""
        else:
            answer, reasoning = _parts(content) if content else ("", "")
        reasoning = reasoning or next((v for n in REASONING_NAMES if type(v := getattr(delta, n)) is str and v), "")
        if type(delta.refusal) is str:
            answer += delta.refusal
        if choice.error:
            raise failure_from(choice.error)
        if not answer and choice.text:
            answer = choice.text
        if delta.tool_calls or delta.function_call or delta.audio:
            self._add_other(delta, answer, reasoning, stamp_ns, clock_ns, index)
        elif answer or reasoning:
            self.chunks.add(stamp_ns, clock_ns, answer, reasoning, index)

    def _add_other(self, delta: _Delta, answer: str, reasoning: str, stamp_ns: int, clock_ns: int, index: int) -> None:
        """A chunk with a piece of a tool call, or with audio."""
        calls = self._calls_of(index)
        piece, audible = calls.take(delta.tool_calls), False
        if type(delta.function_call) is dict:  # OpenAI's older way: one call without an id and an index
            piece += calls.take([{"index": 0, "function": delta.function_call}])
        if type(delta.audio) is dict:
            answer += _text_of(delta.audio.get("transcript"))
            audible = bool(delta.audio.get("data"))
        if piece or audible:
            self.chunks.add_other(stamp_ns, clock_ns, answer, piece, reasoning, index)
        elif answer or reasoning:
            self.chunks.add(stamp_ns, clock_ns, answer, reasoning, index)

    def _message_delta(self, choice: _Choice, index: int) -> _Delta:
        """The ``message`` that stands in the place of ``delta``: a piece, or the whole answer in one event."""
        delta = _delta_of(choice.message)
        if choice.finish_reason and self.chunks.texts and delta.content == self.chunks.text_of(index):
            return _Delta()  # the end repeats what came in pieces
        return delta

    def _place_of(self, index: int) -> int:
        """The number of a choice that is not 0. The only one that was asked for is the first, whatever its index."""
        is_new = not (self._first or self._others or self.chunks.texts or self.finish_reason)
        if is_new and self._expected == 1:
            self._first = index
        return 0 if index == self._first else index

    def _end(self, reason: str, stamp_ns: int, clock_ns: int, index: int) -> None:
        """The finish reason of a choice."""
        self.chunks.end(reason, stamp_ns, clock_ns, index)
        if index:
            self._add_choice(index)
            self._others[index] = True
        else:
            self.finish_reason = reason

    def _add_choice(self, index: int) -> None:
        """Another choice than the first has begun."""
        if self._others.setdefault(index, False) is False and len(self._others) > max(MOST_CHOICES, self._expected):
            raise MalformedEvent(f"the answer has more than {MOST_CHOICES} choices")

    def _calls_of(self, index: int) -> ToolCalls:
        """The tool calls of a choice."""
        if not index:
            return self._calls
        calls = self._other_calls.get(index)
        if calls is None:
            calls = self._other_calls[index] = ToolCalls()
        return calls

    def _count_tokens(self, event: _Event, stamp_ns: int, clock_ns: int) -> None:
        """Usage that came with a choice: of some servers in every chunk, the tokens of this choice so far."""
        tokens = event.usage.get("completion_tokens") if type(event.usage) is dict else None
        if type(tokens) is int and tokens >= 0 and event.choices:
            self.chunks.count_tokens(tokens, stamp_ns, clock_ns, event.choices[0].index)

    def _unusual(self, value: dict[str, Any]) -> _Event:
        """Valid JSON of an unexpected shape: take what can be understood."""
        choices = []
        for raw in _list_of(value.get("choices")):
            if isinstance(raw, dict):
                delta, reason = raw.get("delta"), raw.get("finish_reason")
                error = raw.get("error")
                if isinstance(reason, dict):  # SGLang's own: {"type": "abort", "message": "..."}
                    error = error or (reason if reason.get("message") else None)
                    reason = reason.get("type")
                choices.append(
                    _Choice(
                        delta=_delta_of(delta) if isinstance(delta, dict) else None,
                        text=_text_of(raw.get("text")) or None,
                        finish_reason=None if reason is None else str(reason),
                        index=index if type(index := raw.get("index")) is int else 0,
                        message=raw.get("message"),
                        error=error,
                    )
                )
        identifier = value.get("id")
        return _Event(
            id=None if identifier is None else str(identifier),
            choices=choices,
            usage=value.get("usage"),
            error=value.get("error"),
        )

    def take_whole(self, body: bytes) -> None:
        """A complete, unstreamed answer (JSON) to a request that asked for a stream. Its chunks have no stamps."""
        value = object_from(body) or {}
        if value.get("error") or not value.get("choices"):
            refuse_error(value, whole=True)
        identifier, usage = value.get("id"), value.get("usage")
        self.response_id = None if identifier is None else str(identifier)
        self.usage = usage if isinstance(usage, dict) else None
        for index, choice in enumerate(_list_of(value.get("choices"))):
            if isinstance(choice, dict):
                self._whole_choice(index, choice)

    def _whole_choice(self, index: int, choice: dict[str, Any]) -> None:
        message = choice.get("message")
        fields = message if isinstance(message, dict) else {}
        content = fields.get("content")
        answer, reasoning = _parts(content) if isinstance(content, list) else (_text_of(content), "")
        reasoning = reasoning or next((v for n in REASONING_NAMES if (v := _text_of(fields.get(n)))), "")
        texts = self.chunks.texts
        if reasoning:
            self.chunks.reasoning_at[len(texts)] = reasoning
        if index:
            self.chunks.choice_at[len(texts)] = index
        audio = fields.get("audio")
        spoken = _text_of(audio.get("transcript")) if isinstance(audio, dict) else ""
        answer = answer or spoken or _text_of(choice.get("text")) or _text_of(fields.get("refusal"))
        function = [{"index": 0, "function": fields["function_call"]}] if fields.get("function_call") else []
        calls = self._calls_of(index)
        piece = calls.take(fields.get("tool_calls")) + calls.take(function)
        if piece or audio:
            self.chunks.text_at[len(texts)] = answer
        texts.append(answer + piece)
        reason = choice.get("finish_reason")
        if choice.get("error"):
            raise failure_from(choice["error"])
        if index:
            self._others[index] = bool(reason)
            return
        self.finish_reason = str(reason) if reason else self.finish_reason


def _delta_of(fields: dict[str, Any]) -> _Delta:
    """What is known of a delta, or of a message in its place."""
    return _Delta(**{name: value for name, value in fields.items() if name in _Delta.__struct_fields__})


def _parts(content: Any) -> tuple[str, str]:
    """(answer, reasoning) of content given as a list of typed parts, as Mistral's reasoning models do."""
    answer = reasoning = ""
    for part in _list_of(content):
        if not isinstance(part, dict):
            continue
        if part.get("type") in ("thinking", "reasoning"):
            inner = part.get("thinking") or part.get("text") or part.get("reasoning")
            reasoning += inner if isinstance(inner, str) else "".join(_parts(inner))
        else:
            answer += _text_of(part.get("text"))
    return answer, reasoning


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""
