"""Build requests for the Responses API, and count the tokens of its response stream."""

from __future__ import annotations

from typing import Any

from llm_users.prompts import Prompt
from llm_users.record import RequestRecord
from llm_users.users.openai.responses_events import ResponseEvents
from llm_users.users.response_stream import SseResponseStream
from llm_users.users.token_counts import fill_openai_usage
from llm_users.users.tool_calls import calls_of, without_calls


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
