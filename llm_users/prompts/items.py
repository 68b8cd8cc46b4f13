"""One entry of a data set: which fields it may have, and what is asked because of them.

Knows nothing of files: whoever reads one says where an entry stands in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from llm_users.prompts.prompt import PromptError

CAPS = ("max_tokens", "output_tokens", "output_length")
LENGTH = "input_length"
SHAPE = (
    'an entry has one of "prompt" (a text), "messages" and "conversations" (lists), or else "input_length"; optionally '
    '"max_tokens", "output_tokens" or "output_length"'
)
CONTENTS = ("prompt", "messages", "conversations")
HUMANS = ("human", "user")


@dataclass(frozen=True, slots=True)
class Item:
    """``text`` or ``messages`` or the length of a text to be made; the output cap where the entry says it."""

    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = None
    input_tokens: int | None = None  # of the text that is to be made
    answer: str | None = None  # the recorded one, whose length is the cap when there is no other


def item_of(where: str, entry: object, column: str | None = None) -> Item | None:
    """The entry as an item; None for a recorded conversation in which no human says anything.

    ``column`` names the field that has the prompt, a text or a list, in place of the usual ones. ``where`` begins the
    message of a ``PromptError``.
    """
    if isinstance(entry, str):
        entry = {"prompt": entry}
    if not isinstance(entry, Mapping):
        raise PromptError(f"{where}: is {shown(entry)}; {SHAPE}")
    field, value = _content(where, entry, column)
    cap = next((number for key in CAPS if (number := count_of(where, entry, key)) is not None), None)
    if field is None:
        return Item(max_tokens=cap, input_tokens=count_of(where, entry, LENGTH))
    recorded = isinstance(value, list) and any(isinstance(turn, dict) and "from" in turn for turn in value)
    if field == "conversations" or recorded:
        return _first_turn(where, field, value, cap)
    if field == "messages" or (field == column and isinstance(value, list)):
        if not _are_messages(value):
            raise PromptError(
                f'{where}: "{field}" must be a list of objects with a "role" that is a text, at least one; {SHAPE}'
            )
        return Item(messages=value, max_tokens=cap)
    if not (isinstance(value, str) and value.strip()):
        raise PromptError(f'{where}: "{field}" must be a text that is not empty; {SHAPE}')
    return Item(value, max_tokens=cap)


def _content(where: str, entry: Mapping[str, Any], column: str | None) -> tuple[str | None, Any]:
    """(field, value) of what is asked; (None, None) when there is only a length."""
    if column is not None:
        if column not in entry:
            raise PromptError(f'{where}: has no "{column}", it has {", ".join(map(str, entry)) or "nothing"}')
        return column, entry[column]
    given = [field for field in CONTENTS if entry.get(field) is not None]  # tables have all columns in each row
    if len(given) == 1:
        return given[0], entry[given[0]]
    if given or _missing(entry.get(LENGTH)):
        found = " and ".join(f'"{field}"' for field in given) or ", ".join(map(str, entry)) or "nothing"
        raise PromptError(f"{where}: has {found}; {SHAPE}, or name the field: FILE:FIELD")
    return None, None


def _first_turn(where: str, field: str, turns: object, cap: int | None) -> Item | None:
    """What a human asks first, as ShareGPT records it ("from", "value") or the API ("role", "content").

    System texts before it are kept; the answer behind it says how long an answer is.
    """
    said = [role_and_text(turn) for turn in turns] if isinstance(turns, list) else []
    if not said or None in said:
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
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages)
    )


def count_of(where: str, entry: Mapping[str, Any], key: str) -> int | None:
    """A whole number from 1; what is null in the file, or empty in a table, is as good as absent."""
    value = entry.get(key)
    if _missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise PromptError(f'{where}: "{key}" must be a whole number of 1 or more, not {shown(value)}')
    return int(value)


def _missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
