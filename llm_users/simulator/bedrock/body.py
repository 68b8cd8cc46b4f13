"""Reading a Bedrock request: which model, how many tokens, how long a prompt.

A prompt's tokens are its words, as everywhere in the simulator. It must not know sockets, time or frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

# A base URL that ends in /v1, as the OpenAI side has it, is no mistake worth a refusal.
_PATH = re.compile(r"(?:/v1)?/model/(.+)/(converse|converse-stream|invoke|invoke-with-response-stream)")
_PROMPT_FIELDS = ("prompt", "inputText", "message", "messages", "system", "chat_history", "preamble", "input",
                  "instructions")  # fmt: skip


class BadBody(ValueError):
    """What a ValidationException says."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. `model` is decoded, an ARN or an id."""

    model: str
    converse: bool
    streamed: bool


def read_path(path: str) -> Target | None:
    """None when the path is not one of the four operations."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    return Target(unquote(match[1]), match[2].startswith("converse"), "stream" in match[2])


def read_json(data: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBody(f"Malformed input request, please reformat your input and try again: {error}") from None
    if not isinstance(body, dict):
        raise BadBody("Malformed input request: #: expected type: JSONObject")
    return body


def at_path(body: Mapping[str, Any], path: str) -> Any:
    """`a.b` of nested objects, None when it is not there."""
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def require(body: Mapping[str, Any], paths: Sequence[str]) -> None:
    for path in paths:
        if at_path(body, path) in (None, "", []):
            raise BadBody(f"Malformed input request: #: required key [{path}] not found")


def cap(body: Mapping[str, Any], paths: Sequence[str], default: int) -> int:
    """How many tokens to answer with."""
    for path in paths:
        wanted = at_path(body, path)
        if wanted is None:
            continue
        if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= 1_000_000:
            raise BadBody(f"Malformed input request: #/{path.replace('.', '/')}: {wanted!r} is not from 1 to 1000000")
        return wanted
    return default


def prompt_tokens(body: Mapping[str, Any]) -> int:
    return sum(_words(body.get(name)) for name in _PROMPT_FIELDS)


def _words(value: Any) -> int:
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(map(_words, value))
    if isinstance(value, dict):
        return sum(_words(value.get(name)) for name in ("content", "text", "message"))
    return 0
