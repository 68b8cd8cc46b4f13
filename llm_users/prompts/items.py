"""One entry of a data set: which fields it may have, and what is asked because of them.

Knows nothing of files: whoever reads one says where an entry stands in it.
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
"""What APIs take. Recorded turns have more (the country and the language in WildChat), which servers refuse."""

_NO_ANSWERS = ("/embeddings", "/moderations")
_LONGEST_NAMES = 200


@dataclass(frozen=True, slots=True)
class Item:
    """``text`` or ``messages`` or the length of a text to be made; the output cap where the entry says it."""

    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = None
    input_tokens: int | None = None  # of the text that is to be made
    answer: str | None = None  # the recorded one, whose length is the cap when there is no other
    answer_is_left_out: bool = False  # the entry ended with answers, which are not sent


def item_of(where: str, entry: object, column: str | None = None) -> Item | None:
    """The entry as an item; None where it is empty: no text, or a conversation in which no user says anything.

    ``column`` names the field that has the prompt, a text or a list, in place of the usual ones. ``where`` begins the
    message of a ``PromptError``.
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
        if not _are_messages(value):
            raise PromptError(f'{where}: "{field}" must be a list of objects with a "role" that is a text; {SHAPE}')
        if field == "conversation":
            value = [{key: turn[key] for key in _OF_A_MESSAGE if turn.get(key) is not None} for turn in value]
        return _of_messages(value, cap)
    if not isinstance(value, str):
        raise PromptError(f'{where}: "{field}" must be a text, not {shown(value)}; {SHAPE}')
    return Item(value, max_tokens=cap) if value.strip() else None


