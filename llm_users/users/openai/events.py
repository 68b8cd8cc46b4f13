"""Convert the events of OpenAI's chat and legacy completions to chunks, in the variants that servers send.

The input is the data of one event. The module does not depend on the transport or on Locust.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
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
from llm_users.users.openai.reasoning import (
    NO_REASONING,
    REASONING_NAMES,
    list_of,
    reasoning_of,
    split_content,
    text_of,
)
from llm_users.users.openai.usage import OpenAIUsage
from llm_users.users.response_stream import Events
from llm_users.users.tool_calls import ToolCalls

MOST_CHOICES = 1024
"""Limit on choices per answer after the first, because the limits on text do not apply to choices without text."""

_NO_REASON = frozenset(("null", "none", "false"))
"""Finish reasons, in lower case, that servers send instead of JSON's null (KoboldCpp, DashScope)."""


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    thinking: Any = None
    reasoning_details: Any = None
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
    usage: Any = None


class _Event(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    timings: Any = None
    time_info: Any = None


_decoder = msgspec.json.Decoder(_Event)
_decode_event, _decode_lines = _decoder.decode, _decoder.decode_lines


class OpenAIEvents(Events):
    """Accumulates the data of all events: chunks, tool calls, usage, finish reasons and response id."""

    def __init__(self, choices: int = 1) -> None:
        """``choices``: the number of requested choices (``n``)."""
        super().__init__()
        self._expected = choices
        self._first: int | None = None  # the server's index of the first choice
        self._plain: int | None = None  # the same, until a choice has a finish reason
        self._others: dict[int, bool] = {}  # choices after the first -> whether they have finished
        self._just_ended: int | None = None  # the choice with the latest finish reason
        self._other_calls: defaultdict[int, ToolCalls] = defaultdict(ToolCalls)
        self._usage = OpenAIUsage()
        self._streams_reasoning = False  # the reasoning itself is streamed, not only a summary
        self.timings: Any = None  # llama.cpp's own times, of the latest event that had them
        self.time_info: Any = None  # Cerebras' own times

    @property
    def usage(self) -> dict[str, Any] | None:
        """The usage of the whole answer."""
        return self._usage.of_answer(self.chunks)

    @property
    def counted(self) -> bool:
        """True if the server has sent the number of output tokens."""
        return self._usage.counted

    @property
    def complete(self) -> bool:
        """True if the answer ended with a terminator: a finish reason for each choice, or [DONE]."""
        return self.done or (self.finish_reason is not None and all(self._others.values()))

    @property
    def output_complete(self) -> bool:
        """True if the output of all choices is complete; usage may still follow."""
        return self.complete and len(self._others) + 1 >= self._expected

    def take(self, data: bytes, stamp_ns: int, clock_ns: int) -> None:
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
            event = self._lenient_event(value)
        choices = event.choices
        if event.error or not choices:
            refuse_error(value or data)
        if not self.response_id:
            self.response_id = event.id
        if choices:
            for choice in choices:
                if choice.index == self._plain and not choice.finish_reason and choice.usage is None:
                    self._choice(choice, stamp_ns, clock_ns, 0)
                else:
                    self._special_choice(choice, stamp_ns, clock_ns)
        if event.usage or event.x_groq is not None:
            self._take_usage(event, stamp_ns, clock_ns)
        if event.timings is not None or event.time_info is not None:
            self._take_times(event.timings, event.time_info)

    def take_texts(self, events: list[bytes], stamps_ns: Sequence[int], clocks_ns: Sequence[int]) -> int:
        while events and not events[-1].startswith(b"{"):  # [DONE]
            events.pop()
        try:
            decoded = _decode_lines(b"\n".join(events)) if self._plain is not None else []
        except (msgspec.DecodeError, UnicodeDecodeError):
            return 0
        texts: list[str] = []
        if len(decoded) == len(events):  # otherwise, a JSON value has several lines
            for event in decoded:
                choices = event.choices
                if event.error or event.usage or event.x_groq is not None or not choices or len(choices) > 1:
                    break
                choice = choices[0]
                is_plain = choice.index == self._plain and not choice.finish_reason and choice.usage is None
                if not is_plain or choice.delta is None or (text := _only_text(choice.delta)) is None:
                    break
                texts.append(text)
                self.response_id = self.response_id or event.id
        self.chunks.add_texts(stamps_ns[: len(texts)], clocks_ns[: len(texts)], texts)
        return len(texts)

    def _choice(self, choice: _Choice, stamp_ns: int, clock_ns: int, index: int) -> None:
        delta = choice.delta
        if delta is None:
            if choice.error:
                raise failure_from(choice.error)
            if type(choice.message) is dict:  # sent instead of ``delta``: a piece, or the whole answer in one event
                delta = _delta_of(choice.message)
                if choice.finish_reason and self.chunks.texts and delta.content == self.chunks.text_of(index):
                    delta = _Delta()  # the last event repeats the text of the pieces
                self._other_delta(choice, delta, stamp_ns, clock_ns, index)
            elif choice.text:
                self.chunks.add(stamp_ns, clock_ns, choice.text, "", index)
            return
        text = _only_text(delta)
        if text is not None:
            self.chunks.add(stamp_ns, clock_ns, text, "", index)
        else:
            self._other_delta(choice, delta, stamp_ns, clock_ns, index)

    def _other_delta(self, choice: _Choice, delta: _Delta, stamp_ns: int, clock_ns: int, index: int) -> None:
        """Process a delta that is not only a piece of text."""
        content = delta.content
        if type(content) is str:
            answer, thought = content, NO_REASONING
        else:
            answer, thought = split_content(content) if content else ("", NO_REASONING)
        if not thought[0]:
            values = (delta.reasoning_content, delta.reasoning, delta.reasoning_text, delta.thinking)
            thought = reasoning_of(values, delta.reasoning_details)
        reasoning, is_summary = thought
        if reasoning:
            self._streams_reasoning = self._streams_reasoning or not is_summary
            self.chunks.reasoning_is_summary = not self._streams_reasoning
        if type(delta.refusal) is str:
            answer += delta.refusal
        if choice.error:
            raise failure_from(choice.error)
        if not answer and choice.text:
            answer = choice.text
        piece, audible = "", False
        if delta.tool_calls or delta.function_call or delta.audio:
            calls = self._calls_of(index)
            piece = calls.take(delta.tool_calls)
            if type(delta.function_call) is dict:  # OpenAI's older format: one call without id and index
                piece += calls.take([{"index": 0, "function": delta.function_call}])
            if type(delta.audio) is dict:
                answer += text_of(delta.audio.get("transcript"))
                audible = bool(delta.audio.get("data"))
        if piece or audible:
            self.chunks.add_other(stamp_ns, clock_ns, answer, piece, reasoning, index)
        elif answer or reasoning:
            self.chunks.add(stamp_ns, clock_ns, answer, reasoning, index)

    def _special_choice(self, choice: _Choice, stamp_ns: int, clock_ns: int) -> None:
        """Process a choice that is not the first one or has finished. Output after a finish reason removes it."""
        if choice.finish_reason and choice.error:
            raise failure_from(choice.error)
        self._just_ended = None
        index, earlier_chunks = self._index_of(choice.index), len(self.chunks.texts)
        self._choice(choice, stamp_ns, clock_ns, index)
        if index in self.chunks.endings and len(self.chunks.texts) > earlier_chunks:
            self.chunks.go_on(index)
            if index:
                self._others[index] = False
            else:
                self.finish_reason = None
        reason = choice.finish_reason
        if reason and reason.lower() not in _NO_REASON:
            self.chunks.end(reason, stamp_ns, clock_ns, index)
            self._plain, self._just_ended = None, index
            if index:
                self._add_choice(index)
                self._others[index] = True
            else:
                self.finish_reason = reason
        if choice.usage and type(choice.usage) is dict:
            self._usage.take(choice.usage, choice=index)
            self._count_tokens(choice.usage, stamp_ns, clock_ns, index)

    def _index_of(self, server_index: int) -> int:
        """Return our index of a choice; the first one has 0. If there is only one, the server may use any index."""
        if self._first is None:
            self._first = self._plain = server_index if self._expected == 1 else 0
        if server_index == self._first:
            return 0
        index = server_index or self._first
        if index not in self._others:
            self._add_choice(index)
        return index

    def _add_choice(self, index: int) -> None:
        """Register a choice after the first one. Raises ``MalformedEvent`` if there are too many."""
        if self._others.setdefault(index, False) is False and len(self._others) > max(MOST_CHOICES, self._expected):
            raise MalformedEvent(f"the answer has more than {MOST_CHOICES} choices")

    def _calls_of(self, index: int) -> ToolCalls:
        """Return the tool calls of a choice."""
        return self._other_calls[index] if index else self.calls

    def _take_usage(self, event: _Event, stamp_ns: int, clock_ns: int) -> None:
        """Process usage in an event: of all choices, of its only choice, or of the choice that just ended."""
        usage = event.usage or (event.x_groq.get("usage") if type(event.x_groq) is dict else None)
        if not usage or type(usage) is not dict:
            return
        if not event.choices:
            self._usage.take(usage, finished=self._just_ended)
            for index, choice_usage in self._usage.of_choices.items():
                self._count_tokens(choice_usage, stamp_ns, clock_ns, index)
            if self._just_ended is None and self._expected == 1 and not self._others:
                self._count_tokens(usage, stamp_ns, clock_ns, 0)  # some gateways send usage after every chunk
        elif len(event.choices) == 1:
            index = self._index_of(event.choices[0].index)
            self._usage.take(usage, choice=index)
            self._count_tokens(usage, stamp_ns, clock_ns, index)
        else:
            self._usage.take(usage)

    def _take_times(self, timings: Any, time_info: Any) -> None:
        """Keep the server's own times. Some servers send them with every chunk; the latest ones are of the end."""
        self.timings = timings or self.timings
        self.time_info = time_info or self.time_info

    def _count_tokens(self, usage: dict[str, Any], stamp_ns: int, clock_ns: int, index: int) -> None:
        """Record the running token count of a choice, which some servers send with every chunk."""
        tokens = usage.get("completion_tokens")
        if type(tokens) is int and tokens >= 0:
            self.chunks.count_tokens(tokens, stamp_ns, clock_ns, index)

    def _lenient_event(self, value: dict[str, Any]) -> _Event:
        """Convert valid JSON of an unexpected shape; fields that cannot be interpreted are ignored."""
        choices = []
        for raw in list_of(value.get("choices")):
            if isinstance(raw, dict):
                delta, reason = raw.get("delta"), raw.get("finish_reason")
                error = raw.get("error")
                if isinstance(reason, dict):  # SGLang: {"type": "abort", "message": "..."}
                    error = error or (reason if reason.get("message") else None)
                    reason = reason.get("type")
                choices.append(
                    _Choice(
                        delta=_delta_of(delta) if isinstance(delta, dict) else None,
                        text=text_of(raw.get("text")) or None,
                        finish_reason=None if reason is None else str(reason),
                        index=index if type(index := raw.get("index")) is int else 0,
                        message=raw.get("message"),
                        error=error,
                        usage=raw.get("usage"),
                    )
                )
        identifier = value.get("id")
        return _Event(
            id=None if identifier is None else str(identifier),
            choices=choices,
            usage=value.get("usage"),
            error=value.get("error"),
            x_groq=value.get("x_groq"),
            timings=value.get("timings"),
            time_info=value.get("time_info"),
        )

    def take_whole(self, body: bytes) -> None:
        value = object_from(body) or {}
        if value.get("error") or not value.get("choices"):
            refuse_error(value, whole=True)
        identifier, usage = value.get("id"), value.get("usage")
        self.response_id = None if identifier is None else str(identifier)
        if isinstance(usage, dict):
            self._usage.take(usage)
        self._take_times(value.get("timings"), value.get("time_info"))
        for index, choice in enumerate(list_of(value.get("choices"))):
            if isinstance(choice, dict):
                self._whole_choice(index, choice)

    def _whole_choice(self, index: int, choice: dict[str, Any]) -> None:
        message = choice.get("message")
        fields = message if isinstance(message, dict) else {}
        content = fields.get("content")
        answer, thought = split_content(content) if isinstance(content, list) else (text_of(content), NO_REASONING)
        if not thought[0]:
            thought = reasoning_of(map(fields.get, REASONING_NAMES), fields.get("reasoning_details"))
        reasoning = thought[0]
        audio = fields.get("audio")
        spoken = text_of(audio.get("transcript")) if isinstance(audio, dict) else ""
        answer = answer or spoken or text_of(choice.get("text")) or text_of(fields.get("refusal"))
        function = [{"index": 0, "function": fields["function_call"]}] if fields.get("function_call") else []
        calls = self._calls_of(index)
        piece = calls.take(fields.get("tool_calls")) + calls.take(function)
        self.chunks.add_whole(answer, reasoning, call=piece if piece or audio else None, choice=index)
        reason = choice.get("finish_reason")
        if choice.get("error"):
            raise failure_from(choice["error"])
        if index:
            self._others[index] = bool(reason)
            return
        self.finish_reason = str(reason) if reason else self.finish_reason


def _only_text(delta: _Delta) -> str | None:
    """Return the text of a delta that is only a piece of text; None for any other delta."""
    content = delta.content
    if (
        type(content) is str
        and content
        and delta.tool_calls is None
        and delta.reasoning_content is None
        and delta.reasoning is None
        and not delta.reasoning_details
    ):
        return content
    return None


def _delta_of(fields: dict[str, Any]) -> _Delta:
    """Convert the known fields of a delta, or of a message instead of a delta."""
    return _Delta(**{name: value for name, value in fields.items() if name in _Delta.__struct_fields__})
