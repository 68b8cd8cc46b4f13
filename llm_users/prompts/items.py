"""One entry of a dataset: its possible fields, and the prompt that results from them.

It does not depend on files: the caller provides the position of an entry for error messages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from llm_users.prompts.prompt import PromptError

CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "output_tokens", "output_length")
LENGTH = "input_length"
SHAPE = (
    'an entry has one of "prompt" (a text), "messages", "conversation" and "conversations" (lists), or "body" (a line '
    'of an OpenAI batch file), or else "input_length"; optionally "max_tokens", "output_tokens" or "output_length"'
)
CONTENTS = ("prompt", "messages", "conversation", "conversations")
HUMANS = ("human", "user")
SYSTEM = ("system", "developer")
_ANSWERS = ("assistant", "model")

_OF_A_MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id")
"""Message fields of the APIs. Servers reject other fields of recorded turns, such as the country in WildChat."""

_NO_ANSWERS = ("/embeddings", "/moderations")
_LONGEST_NAMES = 200


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt: ``text``, ``messages`` or the length of a text to generate, with the output cap of the entry if any."""

    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = None
    input_tokens: int | None = None  # length of the text to generate
    answer: str | None = None  # the recorded answer; its length is the cap when there is no other cap
    answer_is_left_out: bool = False  # the entry ended with answers, which are not sent


def item_of(where: str, entry: object, column: str | None = None) -> Item | None:
    """Return the entry as an item; None when it is empty: without text, or a conversation without a user message.

    ``column`` is the name of the field with the prompt (a text or a list) instead of the default ones. ``where`` is the
    start of the message of a ``PromptError``.
    """
    if isinstance(entry, str):
        entry = {"prompt": entry}
    if not isinstance(entry, Mapping):
        raise PromptError(f"{where}: is {shown(entry)}; {SHAPE}")
    if column is None:
        entry = request_of(where, entry)
    field, value = _content(where, entry, column)
    cap = cap_of(where, entry)
    if field is None:
        length = count_of(where, entry, LENGTH)
        return Item(max_tokens=cap, input_tokens=length) if length is not None else None
    if value is None or value in ("", []):
        return None
    recorded = isinstance(value, list) and any(isinstance(turn, dict) and "from" in turn for turn in value)
    if field == "conversations" or recorded:
        return _first_turn(where, field, value, cap)
    if field in ("messages", "conversation") or (field == column and isinstance(value, list)):
        if not isinstance(value, list) or not all(
            isinstance(message, dict) and isinstance(message.get("role"), str) for message in value
        ):
            raise PromptError(f'{where}: "{field}" must be a list of objects with a "role" that is a text; {SHAPE}')
        if field == "conversation":
            value = [{key: turn[key] for key in _OF_A_MESSAGE if turn.get(key) is not None} for turn in value]
        return _of_messages(value, cap)
    if not isinstance(value, str):
        raise PromptError(f'{where}: "{field}" must be a text, not {shown(value)}; {SHAPE}')
    return Item(value, max_tokens=cap) if value.strip() else None


def without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a table without null fields in its messages, which have the fields of all messages."""
    return {name: _without_null_fields(value) if isinstance(value, list) else value for name, value in row.items()}


def _without_null_fields(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_null_fields(element) for element in value]
    if isinstance(value, dict):
        return {
            key: _without_null_fields(field) for key, field in value.items() if field is not None or key == "content"
        }
    return value


def request_of(where: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request of a line of a batch file with the fields of an entry, and every other entry unchanged.

    OpenAI's batch files have the request in "body", Anthropic's in "params". A system text next to the messages becomes
    the first message. Model, temperature, tools and all other fields of the request are ignored: options set them for
    the complete run.
    """
    for name in ("body", "params"):
        request = entry.get(name)
        if isinstance(request, Mapping) and not any(entry.get(field) for field in CONTENTS):
            break
    else:
        return entry
    url = entry.get("url")
    if isinstance(url, str) and url.endswith(_NO_ANSWERS):
        raise PromptError(f"{where}: is a request to {shown(url)}, which has no answer to measure. Remove it")
    fields = {key: request[key] for key in (*CONTENTS, *CAPS) if request.get(key) is not None}
    if "input" in request:  # from the Responses API
        fields["messages" if isinstance(request["input"], list) else "prompt"] = request["input"]
    if not any(field in fields for field in CONTENTS):
        raise PromptError(f'{where}: "{name}" has {names_of(request)}, but not "messages", "prompt" or "input"')
    system = request.get("system") or request.get("instructions")
    if system and isinstance(content := fields.get("messages", fields.get("prompt")), list | str):
        fields.pop("prompt", None)
        messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
        fields["messages"] = [{"role": "system", "content": system}, *messages] if messages else []
    return {**{key: entry[key] for key in ("id",) if key in entry}, **fields}


