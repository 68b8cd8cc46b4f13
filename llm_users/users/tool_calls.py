"""Tool calls: assemble those of one answer from fragments, and read and write those in OpenAI-shaped messages.

Fragments are kept in lists and joined once, because appending each fragment to a string takes quadratic time. The
module does not depend on an API or on the transport.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from llm_users.users.bad_events import MalformedEvent

MOST_CALLS = 1000
"""Limit per answer. A call without arguments adds no text, so the limits on text do not apply to it."""


class _Call:
    __slots__ = ("arguments", "identifier", "names")

    def __init__(self, identifier: Any, name: str) -> None:
        self.identifier = identifier
        self.names = [name] if name else []
        self.arguments: list[str] = []


class ToolCalls:
    """Tool calls in the order in which they began. The object is false if it has no calls."""

    __slots__ = ("_by_identifier", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_identifier: dict[str, int] = {}  # id -> index of the call, for calls from fragments
        self._by_index: dict[int, int] = {}  # index in the fragments -> index of the current call

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, identifier: Any = None, name: str = "") -> int:
        """Begin a call and return its index. Raises ``MalformedEvent`` if there are too many."""
        if len(self._calls) >= MOST_CALLS:
            raise MalformedEvent(f"the answer has more than {MOST_CALLS} tool calls")
        self._calls.append(_Call(identifier, name))
        return len(self._calls) - 1

    def add(self, position: int, arguments: str, name: str = "", identifier: Any = None) -> None:
        """Add a fragment to the call at this index."""
        call = self._calls[position]
        call.identifier = call.identifier or identifier
        if name:
            call.names.append(name)
        if arguments:
            call.arguments.append(arguments)

    def take(self, fragments: Any) -> str:
        """Add fragments of calls in OpenAI's shape, or whole calls. Return the text that they add."""
        text = ""
        for fragment in fragments if isinstance(fragments, list) else ():
            if not isinstance(fragment, dict):
                continue
            function = fragment.get("function") or fragment.get("custom")
            fields = function if isinstance(function, dict) else {}
            name = fields.get("name")
            name = name if isinstance(name, str) else ""
            arguments = arguments_text(fields.get("arguments", fields.get("input")))
            identifier, index = fragment.get("id"), fragment.get("index")
            identifier = identifier if isinstance(identifier, str) else ""
            position = self._position_of(identifier, index if isinstance(index, int) else None, name)
            call = self._calls[position]
            if identifier and call.identifier == identifier and name == "".join(call.names):
                name = ""  # some servers repeat the id and the name in each fragment
            self.add(position, arguments, name, identifier or None)
            text += name + arguments
        return text

    def _position_of(self, identifier: str, index: int | None, name: str) -> int:
        """Return the index of the call that a fragment belongs to. If there is none, begin a call.

        Fragment indexes identify calls, from whatever number they start. Two ids under one index are two calls
        (Gemini, Ollama), except that a new id without a name continues the call (older vLLM versions create an id for
        each fragment).
        """
        position = self._by_identifier.get(identifier) if identifier else None
        if position is None:
            if index is not None:
                position = self._by_index.get(index)
            elif not name and not identifier and self._calls:
                position = len(self._calls) - 1
            if position is not None and name and self._is_another(self._calls[position], identifier, name):
                position = None
        if position is None:
            position = self.begin()
        if identifier:
            self._by_identifier.setdefault(identifier, position)
        if index is not None:
            self._by_index[index] = position
        return position

    def _is_another(self, call: _Call, identifier: str, name: str) -> bool:
        """Return True if a fragment with this name does not belong to this call."""
        if identifier and call.identifier:
            return bool(identifier != call.identifier)
        return bool(call.arguments) and name != "".join(call.names)

    def has_arguments(self, position: int) -> bool:
        return bool(self._calls[position].arguments)

    def assembled(self) -> list[dict[str, Any]]:
        """Return all calls in OpenAI's shape."""
        return [
            {
                "id": call.identifier,
                "type": "function",
                "function": {"name": "".join(call.names), "arguments": "".join(call.arguments)},
            }
            for call in self._calls
        ]


def arguments_text(value: Any) -> str:
    """Return the arguments of a call as JSON text. Some servers send an object instead of text."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


class MadeCall(NamedTuple):
    """A tool call that the assistant made."""

    identifier: str
    name: str
    arguments: str

    @property
    def fields(self) -> dict[str, Any]:
        """The arguments as an object; ``{}`` if they are not a JSON object."""
        try:
            value = json.loads(self.arguments)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


def assistant_turn(text: str, tool_calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the assistant's answer as a message for the history of the next request."""
    if not tool_calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": text or None, "tool_calls": tool_calls}


def calls_of(message: dict[str, Any]) -> list[MadeCall]:
    """Return the tool calls of an assistant's message."""
    calls = []
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        calls.append(
            MadeCall(
                str(call.get("id") or ""), str(function.get("name") or ""), arguments_text(function.get("arguments"))
            )
        )
    return calls


def without_calls(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message without the fields that only OpenAI's chat completions support."""
    return {name: value for name, value in message.items() if name not in ("tool_calls", "tool_call_id")}
