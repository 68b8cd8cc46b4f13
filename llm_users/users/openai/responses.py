"""The Responses API: what is asked, and how an answer that has begun is counted. Knows no connections."""

from __future__ import annotations

from typing import Any

from llm_users.prompts import Prompt
from llm_users.record import RequestRecord
from llm_users.users.openai.responses_events import ResponseEvents
from llm_users.users.sse_answer import SseResponseStream
from llm_users.users.token_counts import fill_openai_usage
from llm_users.users.tool_call_history import calls_of, without_calls


class ResponsesApiStream(SseResponseStream):
    """A response that has begun."""

    events: ResponseEvents
    terminator = "response.completed or response.incomplete"

    def count_usage(self, record: RequestRecord) -> None:
        if self.events.usage is not None:
            fill_openai_usage(record, self.events.usage, "input", "output")
        else:
            self.note_missing_usage(record)


def input_of(prompt: Prompt) -> str | list[dict[str, Any]]:
    """A prompt as this API's ``input``; content parts in chat's shape get the names that they have here."""
    if prompt.messages is None:
        return prompt.text or ""
    return [item for message in prompt.messages for item in _items(message)]


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of a message: here tool calls and their results are items beside it."""
    if message.get("role") == "tool":
        output = {"type": "function_call_output", "call_id": message.get("tool_call_id")}
        return [{**output, "output": message.get("content") or ""}]
    calls = calls_of(message)
    made = [
        {"type": "function_call", "call_id": call.identifier, "name": call.name, "arguments": call.arguments}
        for call in calls
    ]
    said = [_item(without_calls(message))] if message.get("content") or not calls else []
    return [*said, *made]


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
