"""Tool calls in a conversation's history: OpenAI's shape of them, as other APIs want it.

Knows messages; no API's requests, no transport and no Locust.
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
        """The arguments as an object; of what is not one, ``{}``."""
        try:
            value = json.loads(self.arguments)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


def assistant_turn(text: str, tool_calls: list[dict[str, Any]]) -> dict[str, Any]:
    """What the assistant answered, as the next request's history has it."""
    if not tool_calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": text or None, "tool_calls": tool_calls}


def calls_of(message: dict[str, Any]) -> list[MadeCall]:
    """The tool calls of an assistant's message."""
    made = []
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        made.append(
            MadeCall(
                str(call.get("id") or ""), str(function.get("name") or ""), arguments_text(function.get("arguments"))
            )
        )
    return made


def without_calls(message: dict[str, Any]) -> dict[str, Any]:
    """The message without the fields that only OpenAI's chat completions know."""
    return {name: value for name, value in message.items() if name not in ("tool_calls", "tool_call_id")}
