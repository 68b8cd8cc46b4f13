"""The tool calls of one answer, put together from the pieces in which they come.

Pieces are kept and joined once: joining each new one to what came before takes time that grows with the square of the
length. Knows no API and no transport.
"""

from __future__ import annotations

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

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: list[_Call | dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, identifier: Any = None, name: str = "") -> int:
        """A call begins; returns its place. Raises ``MalformedEvent`` when there are too many."""
        self._append(_Call(identifier, name))
        return len(self._calls) - 1

    def add(self, place: int, arguments: str, name: str = "", identifier: Any = None) -> None:
        """A piece of the call at this place."""
        call = self._calls[place]
        if isinstance(call, _Call):
            call.identifier = call.identifier or identifier
            if name:
                call.names.append(name)
            if arguments:
                call.arguments.append(arguments)

    def add_whole(self, call: dict[str, Any]) -> None:
        """A call that came in one piece, as it is."""
        self._append(call)

    def has_arguments(self, place: int) -> bool:
        call = self._calls[place]
        return not isinstance(call, _Call) or bool(call.arguments)

    def assembled(self) -> list[dict[str, Any]]:
        """All calls in OpenAI's shape."""
        return [
            {
                "id": call.identifier,
                "type": "function",
                "function": {"name": "".join(call.names), "arguments": "".join(call.arguments)},
            }
            if isinstance(call, _Call)
            else call
            for call in self._calls
        ]

    def _append(self, call: _Call | dict[str, Any]) -> None:
        if len(self._calls) >= MOST_CALLS:
            raise MalformedEvent(f"the answer has more than {MOST_CALLS} tool calls")
        self._calls.append(call)