def cap_of(where: str, entry: Mapping[str, Any]) -> int | None:
    """Return the output cap of an entry from the first field that has one, or None."""
    return next((number for key in CAPS if (number := count_of(where, entry, key)) is not None), None)


def _content(where: str, entry: Mapping[str, Any], column: str | None) -> tuple[str | None, Any]:
    """Return (field, value) of the prompt; (None, None) when the entry has only a length."""
    if column is not None:
        if column not in entry:
            raise PromptError(f'{where}: has no field "{column}"; it has {names_of(entry)}')
        return column, entry[column]
    given = [field for field in CONTENTS if not _missing(entry.get(field))]  # every row of a table has all columns
    if len(given) == 1:
        return given[0], entry[given[0]]
    if not given and not _missing(entry.get(LENGTH)):
        return None, None
    empty = [field for field in CONTENTS if field in entry]
    if not given and empty:
        return empty[0], None
    names = " and ".join(f'"{field}"' for field in given) or names_of(entry)
    raise PromptError(f"{where}: has {names}; {SHAPE}, or name the field: FILE:FIELD")


def _of_messages(messages: list[dict[str, Any]], cap: int | None) -> Item | None:
    """Return messages in the format of the API, without answers at the end, because the run measures a new answer.

    The length of the first of these answers is the cap. A message that "prefix" (DeepSeek, Mistral) or "partial"
    (Moonshot, Qwen) marks as the start of an answer is sent.
    """
    end = len(messages)
    while end and (last := messages[end - 1])["role"] in _ANSWERS:
        if last.get("prefix") is True or last.get("partial") is True:
            break
        end -= 1
    sent = messages[:end]
    contents = [message.get("content") for message in sent]
    has_content = any(content.strip() if isinstance(content, str) else content for content in contents)
    if not has_content and not any(message.get("tool_calls") for message in sent):
        return None
    if end == len(messages):
        return Item(messages=sent, max_tokens=cap)
    if all(message["role"] in SYSTEM for message in sent):
        return None  # a recorded conversation without a user message
    answer = messages[end].get("content")
    if not isinstance(answer, str):
        parts = answer if isinstance(answer, Sequence) else ()
        texts = (part.get("text") for part in parts if isinstance(part, Mapping))
        answer = "".join(text for text in texts if isinstance(text, str))
    return Item(messages=sent, max_tokens=cap, answer=answer or None, answer_is_left_out=True)


def _first_turn(where: str, field: str, turns: object, cap: int | None) -> Item | None:
    """Return the first user message, in ShareGPT's format ("from", "value") or the API's ("role", "content").

    System texts before it are kept; the length of the answer after it is the cap.
    """
    parsed = [role_and_text(turn) for turn in turns] if isinstance(turns, list) else [None]
    if None in parsed:
        raise PromptError(
            f'{where}: "{field}" must be a list of objects with "from" and "value" (or "role" and "content")'
        )
    system: list[dict[str, Any]] = []
    for (role, text), (next_role, next_text) in pairwise([*filter(None, parsed), ("", "")]):
        if role == "system" and text:
            system.append({"role": "system", "content": text})
        elif role in HUMANS and text:
            answer = next_text if next_role not in (*HUMANS, "") else None
            if system:
                return Item(None, [*system, {"role": "user", "content": text}], cap, answer=answer)
            return Item(text, max_tokens=cap, answer=answer)
    return None


def role_and_text(turn: object) -> tuple[str, str] | None:
    """Return (role, text) of a turn; the text is empty for other content. None when the value is not a turn."""
    if not isinstance(turn, dict):
        return None
    role, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if not isinstance(role, str):
        return None
    return role, text.strip() and text if isinstance(text, str) else ""


def count_of(where: str, entry: Mapping[str, Any], key: str) -> int | None:
    """Return a field as a whole number of 1 or more; None when it is missing, null or an empty cell.

    Raises ``PromptError`` for another value.
    """
    value = entry.get(key)
    if _missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise PromptError(f'{where}: "{key}" must be a whole number of 1 or more, not {shown(value)}')
    return int(value)


def names_of(entry: Mapping[str, Any]) -> str:
    """Return the names of an entry's fields for a message."""
    return printable(", ".join(map(str, entry)) or "no fields", _LONGEST_NAMES)


def _missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def shown(value: object) -> str:
    """Return a value of a file for a message."""
    return printable(json.dumps(value, ensure_ascii=False, default=str), 80)


def printable(text: str, longest: int) -> str:
    """Return the start of a text without characters that break a line or control a terminal."""
    text = "".join(character if character.isprintable() else "?" for character in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 3] + "..."


def skipped_note(name: str, skipped: int, of: int, what: str) -> str:
    """Return a note about empty entries: ``FILE: 1 of 3 prompts is empty and is skipped``."""
    verb = "is" if skipped == 1 else "are"
    return f"{name}: {skipped} of {of} {what} {verb} empty and {verb} skipped"
