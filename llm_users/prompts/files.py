"""Prompts given by the user: one fixed text, or a file of prompts (JSON lines or plain text).

A bad file is refused when it is read, with the line that is wrong. Knows nothing of sonnets or of how a prompt is sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_users.prompts.lengths import LengthLaw, draw_cap
from llm_users.prompts.order import shuffled, stream
from llm_users.prompts.prompt import Prompt, PromptError
from llm_users.prompts.tokenizer import Tokenizer

JSON_LINES = frozenset({".jsonl", ".json-lines", ".jsonlines", ".ndjson", ".json"})
_LINE_SHAPE = 'a line is {"prompt": "..."} or {"messages": [...]}, optionally with "max_tokens", or a JSON string'


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a file: ``text`` or ``messages``, and the output cap when the entry has its own."""

    text: str | None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = None


class FixedSource:
    """The same text for every index; the output cap is still drawn."""

    def __init__(self, tokenizer: Tokenizer | None, output_law: LengthLaw | None, seed: int, text: str) -> None:
        if not text.strip():
            raise PromptError("the fixed prompt is empty. Give a text, or leave it out to send the sonnets task")
        self._text, self._output_law, self._seed = text, output_law, seed
        self._tokens = tokenizer.count(text) if tokenizer else None

    def prompt(self, index: int) -> Prompt:
        return Prompt(index, self._text, None, self._tokens, draw_cap(self._output_law, self._seed, index))


class FileSource:
    """The entries of ``file`` in a seeded order that goes round: all are used before any comes again."""

    def __init__(self, tokenizer: Tokenizer | None, output_law: LengthLaw | None, seed: int, file: Path) -> None:
        self._items = read_items(file)
        self._order = list(shuffled(stream(seed, "entries"), range(len(self._items))))
        self._tokenizer, self._output_law, self._seed = tokenizer, output_law, seed
        self._tokens: dict[
            int, int | None
        ] = {}  # counted on first use; counting a large file at once would take minutes

    def prompt(self, index: int) -> Prompt:
        number = self._order[index % len(self._order)]
        item = self._items[number]
        max_tokens = item.max_tokens or draw_cap(self._output_law, self._seed, index)
        # Copied, so that a user's locustfile that changes its messages does not change the next round's.
        messages = None if item.messages is None else [dict(message) for message in item.messages]
        return Prompt(index, item.text, messages, self._count(number, item), max_tokens)

    def _count(self, number: int, item: Item) -> int | None:
        if self._tokenizer is None:
            return None
        if number not in self._tokens:
            if item.messages is None:
                self._tokens[number] = self._tokenizer.count(item.text or "")
            else:
                text_only = is_text_only(item.messages)
                self._tokens[number] = count_messages(self._tokenizer, item.messages) if text_only else None
        return self._tokens[number]


def count_messages(tokenizer: Tokenizer, messages: list[dict[str, Any]]) -> int:
    """Tokens of the messages' text contents, without what the server's chat template adds; images count nothing."""
    return sum(tokenizer.count(text) for message in messages for text in _texts(message.get("content")))


def is_text_only(messages: list[dict[str, Any]]) -> bool:
    """True when the messages are nothing but text: what an image, or a tool call, is worth only the server knows."""
    return all(
        _is_text(message.get("content")) and not (message.get("tool_calls") or message.get("function_call"))
        for message in messages
    )


def _is_text(content: object) -> bool:
    if isinstance(content, list):
        kinds = ("text", "input_text", None)  # Bedrock's parts have no type
        return all(isinstance(part, dict) and "text" in part and part.get("type") in kinds for part in content)
    return content is None or isinstance(content, str)


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(
        content, list
    ):  # parts, as OpenAI ({"type": "text", "text": ...}) and Bedrock ({"text": ...}) write them
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def read_items(file: Path) -> list[Item]:
    """The entries of ``file``: JSON lines by the name's ending, else one prompt per line. Empty lines are skipped."""
    try:
        data = file.expanduser().read_bytes()
    except OSError as error:
        raise PromptError(f"prompts file {str(file)!r} cannot be read: {error.strerror}. Check the path") from error
    json_lines = file.suffix.lower() in JSON_LINES
    items = []
    # Only at "\n": str.splitlines would also break at characters that may stand inside a prompt, such as U+2028.
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        where = f"prompts file {str(file)!r}, line {number}"
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise PromptError(f"{where}: not UTF-8 (byte {error.start + 1} of the line). Save it as UTF-8") from error
        if line:
            items.append(_item(where, line) if json_lines else Item(line))
    if not items:
        raise PromptError(f"prompts file {str(file)!r} has no prompts. Put one on each line")
    return items


def _item(where: str, line: str) -> Item:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{where}: not JSON ({error}); {_LINE_SHAPE}") from error
    if isinstance(entry, str):
        entry = {"prompt": entry}
    if not isinstance(entry, dict) or ("prompt" in entry) == ("messages" in entry):
        raise PromptError(f'{where}: needs either "prompt" or "messages"; {_LINE_SHAPE}')
    text, messages = entry.get("prompt"), entry.get("messages")
    if "prompt" in entry and not (isinstance(text, str) and text.strip()):
        raise PromptError(f'{where}: "prompt" must be a text that is not empty; {_LINE_SHAPE}')
    if "messages" in entry and not _are_messages(messages):
        raise PromptError(f'{where}: "messages" must be a list of objects with a "role", at least one; {_LINE_SHAPE}')
    return Item(text, messages, _cap(where, entry))


def _are_messages(messages: object) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages)
    )


def _cap(where: str, entry: dict[str, Any]) -> int | None:
    """``max_tokens``, else ``output_tokens``; null is as good as absent."""
    for key in ("max_tokens", "output_tokens"):
        value = entry.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise PromptError(f'{where}: "{key}" must be a whole number of 1 or more, not {json.dumps(value)}')
        return value
    return None
