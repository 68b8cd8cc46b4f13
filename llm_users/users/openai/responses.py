"""The Responses API: build requests, convert events to chunks, and count the tokens of a response stream."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from llm_users.prompts import Prompt
from llm_users.record import RequestRecord
from llm_users.transport.errors import ResponseCut
from llm_users.users.bad_events import (
    StreamFailure,
    failure_from,
    json_or_text,
    not_an_event,
    object_despite,
    object_from,
    refuse_error,
)
from llm_users.users.openai.reasoning import list_of, text_of_reasoning
from llm_users.users.response_stream import Events, SseResponseStream
from llm_users.users.token_counts import fill_openai_usage
from llm_users.users.tool_calls import arguments_text, calls_of, without_calls

_T = TypeVar("_T")

_ANSWERS = frozenset(("response.output_text.delta", "response.refusal.delta"))
_THOUGHTS = frozenset(("response.reasoning_text.delta", "response.reasoning.delta"))
_REASONING = _THOUGHTS | {"response.reasoning_summary_text.delta", "response.reasoning_summary.delta"}
_ARGUMENTS = frozenset(
    (
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.mcp_call_arguments.delta",
        "response.code_interpreter_call_code.delta",
    )
)
_CALLS = frozenset(("function_call", "custom_tool_call", "mcp_call"))
"""Items that become tool calls. Actions of the service itself (search, running code) do not."""


class _Response(msgspec.Struct, gc=False):
    id: Any = None
    status: Any = None
    error: Any = None
    incomplete_details: Any = None
    usage: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    delta: Any = None
    output_index: int | None = None
    item: Any = None
    response: _Response | None = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class ResponseEvents(Events):
    """Accumulates the data of all events: chunks, tool calls, usage, finish reason and response id."""

    def __init__(self) -> None:
        super().__init__()
        self.usage: dict[str, Any] | None = None
        self._streams_reasoning = False  # the reasoning itself is streamed, not only a summary
        self._call_of_item: dict[int | None, int] = {}  # index of the item in the output -> index of the call
        self._called_builtin_tool = False  # the service called a built-in tool, such as search

    @property
    def empty(self) -> bool:
        """True without any output: text, reasoning, or calls of the user's or built-in tools."""
        return super().empty and not self._called_builtin_tool

    def take(self, data: bytes, stamp_ns: int, clock_ns: int) -> None:
        event = _event_of(data)
        if event is None:
            return
        kind, text = event.type, event.delta
        if kind in _ANSWERS:
            if type(text) is str and text:
                self.chunks.add(stamp_ns, clock_ns, text, "")
        elif type(text) is str and text:
            if kind in _REASONING:
                self._add_reasoning(text, stamp_ns, clock_ns, is_summary=kind not in _THOUGHTS)
            elif kind in _ARGUMENTS:
                if event.output_index in self._call_of_item:
                    self.calls.add(self._call_of_item[event.output_index], text)
                self.chunks.add_other(stamp_ns, clock_ns, "", text)
        elif type(event.item) is dict:
            self._item(event, stamp_ns, clock_ns)
        elif kind in _REASONING:  # an object instead of text
            self._add_thought(text, stamp_ns, clock_ns, is_summary=kind not in _THOUGHTS)
        elif event.response is not None:
            self._take_response(kind, event.response, event.error, stamp_ns, clock_ns)
        elif kind in ("error", "response.failed"):
            raise failure_from(json_or_text(data))
        elif not kind:
            refuse_error(data)  # every event has a type; an object without one may be an error

    def _add_reasoning(self, text: str, stamp_ns: int, clock_ns: int, *, is_summary: bool) -> None:
        """Add a piece of the reasoning or of its summary. A stream with both counts as streamed reasoning."""
        self._streams_reasoning = self._streams_reasoning or not is_summary
        self.chunks.reasoning_is_summary = not self._streams_reasoning
        self.chunks.add(stamp_ns, clock_ns, "", text)

    def _add_thought(self, value: Any, stamp_ns: int, clock_ns: int, *, is_summary: bool = False) -> None:
        """Add reasoning in any shape, if it has text."""
        thought, of_summary = text_of_reasoning(value)
        if thought:
            self._add_reasoning(thought, stamp_ns, clock_ns, is_summary=is_summary or of_summary)

    def _item(self, event: _Event, stamp_ns: int, clock_ns: int) -> None:
        """Process an item of the output that begins or is complete."""
        if event.item.get("type") in _CALLS:
            self._call(event, stamp_ns, clock_ns)
        elif event.item.get("type") == "reasoning" and not self.chunks.reasoning_at:  # it was not streamed
            self._add_thought(event.item, stamp_ns, clock_ns)
        else:
            self._note_action(event.item)

    def _call(self, event: _Event, stamp_ns: int, clock_ns: int) -> None:
        """Process a tool call that begins or is complete. Its last event has arguments that were not streamed."""
        identifier, name, arguments = _call_of(event.item)
        index = self._call_of_item.get(event.output_index)
        if index is None:
            index = self._call_of_item[event.output_index] = self.calls.begin(identifier, name)
        if event.type == "response.output_item.done" and arguments and not self.calls.has_arguments(index):
            self.calls.add(index, arguments)
            self.chunks.add_other(stamp_ns, clock_ns, "", arguments)

    def _note_action(self, item: dict[str, Any]) -> None:
        """Record an item that does not call the user's tools: built-in calls (``web_search_call``) are output."""
        self._called_builtin_tool = self._called_builtin_tool or str(item.get("type")).endswith("_call")

    def _take_response(self, kind: str, response: _Response, error: Any, stamp_ns: int = 0, clock_ns: int = 0) -> None:
        """Process an event about the whole response: started, completed, incomplete or failed."""
        if self.response_id is None and response.id is not None:
            self.response_id = str(response.id)
        if type(response.usage) is dict:
            self.usage = response.usage
        if kind == "response.failed":
            raise failure_from(response.error or error or {"message": "the response failed without a reason"})
        if kind == "response.cancelled":
            raise StreamFailure("cancelled", "the response was cancelled on the server")
        if kind == "response.completed":
            self.finish_reason, self.done = "completed", True
        elif kind == "response.incomplete":
            details = response.incomplete_details
            reason = details.get("reason") if isinstance(details, dict) else None
            self.finish_reason, self.done = str(reason or "incomplete"), True
        if self.finish_reason is not None:
            self.chunks.end(self.finish_reason, stamp_ns, clock_ns)

    def take_whole(self, body: bytes) -> None:
        value = object_from(body) or {}
        response = _converted(value, _Response, body)
        if response.status is None and "output" not in value:
            refuse_error(value, whole=True)
        if response.status in ("queued", "in_progress"):
            raise ResponseCut(
                f"the answer has the status {response.status!r}: the server generates it in the background"
            )
        self._take_response(f"response.{response.status}", response, None)
        for item in list_of(value.get("output")):
            if isinstance(item, dict):
                self._whole_item(item)

    def _whole_item(self, item: dict[str, Any]) -> None:
        kind = item.get("type")
        if kind in _CALLS:
            identifier, name, arguments = _call_of(item)
            self.calls.add(self.calls.begin(identifier, name), arguments)
            self.chunks.add_whole("", call=arguments)
        elif kind == "reasoning":
            thought = _texts(item.get("content")) or _texts(item.get("summary"))
            if thought:
                self.chunks.add_whole("", thought)
        else:
            self._note_action(item)
            self.chunks.add_whole(_texts(item.get("content")))


