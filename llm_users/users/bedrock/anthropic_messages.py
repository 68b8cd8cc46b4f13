"""Convert a prompt to messages of the Anthropic API, which InvokeModel accepts too.

The module is in this package because ``users.anthropic`` depends on the events of Bedrock, not the other way around.
"""

from __future__ import annotations

from typing import Any

from llm_users.prompts import Prompt
from llm_users.users.tool_calls import calls_of, without_calls

_SYSTEM = ("system", "developer")


def conversation(prompt: Prompt) -> tuple[list[dict[str, Any]], Any]:
    """Return (messages, system) in Anthropic's shape, from a text or from messages in Anthropic's or OpenAI's shape."""
    if prompt.messages is None:
        return [{"role": "user", "content": prompt.text or ""}], None
    turns: list[dict[str, Any]] = []
    system: list[dict[str, Any]] = []
    for message in prompt.messages:
        content = message.get("content")
        blocks = content if isinstance(content, str) or content is None else [_block(part) for part in content]
        if message.get("role") == "tool":
            result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": blocks or ""}
            turns.append({"role": "user", "content": [result]})
        elif message.get("tool_calls"):
            texts = [{"type": "text", "text": blocks}] if isinstance(blocks, str) and blocks else blocks or []
            uses = [
                {"type": "tool_use", "id": call.identifier, "name": call.name, "input": call.fields}
                for call in calls_of(message)
            ]
            turns.append({**without_calls(message), "content": [*texts, *uses]})
        elif message.get("role") not in _SYSTEM:
            turns.append({**message, "content": blocks})
        else:
            system += [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks or []
    if len(system) == 1 and set(system[0]) == {"type", "text"}:
        return turns, system[0]["text"]
    return turns, system or None


def _block(part: Any) -> Any:
    """Convert a content part from OpenAI's shape. Parts in Anthropic's shape are returned unchanged."""
    if not isinstance(part, dict) or part.get("type") != "image_url":
        return part
    image = part.get("image_url")
    url = str(image.get("url") if isinstance(image, dict) else image)
    head, _, data = url.partition(";base64,")
    if not data:
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "image", "source": {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}}
