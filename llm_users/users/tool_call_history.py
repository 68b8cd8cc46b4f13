"""Read and write tool calls in OpenAI-shaped messages of a conversation's history, for conversion to other APIs.

The module handles messages only; it does not depend on an API's requests, on the transport or on Locust.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from llm_users.users.tool_calls import arguments_text


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