def _event_of(data: bytes) -> _Event | None:
    try:
        return _decode_event(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        value = object_despite(error, data)
        return None if value is None else _converted(value, _Event, data)


def _converted(value: Any, kind: type[_T], data: bytes) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise not_an_event(data, error) from None


def _call_of(item: dict[str, Any]) -> tuple[Any, str, str]:
    """Return (id, name, arguments) of an item that calls a tool."""
    arguments = arguments_text(item.get("arguments") or item.get("input"))
    return item.get("call_id") or item.get("id"), str(item.get("name") or ""), arguments


def _texts(parts: Any) -> str:
    """Return the text of content parts of any type."""
    texts = [part.get("text") or part.get("refusal") for part in list_of(parts) if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


class ResponsesApiStream(SseResponseStream):
    """The response stream of the Responses API."""

    events: ResponseEvents
    terminator = "response.completed or response.incomplete"

    def count_usage(self, record: RequestRecord) -> None:
        if self.events.usage is not None:
            fill_openai_usage(record, self.events.usage, "input", "output")
        else:
            self.note_missing_usage(record)


def input_of(prompt: Prompt) -> str | list[dict[str, Any]]:
    """Return a prompt as ``input`` of the Responses API. Content parts are converted from the shape of chat."""
    if prompt.messages is None:
        return prompt.text or ""
    return [item for message in prompt.messages for item in _items(message)]


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Convert a message to items: tool calls and their results become separate items."""
    if message.get("role") == "tool":
        output = {"type": "function_call_output", "call_id": message.get("tool_call_id")}
        return [{**output, "output": message.get("content") or ""}]
    calls = calls_of(message)
    call_items = [
        {"type": "function_call", "call_id": call.identifier, "name": call.name, "arguments": call.arguments}
        for call in calls
    ]
    text_items = [_item(without_calls(message))] if message.get("content") or not calls else []
    return [*text_items, *call_items]


def _item(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    text = "output_text" if message.get("role") == "assistant" else "input_text"
    return {**message, "content": [_part(part, text) for part in content]}


def _part(part: Any, text: str) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return {"type": text, "text": part.get("text", "")}
    if kind == "image_url":
        image = part.get("image_url")
        details = image if isinstance(image, dict) else {"url": image}
        detail = {"detail": details["detail"]} if "detail" in details else {}
        return {"type": "input_image", "image_url": details.get("url"), **detail}
    return part
