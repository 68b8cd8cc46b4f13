"""The tool calls of one answer, put together from the pieces in which they come.

Pieces are kept and joined once: joining each new one to what came before takes time that grows with the square of the
length. Knows no API and no transport.
"""

from __future__ import annotations

import json
from typing import Any

from llm_users.users.bad_events import MalformedEvent

MOST_CALLS = 1000
"""Of one answer. A call without arguments brings no text, so that the bounds on texts would not end it."""


class _Call:
    __slots__ = ("arguments", "identifier", "names")

    def __init__(self, identifier: Any, name: str) -> None:
        self.identifier = identifier
        self.names = [name] if name else []
        self.arguments: list[str] = []


class ToolCalls:
    """Calls in the order in which they began. False when there is none."""

    __slots__ = ("_by_identifier", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_identifier: dict[str, int] = {}  # place of the call with this id, of those that came as fragments
        self._by_index: dict[int, int] = {}  # place of the call that a fragment's index means now

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, identifier: Any = None, name: str = "") -> int:
        """A call begins; returns its place. Raises ``MalformedEvent`` when there are too many."""
        if len(self._calls) >= MOST_CALLS:
            raise MalformedEvent(f"the answer has more than {MOST_CALLS} tool calls")
        self._calls.append(_Call(identifier, name))
        return len(self._calls) - 1

    def add(self, place: int, arguments: str, name: str = "", identifier: Any = None) -> None:
        """A piece of the call at this place."""
        call = self._calls[place]
        call.identifier = call.identifier or identifier
        if name:
            call.names.append(name)
        if arguments:
            call.arguments.append(arguments)

    def take(self, fragments: Any) -> str:
        """Fragments of calls in OpenAI's shape, or whole ones; returns the text that they brought."""
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
            place = self._place_of(identifier, index if isinstance(index, int) else None, name)
            call = self._calls[place]
            if identifier and call.identifier == identifier and name == "".join(call.names):
                name = ""  # some servers begin each fragment with the id and the name
            self.add(place, arguments, name, identifier or None)
            text += name + arguments
        return text

    def _place_of(self, identifier: str, index: int | None, name: str) -> int:
        """The call that a fragment belongs to; it begins if there is none.

        A call has its index, wherever indexes begin. Two ids under one index are two calls (Gemini, Ollama), except
        that a new id without a name continues the call (older vLLM make an id for each fragment).
        """
        place = self._by_identifier.get(identifier) if identifier else None
        if place is None:
            if index is not None:
                place = self._by_index.get(index)
            elif not name and not identifier and self._calls:
                place = len(self._calls) - 1
            if place is not None and name and self._is_another(self._calls[place], identifier, name):
                place = None
        if place is None:
            place = self.begin()
        if identifier:
            self._by_identifier.setdefault(identifier, place)
        if index is not None:
            self._by_index[index] = place
        return place

    def _is_another(self, call: _Call, identifier: str, name: str) -> bool:
        """True when a fragment with this name is not of this call."""
        if identifier and call.identifier:
            return bool(identifier != call.identifier)
        return bool(call.arguments) and name != "".join(call.names)

    def has_arguments(self, place: int) -> bool:
        return bool(self._calls[place].arguments)

    def assembled(self) -> list[dict[str, Any]]:
        """All calls in OpenAI's shape."""
        return [
            {
                "id": call.identifier,
                "type": "function",
                "function": {"name": "".join(call.names), "arguments": "".join(call.arguments)},
            }
            for call in self._calls
        ]


def arguments_text(value: Any) -> str:
    """Arguments of a call as text; some servers give them as an object where a text of JSON belongs."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