def request_of(where: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request of a line of a batch file in the fields of an entry, and every other entry unchanged.

    OpenAI's have the request in "body", Anthropic's in "params". A system text beside the messages is put before them.
    Model, temperature, tools and all other fields of the request are not taken: options say them for the whole run.
    """
    for name in ("body", "params"):
        request = entry.get(name)
        if isinstance(request, Mapping) and not any(entry.get(field) for field in CONTENTS):
            break
    else:
        return entry
    url = entry.get("url")
    if isinstance(url, str) and url.endswith(_NO_ANSWERS):
        raise PromptError(f"{where}: is a request to {shown(url)}, which has no answer to measure. Leave it out")
    asked = {key: request[key] for key in (*CONTENTS, *CAPS) if request.get(key) is not None}
    if "input" in request:  # of the responses API
        asked["messages" if isinstance(request["input"], list) else "prompt"] = request["input"]
    if not any(field in asked for field in CONTENTS):
        raise PromptError(f'{where}: "{name}" has {names_of(request)}, and none of "messages", "prompt" and "input"')
    system = request.get("system") or request.get("instructions")
    if system and isinstance(said := asked.get("messages", asked.get("prompt")), list | str):
        asked.pop("prompt", None)
        before = said if isinstance(said, list) else [{"role": "user", "content": said}]
        asked["messages"] = [{"role": "system", "content": system}, *before] if before else []
    return {**{key: entry[key] for key in ("id",) if key in entry}, **asked}


def cap_of(where: str, entry: Mapping[str, Any]) -> int | None:
    """The cap on the answer that an entry says, the first of its fields that has one."""
    return next((number for key in CAPS if (number := count_of(where, entry, key)) is not None), None)


def _content(where: str, entry: Mapping[str, Any], column: str | None) -> tuple[str | None, Any]:
    """(field, value) of what is asked; (None, None) when there is only a length."""
    if column is not None:
        if column not in entry:
            raise PromptError(f'{where}: has no "{column}", it has {names_of(entry)}')
        return column, entry[column]
    given = [field for field in CONTENTS if not _missing(entry.get(field))]  # tables have all columns in each row
    if len(given) == 1:
        return given[0], entry[given[0]]
    if not given and not _missing(entry.get(LENGTH)):
        return None, None
    empty = [field for field in CONTENTS if field in entry]
    if not given and empty:
        return empty[0], None
    found = " and ".join(f'"{field}"' for field in given) or names_of(entry)
    raise PromptError(f"{where}: has {found}; {SHAPE}, or name the field: FILE:FIELD")


def _of_messages(messages: list[dict[str, Any]], cap: int | None) -> Item | None:
    """Messages as the API takes them, without the answers at their end: what is measured is another answer.

    The first of these answers says how long one is. What "prefix" (DeepSeek, Mistral) or "partial" (Moonshot, Qwen)
    marks as the beginning of an answer is sent.
    """
    end = len(messages)
    while end and messages[end - 1]["role"] in _ANSWERS and not _is_beginning(messages[end - 1]):
        end -= 1
    asked = messages[:end]
    if not any(_says_something(message) for message in asked):
        return None
    if end == len(messages):
        return Item(messages=asked, max_tokens=cap)
    if all(message["role"] in SYSTEM for message in asked):
        return None  # recorded, and no user says anything
    answer = _text_of(messages[end].get("content"))
    return Item(messages=asked, max_tokens=cap, answer=answer or None, answer_is_left_out=True)


def _is_beginning(message: Mapping[str, Any]) -> bool:
    return message.get("prefix") is True or message.get("partial") is True


def _says_something(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return bool(content.strip() if isinstance(content, str) else content) or bool(message.get("tool_calls"))


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    texts = (part.get("text") for part in parts if isinstance(part, Mapping))
    return "".join(text for text in texts if isinstance(text, str))


def _first_turn(where: str, field: str, turns: object, cap: int | None) -> Item | None:
    """What a human asks first, as ShareGPT records it ("from", "value") or the API ("role", "content").

    System texts before it are kept; the answer behind it says how long an answer is.
    """
    said = [role_and_text(turn) for turn in turns] if isinstance(turns, list) else [None]
    if None in said:
        raise PromptError(
            f'{where}: "{field}" must be a list of objects with "from" and "value" (or "role" and "content")'
        )
    system: list[dict[str, Any]] = []
    for (role, text), (next_role, next_text) in pairwise([*filter(None, said), ("", "")]):
        if role == "system" and text:
            system.append({"role": "system", "content": text})
        elif role in HUMANS and text:
            answer = next_text if next_role not in (*HUMANS, "") else None
            if system:
                return Item(None, [*system, {"role": "user", "content": text}], cap, answer=answer)
            return Item(text, max_tokens=cap, answer=answer)
    return None


def role_and_text(turn: object) -> tuple[str, str] | None:
    """(role, text) of a turn; what is no text counts as nothing said. None: no turn at all."""
    if not isinstance(turn, dict):
        return None
    role, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if not isinstance(role, str):
        return None
    return role, text.strip() and text if isinstance(text, str) else ""


def _are_messages(messages: object) -> bool:
    return isinstance(messages, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages
    )


def count_of(where: str, entry: Mapping[str, Any], key: str) -> int | None:
    """A whole number from 1; what is null in the file, or empty in a table, is as good as absent."""
    value = entry.get(key)
    if _missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise PromptError(f'{where}: "{key}" must be a whole number of 1 or more, not {shown(value)}')
    return int(value)


def names_of(entry: Mapping[str, Any]) -> str:
    """The names of an entry's fields, for a message."""
    return printable(", ".join(map(str, entry)) or "nothing", _LONGEST_NAMES)


def _missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def shown(value: object) -> str:
    """A value of a file, for a message."""
    return printable(json.dumps(value, ensure_ascii=False, default=str), 80)


def printable(text: str, longest: int) -> str:
    """Return the beginning of a text, without characters that break a line or control a terminal."""
    text = "".join(character if character.isprintable() else "?" for character in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 3] + "..."


def skipped_note(name: str, skipped: int, of: int, what: str) -> str:
    """How many entries are empty: ``FILE: 1 of 3 prompts is empty and is skipped``."""
    verb = "is" if skipped == 1 else "are"
    return f"{name}: {skipped} of {of} {what} {verb} empty and {verb} skipped"
