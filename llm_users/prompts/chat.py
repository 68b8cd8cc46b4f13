"""Messages in the format of the API: counts their text, and adds text and images to them.

It does not depend on the source of messages or on how they are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_users.prompts.tokenizer import Tokenizer

Message = dict[str, Any]


def count_messages(tokenizer: Tokenizer, messages: Sequence[Message]) -> int:
    """Return the tokens of the messages' texts, without the tokens of the chat template; images count as 0."""
    count = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            count += tokenizer.count(content)
        elif isinstance(content, list):
            # Content parts in the format of OpenAI ({"type": "text", "text": ...}) and Bedrock ({"text": ...}).
            texts = (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
            count += sum(map(tokenizer.count, texts))
    return count


def is_text_only(messages: Sequence[Message]) -> bool:
    """Return whether the messages contain only text: only the server knows the tokens of images and tool calls."""
    return all(
        _is_text(message.get("content")) and not (message.get("tool_calls") or message.get("function_call"))
        for message in messages
    )


def opened_with(text: str, messages: Sequence[Message]) -> list[Message]:
    """Return the messages with ``text`` before the content of the first message."""
    first, *others = messages
    content = first.get("content")
    if isinstance(content, list):
        first_part = content[0] if content and isinstance(content[0], dict) else {"type": "text"}
        # Bedrock's parts have no type.
        part = {"type": "text", "text": text} if "type" in first_part else {"text": text}
        return [{**first, "content": [part, *content]}, *others]
    return [{**first, "content": text + (content or "")}, *others]


def with_images(messages: Sequence[Message], images: Sequence[Message]) -> list[Message]:
    """Return the messages with ``images``, which are content parts, at the end of the last user message."""
    user_indexes = [index for index, message in enumerate(messages) if message.get("role") == "user"]
    last = user_indexes[-1] if user_indexes else len(messages) - 1
    content = messages[last].get("content")
    parts = list(content) if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    return [*messages[:last], {**messages[last], "content": [*parts, *images]}, *messages[last + 1 :]]


def _is_text(content: object) -> bool:
    if isinstance(content, list):
        kinds = ("text", "input_text", None)  # Bedrock's parts have no type
        return all(isinstance(part, dict) and "text" in part and part.get("type") in kinds for part in content)
    return content is None or isinstance(content, str)
