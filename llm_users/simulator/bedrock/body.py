"""Parses a Bedrock request: the model, the cap on output tokens and the length of the prompt.

The tokens of a prompt are its words, as everywhere in the simulator. It does not depend on sockets, time or frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

# Also accepts a base URL that ends in /v1, as the OpenAI API uses it.
_PATH = re.compile(r"(?:/v1)?/model/(.+)/(converse|converse-stream|invoke|invoke-with-response-stream)")
_PROMPT_FIELDS = ("prompt", "messages", "system", "input", "instructions")


class BadBody(ValueError):
    """An invalid body; the text is the message of the ValidationException."""


@dataclass(frozen=True, slots=True)
class Target:
    """The operation and the model of a path. `model` is a decoded ARN or id."""

    model: str
    converse: bool
    streamed: bool


def read_path(path: str) -> Target | None:
    """Return the target of the path, or None when the path is not one of the four operations."""
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
    """Return the value at a path such as `a.b` in nested objects, or None when it does not exist."""
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def require(body: Mapping[str, Any], paths: Sequence[str]) -> None:
    for path in paths:
        if at_path(body, path) in (None, "", []):
            raise BadBody(f"Malformed input request: #: required key [{path}] not found")


def cap(body: Mapping[str, Any], paths: Sequence[str], default: int) -> int:
    """Return the number of tokens of the answer. Raises BadBody for a cap out of range."""
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
        return sum(_words(value.get(name)) for name in ("content", "text"))
    return 0
