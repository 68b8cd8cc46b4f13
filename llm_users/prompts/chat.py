"""Conversations in the API's shape: counting their text, putting text and images into them.

Knows nothing of where they come from or of how they are sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llm_users.prompts.tokenizer import Tokenizer

Message = dict[str, Any]


def count_messages(tokenizer: Tokenizer, messages: Sequence[Message]) -> int:
    """Tokens of the messages' text contents, without what the server's chat template adds; images count nothing."""
    return sum(tokenizer.count(text) for message in messages for text in _texts(message.get("content")))


def is_text_only(messages: Sequence[Message]) -> bool:
    """True when the messages are nothing but text: what an image, or a tool call, is worth only the server knows."""
    return all(
        _is_text(message.get("content")) and not (message.get("tool_calls") or message.get("function_call"))
        for message in messages
    )


def opened_with(text: str, messages: Sequence[Message]) -> list[Message]:
    """The messages with ``text`` before everything else that they say."""
    first, *others = messages
    content = first.get("content")
    if isinstance(content, list):
        like = content[0] if content and isinstance(content[0], dict) else {"type": "text"}
        part = {"type": "text", "text": text} if "type" in like else {"text": text}  # Bedrock's parts have no type
        return [{**first, "content": [part, *content]}, *others]
    return [{**first, "content": text + (content or "")}, *others]


def with_images(messages: Sequence[Message], images: Sequence[Message]) -> list[Message]:
    """The messages with ``images``, parts of a content, behind what the user said last."""
    places = [place for place, message in enumerate(messages) if message.get("role") == "user"]
    at = places[-1] if places else len(messages) - 1
    content = messages[at].get("content")
    parts = list(content) if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    return [*messages[:at], {**messages[at], "content": [*parts, *images]}, *messages[at + 1 :]]


def _is_text(content: object) -> bool:
    if isinstance(content, list):
        kinds = ("text", "input_text", None)  # Bedrock's parts have no type
        return all(isinstance(part, dict) and "text" in part and part.get("type") in kinds for part in content)
    return content is None or isinstance(content, str)


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        # Parts, as OpenAI ({"type": "text", "text": ...}) and Bedrock ({"text": ...}) write them.
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
